"""Search problems of known structure: 12 genes of 4 choices, 1.7·10^7 architectures, normally distributed worths.

`additive`: a sum over genes. `noisy`: the same, seen with noise of two deviations of a gene, the same at every look.
`interacting`: three tenths of that sum, and a sum over pairs of neighbours, which form a ring.
"""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.arch import ArchLike
from search_spaces.space import ChoiceSpace

GENES, CHOICES = 12, 4
SPACE = ChoiceSpace({f"gene{i}": tuple(range(CHOICES)) for i in range(GENES)}, "synthetic")


def noise(arch: ArchLike, deviation: float) -> float:
    """A normal error that is the same whenever this architecture is looked at."""
    uniform = (int.from_bytes(hashlib.sha256(arch.key.encode()).digest()[:8]) + 0.5) / 2**64
    return statistics.NormalDist(0, deviation).inv_cdf(uniform)


@dataclass(frozen=True)
class Worth:
    """What an architecture is worth: alone[gene, choice], pairs[gene, choice, the next gene's choice], noise seen."""

    alone: np.ndarray
    pairs: np.ndarray
    noise: float = 0.0

    def true(self, arch: Any) -> float:
        genes = np.array(list(arch.values()))
        where = np.arange(GENES)
        return float(self.alone[where, genes].sum() + self.pairs[where, genes, np.roll(genes, -1)].sum())

    def seen(self, arch: Any) -> float:
        return self.true(arch) + (noise(arch, self.noise) if self.noise else 0.0)

    def best(self) -> float:
        """The greatest true worth, by dynamic programming along the ring from each choice of the first gene."""
        steps = self.alone[:, :, None] + self.pairs
        greatest = []
        for first in range(CHOICES):
            reached = np.where(np.arange(CHOICES) == first, 0.0, -np.inf)
            for step in steps:
                reached = (reached[:, None] + step).max(axis=0)
            greatest.append(reached[first])
        return float(max(greatest))


def problems() -> dict[str, Worth]:
    rng = np.random.default_rng(5)
    alone, pairs = rng.normal(size=(GENES, CHOICES)), rng.normal(size=(GENES, CHOICES, CHOICES))
    return {
        "additive": Worth(alone, 0 * pairs),
        "noisy": Worth(alone, 0 * pairs, 2.0),
        "interacting": Worth(0.3 * alone, pairs),
    }
