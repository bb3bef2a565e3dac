"""One sample of a fine-tuning: which configuration it has, and what a worker does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.plan import Plan
from supernet.recipe import TrainConfig

if TYPE_CHECKING:
    from torch import nn

    from supernet.finetune import Images
    from workers.ray_tune import Report

LR_FACTORS = (0.01, 1.0)  # of the recipe's peak learning rate: these weights do not start from scratch
WEIGHT_DECAY_FACTORS = (0.1, 10.0)  # of the recipe's weight decay
PLAIN_WEIGHT_DECAY = 1e-4  # in the place of a recipe's 0, which has no logarithm


def sample_config(recipe: TrainConfig, seed: int, sample: int) -> dict[str, float]:
    """`lr` and `weight_decay` of a sample: log-uniform, a function of the seed and the sample's number alone.

    The same for every architecture, so that two of them do not differ by the luck of the draw.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(sample,)))
    lr, weight_decay = (
        base * float(np.exp(rng.uniform(*np.log(factors))))
        for base, factors in (
            (recipe.lr, LR_FACTORS), (recipe.weight_decay or PLAIN_WEIGHT_DECAY, WEIGHT_DECAY_FACTORS)
        )
    )  # fmt: skip
    return {"lr": lr, "weight_decay": min(1.0, weight_decay)}


@dataclass(frozen=True)
class Work:
    """What a worker does for one sample: fine-tunes, and reports after each epoch how many images are right.

    What it reports beside is the `weights` as the bytes of a safetensors file, or the `error` of a training that
    diverged. plans: by trial. largest: the trials that have the space's largest network.
    """

    images: Images
    recipe: TrainConfig
    plans: Mapping[int, Plan]
    largest: frozenset[int]
    epochs: int
    seed: int
    device: str
    threads: int
    teacher: nn.Module | None

    def __call__(self, config: Mapping[str, Any], shared: Mapping[str, np.ndarray], report: Report) -> None:
        """config: `trial`, `lr` and `weight_decay`."""
        import safetensors.torch
        import torch

        from supernet.evaluate import readonly
        from supernet.finetune import fine_tune
        from supernet.train import TrainingError

        torch.set_num_threads(self.threads)  # so that a result does not depend on the machine's number of cores
        trial, prefix = config["trial"], f"weights.{config['trial']}."
        weights = {name.removeprefix(prefix): readonly(a) for name, a in shared.items() if name.startswith(prefix)}
        recipe = replace(self.recipe, lr=config["lr"], weight_decay=config["weight_decay"])
        try:
            fine_tune(
                self.plans[trial], weights, self.images.data(shared), recipe, self.epochs, self.seed,
                lambda subnet, correct: report(correct, {"weights": safetensors.torch.save(subnet.state_dict())}),
                device=self.device, largest=trial in self.largest, teacher=self.teacher,
            )  # fmt: skip
        except TrainingError as error:
            report(0, {"error": str(error)})
