"""Sampling by bins of MACs."""

from __future__ import annotations

import numpy as np

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.samplers.base import Probes, Sampler
from supernet.samplers.bins import macs_bins

CANDIDATES = 3  # the k of BestUp-k and WorstUp-k


class MacsBinned(Sampler):
    """First a bin of MACs, then an architecture of that bin (AttentiveNAS, Wang et al. 2021).

    The bins keep the share that uniform sampling gives them, so this trains sizes as often as `uniform` does; it is
    the base that `best_up` and `worst_up` choose from.
    """

    def __init__(self, space: NetworkSpace, seed: int) -> None:
        super().__init__(space, seed)
        self.bins = macs_bins(space)

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """One architecture of one bin."""
        return self.bins.draw(self.bins.draw_index(rng), rng)

    def candidates(self, rng: np.random.Generator) -> list[Arch]:
        """`CANDIDATES` architectures of one bin: the choice among them is then not one of size."""
        index = self.bins.draw_index(rng)
        return [self.bins.draw(index, rng) for _ in range(CANDIDATES)]
