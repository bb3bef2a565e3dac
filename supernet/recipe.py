"""The settings of a training run, checked before torch is needed."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.distill import DISTILLATIONS, LABELLESS
from supernet.samplers import SAMPLERS
from supernet.shrink import SCHEDULES
from supernet.steps import STEP_PLANS

OPTIMIZER_NAMES = ("sgd", "adamw")
MAX_POOLINGS = ("reference", "shared")
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "num_random": (0, 64),
    "members": (1, 64),
    "seed": (0, 2**32),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 1),
    "label_smoothing": (0, 0.9999),
    "dropout": (0, 0.9999),
    "drop_connect": (0, 0.9999),
    "mixup": (0, 10),
    "ema": (0, 0.999999),
    "warmup": (0, 0.9999),
}


@dataclass(frozen=True)
class TrainConfig:
    """The recipe. Raises ValueError naming what is out of range or without effect, or two that exclude each other.

    epochs: passes over the training split. batch_size: images of a batch.
    lr: peak learning rate, after a linear warm-up over the part `warmup` of the run, then cosine to 0.
    optimizer: "sgd" (Nesterov) or "adamw". momentum: of SGD, or AdamW's first beta.
    weight_decay: on kernels and matrices; batch norms, biases and kernel transforms are not decayed.
    clip_norm: bound on the global norm of the gradient, a sum over the step's subnets.
    step_plan: a name in `STEP_PLANS`; num_random: its sampled subnets a step, micro-batches or chunks.
    sampler, schedule: names in `SAMPLERS` and `SCHEDULES`.
    distillation: a name in `DISTILLATIONS`; None is "soft_ce" where there is a teacher and "none" elsewhere.
    teacher: a network from outside that teaches all subnets (`supernet.teacher`); None lets the largest
    teach in place, in the step plans that train it.
    max_pooling: where the largest subnet pools: at the space's "reference", or "shared" by all subnets of a step.
    members: weight sets, routed on the pooling configuration (`supernet.mixture`).
    label_smoothing: wherever labels are learnt. mixup: alpha of the mixing ratio's Beta distribution; 0 mixes nothing.
    dropout, drop_connect: probabilities, the latter of the last block and growing linearly with depth; on the
    largest subnet alone where `regularize_biggest_only`, which then must be trained as such.
    ema: decay of the averaged weights that are validated and searched, less in the first steps (`optim.make_average`);
    0 searches the trained ones themselves.
    """

    epochs: int = 100
    batch_size: int = 128
    lr: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: float = 5.0
    warmup: float = 0.05
    step_plan: str = "single_path"
    num_random: int = 2
    sampler: str = "uniform"
    schedule: str = "none"
    distillation: str | None = None
    teacher: str | None = None
    max_pooling: str = "reference"
    members: int = 1
    label_smoothing: float = 0.1
    mixup: float = 0.0
    dropout: float = 0.1
    drop_connect: float = 0.0
    regularize_biggest_only: bool = True
    ema: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; valid: {low} to {high}")
        for name in ("lr", "clip_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive number")
        registries: dict[str, Collection[str]] = {
            "optimizer": OPTIMIZER_NAMES,
            "step_plan": STEP_PLANS,
            "sampler": SAMPLERS,
            "schedule": SCHEDULES,
            "max_pooling": MAX_POOLINGS,
        }
        if self.distillation is not None:
            registries["distillation"] = DISTILLATIONS
        for name, valid in registries.items():
            if getattr(self, name) not in valid:
                label = name.replace("_", " ")
                raise ValueError(f"unknown {label} {getattr(self, name)!r}; valid: {', '.join(valid)}")
        if self.teacher is not None and not self.teacher.strip():
            raise ValueError(f"teacher is {self.teacher!r}; leave it out to let the largest subnet teach")
        self._check_combinations()

    def _check_types(self) -> None:
        """Half an epoch or a quoted number would fail late, or be taken for something else."""
        for field in fields(self):
            value, kind = getattr(self, field.name), str if field.default is None else type(field.default)
            optional = value is None and field.default is None
            accepted = (int, float) if kind is float else kind
            if not optional and (not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool)):
                raise ValueError(f"{field.name} is {value!r}; it must be of type {kind.__name__}")

    def _check_combinations(self) -> None:
        plan = STEP_PLANS[self.step_plan]
        defaults = {field.name: field.default for field in fields(self)}
        for name in plan.ignores:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} has no effect with step plan {self.step_plan!r}: leave it out"
                )
        for name in ("dropout", "drop_connect"):
            if (
                self.regularize_biggest_only
                and not self.trains_largest
                and getattr(self, name) not in (0, defaults[name])
            ):
                raise ValueError(
                    f"{name} {getattr(self, name)} has no effect: it is for the largest subnet alone, which step plan "
                    f"{self.step_plan!r} does not single out; leave it out, or set regularize_biggest_only to false"
                )
        if self.teacher and self.loss == "none":
            raise ValueError(f"teacher {self.teacher!r} has no effect with distillation 'none': leave one of them out")
        smoothing = self.label_smoothing
        if self.teacher and self.loss in LABELLESS and smoothing not in (0, defaults["label_smoothing"]):
            raise ValueError(
                f"label_smoothing {smoothing} has no effect: with a teacher and distillation {self.loss!r} no subnet "
                "learns from labels; leave it out, or set distillation 'ce_kd'"
            )
        if not self.num_random and self.max_pooling != "shared" and self.sampler != defaults["sampler"]:
            raise ValueError(f"sampler {self.sampler!r} has no effect with num_random 0: leave one of them out")
        if not self.num_random and not plan.teaches:
            raise ValueError(f"step plan {self.step_plan!r} needs num_random of at least 1")
        if plan.parts == "batch" and self.batch_size % self.num_random:
            raise ValueError(
                f"step plan {self.step_plan!r} splits the batch: batch_size {self.batch_size} is not divisible by "
                f"num_random {self.num_random}"
            )
        if self.loss != "none" and not (plan.teaches or self.teacher):
            teaching = [name for name, p in STEP_PLANS.items() if p.teaches]
            raise ValueError(
                f"distillation {self.loss!r} needs a teacher, and step plan {self.step_plan!r} trains no largest "
                f"subnet; give a teacher, or distillation 'none', or a step plan of: {', '.join(teaching)}"
            )
        if self.schedule == "delayed_epsilon" and self.optimizer != "sgd":
            raise ValueError(
                f"schedule 'delayed_epsilon' needs optimizer 'sgd', not {self.optimizer!r}: it scales the smaller "
                "subnets' losses, and an adaptive optimizer normalises a gradient's scale away"
            )
        if self.members > 1 and plan.teaches and self.max_pooling != "shared":
            raise ValueError(
                f"members is {self.members}: teacher and students must use the same weights; set max_pooling 'shared'"
            )

    @property
    def trains_largest(self) -> bool:
        """Whether there are steps that train the largest subnet as such, and not only when it is drawn."""
        return STEP_PLANS[self.step_plan].teaches or self.schedule != "none"

    def is_largest(self, space: NetworkSpace, arch: Arch) -> bool:
        """Whether `arch` is the largest subnet of `space`: at whatever pooling, where that is drawn for it, too."""
        largest = space.largest()
        return arch == (space.with_pools(largest, arch.pool) if self.max_pooling == "shared" else largest)

    def about_pools(self) -> list[str]:
        """The settings, by name and value, that do nothing in a space that places no pools."""
        pooled = {"sampler": SAMPLERS[self.sampler].places_pools, "max_pooling": self.max_pooling == "shared"}
        return [f"{name} {getattr(self, name)}" for name, is_pooled in pooled.items() if is_pooled]

    @property
    def loss(self) -> str:
        """The distillation that `distillation` stands for."""
        if self.distillation is not None:
            return self.distillation
        return "soft_ce" if self.teacher or STEP_PLANS[self.step_plan].teaches else "none"

    @property
    def images_per_step(self) -> int:
        """Images that one optimizer step takes."""
        return self.batch_size * (self.num_random if STEP_PLANS[self.step_plan].parts == "step" else 1)
