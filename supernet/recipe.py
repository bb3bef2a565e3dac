"""The settings of a training run, checked before torch is needed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from supernet.sampling import SAMPLERS


@dataclass(frozen=True)
class TrainConfig:
    """The recipe. Raises ValueError naming the field that is out of range.

    epochs: passes over the training split. batch_size: images a step; all subnets of a step see the same ones.
    lr: peak learning rate of SGD with Nesterov momentum, after a linear warm-up, then cosine to 0.
    momentum, weight_decay: of SGD; batch norm, biases and kernel transforms are not decayed.
    label_smoothing, dropout: on the largest subnet alone, which is the only one to see labels.
    clip_norm: bound on the global gradient norm, which is a sum over the step's subnets.
    num_random: sampled subnets a step, between the largest and the smallest. sampler: a name in `SAMPLERS`.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    dropout: float = 0.1
    clip_norm: float = 5.0
    warmup: float = 0.05
    num_random: int = 2
    sampler: str = "uniform"
    seed: int = 0

    def __post_init__(self) -> None:
        ranges = {
            "epochs": (1, 1_000_000),
            "batch_size": (1, 1_000_000),
            "num_random": (0, 64),
            "seed": (0, 2**32),
            "momentum": (0, 0.9999),
            "weight_decay": (0, 1),
            "label_smoothing": (0, 0.9999),
            "dropout": (0, 0.9999),
            "warmup": (0, 0.9999),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; valid: {low} to {high}")
        for name in ("lr", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive number")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"unknown sampler {self.sampler!r}; valid: {', '.join(SAMPLERS)}")
