"""Sampling in proportion to MACs."""

from __future__ import annotations

import numpy as np

from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.samplers.base import Probes, Sampler

TRIES = 16  # candidates costed at once


class MacsWeighted(Sampler):
    """A uniform sample kept with a probability proportional to its MACs.

    Subnets that compute more, and with them those that downsample late, need more steps to show what they are worth;
    trained as often as the others they are scored too low, and the ranking suffers (benchmarks/README.md).
    """

    def __init__(self, space: NetworkSpace, seed: int) -> None:
        super().__init__(space, seed)
        self.most = int(cost.macs(space, [space.most_macs()])[0])

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """One architecture, by rejection: exact, in as many tries as the largest has times the mean MACs."""
        while True:
            archs = [self.space.sample(rng) for _ in range(TRIES)]
            kept = rng.random(TRIES) * self.most < cost.macs(self.space, archs)
            if kept.any():
                return archs[int(kept.argmax())]
