"""Sampling toward the sizes that still learn fastest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.samplers.base import Probes, Sampler
from supernet.samplers.bins import macs_bins

UNIFORM_SHARE = 0.2  # of the probability, spread over all bins
TEMPERATURE = 1.0
MEMORY = 0.9  # of the moving average, per probing
NOISE = 1e-3  # nats per probing: differences of slope well below it move nothing
PROBINGS, SHORTEST_PERIOD = 100, 20  # of a run, at least so many steps apart


class Shifted(Sampler):
    """Moves probability toward the bins of MACs whose held-out loss still falls fastest.

    After ShiftNAS (Zhang et al. 2023): uniform sampling trains mid-size subnets most, and a loss that still falls marks
    an under-trained size. Every `max(20, total_steps // 100)` steps one reference architecture per bin, always the
    same, is probed on held-out images, which costs one forward pass per bin. A bin's slope is the moving average of
    its loss's decrease, and P = 0.8 softmax(z / 1.0) + 0.2 uniform over the standardised slopes z. ShiftNAS' trained
    architecture generator is replaced by the rejection sampler of `MacsBins`.
    """

    def __init__(self, space: NetworkSpace, seed: int) -> None:
        super().__init__(space, seed)
        self.bins = macs_bins(space)
        self.references = [self.bins.median(index) for index in range(len(self.bins))]
        self.losses = np.full(len(self.bins), np.nan)  # none probed yet
        # All averages start at 0, so their common start-up bias drops out when they are standardised.
        self.slopes = np.zeros(len(self.bins))

    def begin_step(self, step: int, total_steps: int, probes: Probes) -> None:
        """Probes the references when it is time."""
        if step % max(SHORTEST_PERIOD, total_steps // PROBINGS):
            return
        losses = np.array([probes.held_out(arch) for arch in self.references])
        # A loss that is not finite says nothing about its own slope, nor about the one after it.
        known = np.isfinite(losses) & np.isfinite(self.losses)
        decrease = np.subtract(self.losses, losses, out=np.zeros_like(losses), where=known)
        self.slopes = MEMORY * self.slopes + (1 - MEMORY) * decrease
        self.losses = losses

    @property
    def probability(self) -> np.ndarray:
        """P(bin), float64 [bins]; at least 0.2 / bins each, and uniform where all slopes are equal."""
        centred = self.slopes - self.slopes.mean()
        z = centred / (centred.std() + NOISE)
        weights = np.exp((z - z.max()) / TEMPERATURE)
        return (1 - UNIFORM_SHARE) * weights / weights.sum() + UNIFORM_SHARE / len(z)

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """An architecture of a bin drawn from `probability`."""
        return self.bins.draw(int(rng.choice(len(self.bins), p=self.probability)), rng)

    def state(self) -> dict[str, np.ndarray]:
        """`losses` at the last probing and `slopes`, each float64 [bins]."""
        return {"losses": self.losses.copy(), "slopes": self.slopes.copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores losses and slopes."""
        self.losses = np.array(state["losses"], dtype=np.float64)
        self.slopes = np.array(state["slopes"], dtype=np.float64)
