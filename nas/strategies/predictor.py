"""Evolution whose children are screened by a model of the study so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial

import moocore
import numpy as np

from nas.problem import Problem
from nas.ranking import kendall
from nas.strategies.coarse_to_fine import coarse_grid, kinds
from nas.strategies.evolution import EvolutionStrategy
from nas.surrogate import Ranker, to_ranks
from nas.trial import Trial
from search_spaces.arch import ArchLike
from search_spaces.limits import bounds

_POOL = 64  # children and samples that a model is asked about first
_FRESH = 16  # samples among them
_GENERATIONS = 4  # in which the most promising then breed, as the model alone says
_PARENTS, _BRED = 16, 32  # of each generation
_ENDS_FROM = 16  # a warm-up of so many trials begins with the ends of the space
_UNSCREENED = 8  # every so many trials one child goes unscreened, in case the model is wrong
_GROWTH = 0.05  # the model is fitted anew whenever the trials have grown by this share
_CORNER = 1.1  # the reference point of the hypervolume, in ranks
_FOLDS, _LEAST_REPORTED = 5, 20  # of the cross-validation; trials that it takes
_MOST = 2000  # trials that a model learns from: the latest


class PredictorStrategy(EvolutionStrategy):
    """Evolution on a model of the study so far (as Once-for-All and LINAS search theirs), of which one is evaluated.

    A `Ranker` for every evaluated objective and limit learns from the completed trials. A pool of children and samples
    breeds for some generations without a trial, and the one is picked that is best by the objective, or that adds most
    predicted hypervolume where there are several; costs that are known beforehand enter as they are. Every proposal
    believes another draw of what the model holds possible (Thompson 1933): who believes the mean alone asks again and
    again where it is wrong. Which trials a model has seen follows from their number alone.
    """

    def __init__(self, problem: Problem, seed: int, warmup: int = 16, population: int = 20) -> None:
        super().__init__(problem, seed, min(warmup, problem.space.size() // 4), population)
        self._trials: list[Trial] = []
        self._fitted: tuple[int, dict[str, Ranker]] = (0, {})

    def tell(self, trial: Trial) -> None:
        """Adds a completed trial to what the model learns from and to the population."""
        super().tell(trial)
        if trial.state == "complete":
            self._trials.append(trial)

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """Pools of children, each from the most promising on; or children as they come."""
        if number < self.warmup:
            yield from self._anchors(number)
        children = super().candidates(number, rng)
        if number < self.warmup or len(self._trials) < 2 or number % _UNSCREENED == 0:
            yield from children
        rankers = {name: ranker.drawn(rng) for name, ranker in self._rankers().items()}
        while True:
            pool = _Pool(partial(self._badness, rankers, rng.dirichlet(np.ones(len(self.problem.objectives)))))
            fresh = [self.problem.space.sample(rng) for _ in range(_FRESH)]
            first = [*itertools.islice(children, _POOL - _FRESH), *fresh]
            pool.add(self._feasible(first) or first)
            for _ in range(_GENERATIONS):
                pool.add(self._feasible(list(self._bred(pool.archs[:_PARENTS], rng))))
            yield from pool.archs

    def _anchors(self, number: int) -> list[ArchLike]:
        """The ends of every cost, between which all fronts lie; then every second one a point of the coarse grid.

        Where the warm-up is short because the space is small, the ends are not worth their trials.
        """
        if number < 2:
            return [self._ends()[number]] if self.warmup >= _ENDS_FROM else []
        return self._grid[number // 2 - 1 : number // 2] if number % 2 == 0 else []

    def _ends(self) -> tuple[ArchLike, ArchLike]:
        return self.problem.space.smallest(), self.problem.space.largest()

    @cached_property
    def _grid(self) -> list[ArchLike]:
        """Its points within the limits but the ends, where there is more than one kind of gene to be set alike."""
        space, ends = self.problem.space, self._ends()
        free = {kind for kind, gene in zip(kinds(space), space.genes) if len(gene.choices) > 1}
        points = coarse_grid(space, self.seed) if len(free) > 1 else []
        return self._feasible([arch for arch in points if arch not in ends])

    def _bred(self, parents: Sequence[ArchLike], rng: np.random.Generator) -> Iterator[ArchLike]:
        """Children of architectures that look promising but have not been tried."""
        space = self.problem.space
        for a, b in rng.integers(len(parents), size=(_BRED, 2)):
            child = parents[a] if rng.random() < 0.5 else space.crossover(parents[a], parents[b], rng)
            yield space.mutate(child, rng)

    def report(self) -> dict[str, float]:
        """`kendall_METRIC`: rank correlation of predictions with results that the model has not seen, by five folds."""
        learned = self._trials[-_MOST:]
        if len(learned) < _LEAST_REPORTED:
            return {}
        features = np.array([self.problem.space.to_vector(trial.arch) for trial in learned])
        fold = np.arange(len(learned)) % _FOLDS
        found = {}
        for name in self.problem.required:
            values, predicted = np.array([trial.metrics[name] for trial in learned]), np.zeros(len(learned))
            for k in range(_FOLDS):
                ranker = Ranker.fit(features[fold != k], values[fold != k], self.seed)
                predicted[fold == k] = ranker.predict(features[fold == k])
            if math.isfinite(tau := kendall(predicted, values)):
                found[f"kendall_{name}"] = tau
        return found

    def _rankers(self) -> dict[str, Ranker]:
        n = _last_step(len(self._trials))
        if self._fitted[0] != n:
            learned = self._trials[max(0, n - _MOST) : n]
            features = np.array([self.problem.space.to_vector(trial.arch) for trial in learned])
            values = {name: np.array([trial.metrics[name] for trial in learned]) for name in self.problem.required}
            self._fitted = n, {name: Ranker.fit(features, known, self.seed) for name, known in values.items()}
        return self._fitted[1]

    def _badness(self, rankers: dict[str, Ranker], weights: np.ndarray, archs: Sequence[ArchLike]) -> np.ndarray:
        """[n, 3], the least promising greatest, the first column before the second before the third.

        The excess over limits that are predicted, less the hypervolume gained, the weighted sum of the objectives.
        """
        problem = self.problem
        features = np.array([problem.space.to_vector(arch) for arch in archs])
        ranks = {name: ranker.predict(features) for name, ranker in rankers.items()}
        known = [name for name in problem.cost_metrics if name in problem.objectives]
        costs = problem.cost(archs) if problem.cost and known else {}
        ranks |= {name: self._extended(name, costs[name]) for name in known}
        violation = np.zeros(len(archs))
        for name in (name for name in problem.limits if name in rankers):
            ends = np.array(bounds(problem.limits[name]))
            low, high = np.where(np.isfinite(ends), self._ranks(name, ends), ends)
            violation += np.maximum(0, np.maximum(low - ranks[name], ranks[name] - high))
        values = self._to_minimise(ranks)
        return np.stack([violation, -self._gain(values), values @ weights], axis=1)

    def _gain(self, values: np.ndarray) -> np.ndarray:
        """Hypervolume that each row of `values` adds to the front, in ranks; 0 with one objective."""
        front = [trial for trial in self._members if trial.feasible]
        if values.shape[1] == 1 or not front:
            return np.zeros(len(values))
        known = self._to_minimise(
            {n: self._ranks(n, np.array([t.metrics[n] for t in front])) for n in self.problem.objectives}
        )
        corner = [_CORNER] * values.shape[1]
        before = moocore.hypervolume(known, ref=corner)
        return np.array([moocore.hypervolume(np.vstack([known, row]), ref=corner) for row in values]) - before

    def _to_minimise(self, ranks: Mapping[str, np.ndarray]) -> np.ndarray:
        columns = [
            1 - ranks[name] if direction == "maximize" else ranks[name]
            for name, direction in self.problem.objectives.items()
        ]
        return np.stack(columns, axis=1)

    def _extended(self, metric: str, values: np.ndarray) -> np.ndarray:
        """Ranks that go on below 0 and above 1, or nothing would be gained by an end of the front that is new."""
        known = self._known(metric)
        low, high = known.min(), known.max()
        beyond: np.ndarray = (values - np.clip(values, low, high)) / (high - low or 1.0)
        return to_ranks(values, known) + beyond

    def _ranks(self, metric: str, values: np.ndarray) -> np.ndarray:
        return to_ranks(values, self._known(metric))

    def _known(self, metric: str) -> np.ndarray:
        return np.array([trial.metrics[metric] for trial in self._trials])


class _Pool:
    """Different architectures, the least bad first."""

    def __init__(self, badness: Callable[[Sequence[ArchLike]], np.ndarray]) -> None:
        self.archs: list[ArchLike] = []
        self._badness = badness
        self._keys = set[str]()
        self._found: list[np.ndarray] = []

    def add(self, archs: Sequence[ArchLike]) -> None:
        new = list({arch.key: arch for arch in archs if arch.key not in self._keys}.values())
        if not new:
            return
        self._keys.update(arch.key for arch in new)
        found, archs = [*self._found, *self._badness(new)], [*self.archs, *new]
        order = np.lexsort(np.array(found).T[::-1])
        self.archs, self._found = [archs[i] for i in order], [found[i] for i in order]


def _last_step(n: int) -> int:
    """The last count, not above `n`, at which the model is fitted: 2, 7, 12, … 102, then in steps of 5 %."""
    step = 2
    while (after := step + max(5, int(step * _GROWTH))) <= n:
        step = after
    return step
