"""Sampling toward the worst: WorstUp-k."""

from __future__ import annotations

import numpy as np

from search_spaces.arch import Arch
from supernet.samplers.base import Probes
from supernet.samplers.macs_binned import MacsBinned


class WorstUp(MacsBinned):
    """Of k = 3 architectures in one bin the one with the highest loss on the minibatch.

    It trains what lags behind, as hard examples are mined (AttentiveNAS, Wang et al. 2021). A draw costs k forward
    passes.
    """

    asks_probes = True

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """The first of those with the highest finite loss: training a network that diverged would spread it."""
        archs = self.candidates(rng)
        losses = np.array([probes.batch(arch) for arch in archs])
        return archs[int(np.argmax(np.where(np.isfinite(losses), losses, -np.inf)))]
