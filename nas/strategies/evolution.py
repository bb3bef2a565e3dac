"""Asynchronous constrained multi-objective evolution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nas import pareto
from nas.problem import Problem
from nas.strategies.base import Strategy
from nas.trial import Trial
from search_spaces.arch import ArchLike


class EvolutionStrategy(Strategy):
    """A steady-state NSGA-II (Deb et al. 2002; Durillo et al. 2009) with the space's own genetic operators.

    After `warmup` random trials every proposal is a child of the population: the best `population` trials by
    constrained domination, then by crowding distance. Parents win a tournament of two; a child is a mutant, in half
    of the cases of a crossover. The population is renewed trial by trial, so no worker ever waits for a generation.
    """

    def __init__(self, problem: Problem, seed: int, warmup: int = 20, population: int = 40) -> None:
        super().__init__(problem, seed)
        self.warmup, self.population = warmup, population
        self._members: list[Trial] = []  # best first
        self._fronts: list[int] = []  # the front of each: 0 is dominated by none
        self._values = np.empty((0, len(problem.objectives)))  # of the members, to be minimised
        self._violations = np.empty(0)

    def tell(self, trial: Trial) -> None:
        """Lets a completed trial into the population, at the cost of the worst member when it is full."""
        if trial.state != "complete":
            return
        members = [*self._members, trial]
        values = np.concatenate((self._values, pareto.points([trial], self.problem.objectives)))
        violations = np.append(self._violations, trial.violation)
        fronts = pareto.ranks(values, violations)
        best = np.lexsort((-pareto.crowding(values, fronts), fronts))[: self.population]
        self._members, self._fronts = [members[i] for i in best], fronts[best].tolist()
        self._values, self._violations = values[best], violations[best]

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """Children of the population, or samples during the warm-up."""
        space = self.problem.space
        while True:
            if number < self.warmup or not self._members:
                yield space.sample(rng)
                continue
            child = self._parent(rng)
            if rng.random() < 0.5:
                child = space.crossover(child, self._parent(rng), rng)
            yield space.mutate(child, rng)

    def _parent(self, rng: np.random.Generator) -> ArchLike:
        return self._members[rng.integers(len(self._members), size=2).min()].arch
