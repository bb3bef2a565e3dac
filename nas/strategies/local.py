"""Local search: the neighbours of the best, one changed gene at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nas.problem import Problem
from nas.strategies.evolution import EvolutionStrategy
from nas.trial import Trial
from search_spaces.arch import ArchLike


class LocalSearchStrategy(EvolutionStrategy):
    """Hill climbing from the best of a few samples (White et al. 2021), never twice at the same neighbour.

    With several objectives it climbs from the whole front. When every neighbour of the best has been tried it goes on
    from the next best, so it leaves a local optimum by the lowest pass it knows.
    """

    def __init__(self, problem: Problem, seed: int, warmup: int = 10, population: int = 40) -> None:
        super().__init__(problem, seed, warmup, population)
        self._tried: set[str] = set()

    def tell(self, trial: Trial) -> None:
        """Notes what has been tried, and climbs where it was good."""
        super().tell(trial)
        self._tried.add(trial.arch.key)

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """Untried neighbours: of the best members first, in random order where they are equally good."""
        if number >= self.warmup:
            order = np.lexsort((rng.random(len(self._members)), np.array(self._fronts)))
            for i in order:
                yield from self._neighbours(self._members[i].arch, rng)
        while True:
            yield self.problem.space.sample(rng)

    def _neighbours(self, arch: ArchLike, rng: np.random.Generator) -> list[ArchLike]:
        space = self.problem.space
        genes = space.encode(arch)
        archs = [
            space.decode([*genes[:i], choice, *genes[i + 1 :]])
            for i, gene in enumerate(space.genes)
            for choice in range(len(gene.choices))
        ]
        untried = self._feasible([arch for arch in archs if arch.key not in self._tried])
        return [untried[i] for i in rng.permutation(len(untried))]
