"""Sampling pooling positions in proportion to MACs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search_spaces import cost
from search_spaces.arch import Arch
from supernet.samplers.base import Probes, Sampler

TRIES = 16  # placements costed at once


class PoolWeighted(Sampler):
    """A uniform sample whose pools are placed in proportion to the MACs that it has with them; else uniform.

    A short training by uniform draws scores networks that downsample late too low, as a shared kernel serves best the
    level at which it is met most (benchmarks/README.md). Weighting whole subnets by MACs mends that too, but trains
    mostly wide and deep ones for it. Without pooling positions this is `uniform`.
    """

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """One architecture; the placement by rejection, which is exact."""
        arch = self.space.sample(rng)
        if not self.space.num_pools:
            return arch
        slots = self.space.active_slots(arch.depth)
        latest = replace(arch, pool=tuple(slots[-self.space.num_pools :]))
        most = int(cost.macs(self.space, [latest])[0])  # a pool that moves back makes every block between cheaper
        while True:
            tried = [replace(arch, pool=self._placement(slots, rng)) for _ in range(TRIES)]
            kept = rng.random(TRIES) * most < cost.macs(self.space, tried)
            if kept.any():
                return tried[int(kept.argmax())]

    def _placement(self, slots: list[int], rng: np.random.Generator) -> tuple[int, ...]:
        return tuple(sorted(rng.permutation(slots)[: self.space.num_pools].tolist()))
