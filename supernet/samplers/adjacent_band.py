"""Sampling from one band of MACs a step, the band moving by at most one level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.samplers.base import Probes, Sampler
from supernet.samplers.bins import macs_bins

CAPACITY = 150  # entries of a bank
REUSE_START, REUSE_GROWTH = 0.2, 0.75  # chance of drawing from the bank at the start, and what it gains over the run
_LEVEL_MOVES = 0x1E7E1  # sets the moves' random numbers apart from those of the draws


@dataclass
class Bank:
    """The architectures of one level that did best so far, each once, with value = -cross-entropy in nats."""

    archs: list[Arch] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def offer(self, arch: Arch, value: float) -> None:
        """Keeps `arch` if there is room or it beats the worst, whose place it takes.

        A known architecture takes its new value, which is that of the present weights. A value that is no number is
        ignored.
        """
        if not np.isfinite(value):
            return
        if arch in self.archs:
            self.values[self.archs.index(arch)] = value
        elif len(self.archs) < CAPACITY:
            self.archs.append(arch)
            self.values.append(value)
        elif value > min(self.values):
            worst = int(np.argmin(self.values))
            self.archs[worst], self.values[worst] = arch, value

    def draw(self, rng: np.random.Generator) -> Arch:
        """One entry, by softmax of the values."""
        weights = np.exp(np.array(self.values) - max(self.values))
        return self.archs[int(rng.choice(len(weights), p=weights / weights.sum()))]


class AdjacentBand(Sampler):
    """All draws of a step share one level of MACs, which moves by -1, 0 or +1 a step (ElasticViT, Tang et al. 2023).

    Subnets of like size conflict less in their gradients. The levels are the bins of `MacsBins`, visited equally
    often in the long run; a run starts in the middle. Every level has a bank of the architectures that did best; once
    that is more than half full it serves a draw with probability q, and the level's fresh architectures, each probed
    on the minibatch, serve the others. The paper's q is 0.2 and gains 0.15 every 100 epochs, up to 0.95 in the last
    of its 600; here q grows linearly with the run's progress between the same two values.
    """

    asks_probes = True

    def __init__(self, space: NetworkSpace, seed: int) -> None:
        super().__init__(space, seed)
        self.bins = macs_bins(space)
        self.level = len(self.bins) // 2
        self.reuse = REUSE_START
        self.banks = [Bank() for _ in range(len(self.bins))]

    def begin_step(self, step: int, total_steps: int, probes: Probes) -> None:
        """Moves the level; a move beyond the first or last level stays there."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, step, _LEVEL_MOVES]))
        self.level = int(np.clip(self.level + rng.integers(-1, 2), 0, len(self.bins) - 1))
        self.reuse = REUSE_START + REUSE_GROWTH * step / total_steps

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """From the level's bank, or a fresh one, which is offered to the bank."""
        bank = self.banks[self.level]
        if rng.random() < self.reuse and len(bank.archs) > CAPACITY / 2:
            return bank.draw(rng)
        arch = self.bins.draw(self.level, rng)
        bank.offer(arch, -probes.batch(arch))
        return arch

    def matched_min(self, rng: np.random.Generator) -> Arch:
        """The cheapest known architecture of the level; of the first level never dearer than the space's smallest."""
        return self.bins.cheapest(self.level)

    def state(self) -> dict[str, np.ndarray]:
        """`level` [1]; of all banks' entries in order `bank_levels` [n], `bank_genes` [n, genes], `bank_values` [n]."""
        archs = [arch for bank in self.banks for arch in bank.archs]
        genes = np.array([self.space.encode(arch) for arch in archs], dtype=np.int64)
        return {
            "level": np.array([self.level], dtype=np.int64),
            "bank_levels": np.repeat(np.arange(len(self.banks)), [len(bank.archs) for bank in self.banks]),
            "bank_genes": genes.reshape(len(archs), len(self.space.genes)),
            "bank_values": np.array([value for bank in self.banks for value in bank.values]),
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores level and banks."""
        self.level = int(state["level"][0])
        self.banks = [Bank() for _ in range(len(self.bins))]
        for level, genes, value in zip(state["bank_levels"], state["bank_genes"], state["bank_values"], strict=True):
            self.banks[level].archs.append(self.space.decode(genes.tolist()))
            self.banks[level].values.append(float(value))
