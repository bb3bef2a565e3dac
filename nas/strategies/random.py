"""Random search: the baseline that every other strategy has to beat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nas.strategies.base import Strategy
from search_spaces.arch import ArchLike


class RandomStrategy(Strategy):
    """Samples of the space, independent of all results (Li and Talwalkar 2019)."""

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """Independent samples."""
        while True:
            yield self.problem.space.sample(rng)
