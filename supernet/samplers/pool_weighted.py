"""Sampling pooling positions in proportion to MACs."""

from __future__ import annotations

import numpy as np

from search_spaces.arch import Arch
from search_spaces.members import pooled_dearest
from supernet.samplers.base import Probes, Sampler
from supernet.samplers.rejection import in_proportion_to_macs


class PoolWeighted(Sampler):
    """A uniform sample whose pools are placed in proportion to the MACs that it has with them; else uniform.

    A short training by uniform draws scores networks that downsample late too low, as a shared kernel serves best the
    level at which it is met most (benchmarks/README.md). Weighting whole subnets by MACs mends that too, but trains
    mostly wide and deep ones for it. Without pooling positions this is `uniform`.
    """

    places_pools = True

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """One architecture."""
        arch = self.space.sample(rng)
        if not self.space.num_pools:
            return arch
        dearest = pooled_dearest(self.space, arch)
        return in_proportion_to_macs(self.space, rng, lambda: self.space.place_pools(arch, rng), dearest)
