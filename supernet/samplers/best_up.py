"""Sampling toward the best: BestUp-k."""

from __future__ import annotations

import numpy as np

from search_spaces.arch import Arch
from supernet.samplers.base import Probes
from supernet.samplers.macs_binned import MacsBinned


class BestUp(MacsBinned):
    """Of k = 3 architectures in one bin the one with the lowest loss on the minibatch.

    It trains what a search would keep, the best of every size (AttentiveNAS, Wang et al. 2021). A draw costs k forward
    passes.
    """

    asks_probes = True

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """The first of those with the lowest finite loss."""
        archs = self.candidates(rng)
        losses = np.array([probes.batch(arch) for arch in archs])
        return archs[int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))]
