"""Uniform sampling."""

from __future__ import annotations

import numpy as np

from search_spaces.arch import Arch
from supernet.samplers.base import Probes, Sampler


class Uniform(Sampler):
    """Every gene uniform, the pools among the active blocks (single path one-shot, Guo et al. 2020)."""

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """A sample of the space."""
        return self.space.sample(rng)
