"""Evolution whose children are screened by a model of the study so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import moocore
import numpy as np

from nas.problem import Problem
from nas.ranking import kendall
from nas.strategies.evolution import EvolutionStrategy
from nas.surrogate import Ranker, to_ranks
from nas.trial import Trial
from search_spaces.arch import ArchLike
from search_spaces.limits import bounds

_POOL = 64  # children and samples of which the model picks one
_FRESH = 16  # samples among them
_UNSCREENED = 8  # every so many trials one child goes unscreened, in case the model is wrong
_GROWTH = 0.05  # the model is fitted anew whenever the trials have grown by this share
_CORNER = 1.1  # the reference point of the hypervolume, in ranks
_FOLDS, _LEAST_REPORTED = 5, 20  # of the cross-validation; trials that it takes
_MOST = 2000  # trials that a model learns from: the latest


class PredictorStrategy(EvolutionStrategy):
    """Evolution that evaluates the most promising of many children (as Once-for-All and LINAS screen theirs).

    A `Ranker` for every evaluated objective and limit learns from the completed trials. Of each pool of children and
    samples it picks the one that is best by the objective, or that adds most predicted hypervolume where there are
    several; costs that are known beforehand enter as they are. Which trials a model has seen follows from their number
    alone.
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
        children = super().candidates(number, rng)
        if number < self.warmup or len(self._trials) < 2 or number % _UNSCREENED == 0:
            yield from children
        rankers = self._rankers()
        while True:
            pool = list(itertools.islice(children, _POOL - _FRESH))
            pool += [self.problem.space.sample(rng) for _ in range(_FRESH)]
            distinct = self._feasible(list({arch.key: arch for arch in pool}.values())) or pool
            yield from (distinct[i] for i in self._order(distinct, rankers, rng))

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

    def _order(self, archs: Sequence[ArchLike], rankers: dict[str, Ranker], rng: np.random.Generator) -> list[int]:
        """Indices, the most promising first."""
        problem = self.problem
        features = np.array([problem.space.to_vector(arch) for arch in archs])
        ranks = {name: ranker.predict(features) for name, ranker in rankers.items()}
        costs = problem.cost(archs) if problem.cost else {}
        ranks |= {name: self._ranks(name, values) for name, values in costs.items() if name in problem.objectives}
        violation = np.zeros(len(archs))
        for name in (name for name in problem.limits if name in rankers):
            ends = np.array(bounds(problem.limits[name]))
            low, high = np.where(np.isfinite(ends), self._ranks(name, ends), ends)
            violation += np.maximum(0, np.maximum(low - ranks[name], ranks[name] - high))
        values = self._to_minimise(ranks)
        weights = rng.dirichlet(np.ones(values.shape[1]))
        order: list[int] = np.lexsort((values @ weights, -self._gain(values), violation)).tolist()
        return order

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

    def _ranks(self, metric: str, values: np.ndarray) -> np.ndarray:
        return to_ranks(values, np.array([trial.metrics[metric] for trial in self._trials]))


def _last_step(n: int) -> int:
    """The last count, not above `n`, at which the model is fitted: 2, 7, 12, … 102, then in steps of 5 %."""
    step = 2
    while (after := step + max(5, int(step * _GROWTH))) <= n:
        step = after
    return step
