"""Which subnets a training step trains.

Everything derives from (seed, step, index), so a resumed run and every rank of a distributed one agree.
A new sampler is a function here and one line in `SAMPLERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace

Sampler = Callable[[NetworkSpace, np.random.Generator], Arch]


@dataclass(frozen=True)
class StepSubnet:
    """One subnet of a step and its part in it: "max" (learns from labels and teaches), "random" or "min"."""

    arch: Arch
    role: str


def uniform(space: NetworkSpace, rng: np.random.Generator) -> Arch:
    """Every gene uniform, the pools among the active blocks."""
    return space.sample(rng)


SAMPLERS: dict[str, Sampler] = {"uniform": uniform}


def sandwich(space: NetworkSpace, sampler: Sampler, seed: int, step: int, num_random: int = 2) -> list[StepSubnet]:
    """The sandwich rule (BigNAS): the largest subnet first, `num_random` sampled ones, the smallest last.

    The largest stands at the reference pooling; the sampled ones carry their own pooling positions.
    """
    drawn = [sampler(space, step_rng(seed, step, index)) for index in range(num_random)]
    middle = [StepSubnet(arch, "random") for arch in drawn]
    return [StepSubnet(space.largest(), "max"), *middle, StepSubnet(space.smallest(), "min")]


def step_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """The generator of the `index`-th draw in a step."""
    return np.random.default_rng(np.random.SeedSequence([seed, step, index]))
