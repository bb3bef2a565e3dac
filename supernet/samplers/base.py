"""The interface of a sampler: which random subnets a training step trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace

Probe = Callable[[Arch], float]
"""Mean cross-entropy in nats of an architecture on some images; no gradient, and equal on every rank."""


@dataclass(frozen=True)
class Probes:
    """What a sampler may ask of the shared weights as they stand.

    batch: on the step's own minibatch. held_out: on images that are never trained on.
    """

    batch: Probe
    held_out: Probe


class Sampler(ABC):
    """Draws the random subnets of every step of one run.

    The draws are a function of (seed, step, index) and of the answers of the probes, so ranks that hear the same
    answers agree, and a run that resumes from `state` repeats the uninterrupted one.

    space: where the architectures come from. seed: of the run. places_pools: whether all that it does is about pools.
    asks_probes: whether a draw looks at the weights.
    """

    places_pools = False
    asks_probes = False

    def __init__(self, space: NetworkSpace, seed: int) -> None:
        self.space, self.seed = space, seed

    def begin_step(self, step: int, total_steps: int, probes: Probes) -> None:  # noqa: B027  most have nothing to do
        """Called once before the draws of a step; `step` counts from 0 to `total_steps` - 1."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """One canonical architecture; `rng` derives from (seed, step, index) and is the only randomness."""

    def matched_min(self, rng: np.random.Generator) -> Arch:
        """The smallest subnet that goes with this step's draws: of the space, where a sampler has no levels."""
        return self.space.smallest()

    def state(self) -> dict[str, np.ndarray]:
        """Copies of everything that a resumed run needs beyond space and seed."""
        return {}

    def load(self, state: Mapping[str, np.ndarray]) -> None:  # noqa: B027  most hold nothing
        """Takes up what `state` of a sampler of the same space returned. Raises KeyError naming a missing array."""
