"""Sampling in proportion to MACs."""

from __future__ import annotations

import numpy as np

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.samplers.base import Probes, Sampler
from supernet.samplers.rejection import in_proportion_to_macs


class MacsWeighted(Sampler):
    """A uniform sample kept with a probability proportional to its MACs.

    Subnets that compute more, and with them those that downsample late, need more steps to show what they are worth;
    trained as often as the others they are scored too low, and the ranking suffers (benchmarks/README.md).
    """

    def __init__(self, space: NetworkSpace, seed: int) -> None:
        super().__init__(space, seed)
        self._dearest = space.most_macs()

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """One architecture."""
        return in_proportion_to_macs(self.space, rng, lambda: self.space.sample(rng), self._dearest)
