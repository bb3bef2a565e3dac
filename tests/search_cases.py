"""Spaces, problems and pools that several test files search with."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from nas.problem import Problem, batch_cost
from nas.strategies import STRATEGIES
from nas.strategies.base import Strategy
from nas.trial import Trial
from search_spaces import cost as network_cost
from search_spaces.arch import ArchLike
from search_spaces.catalog import SPACES
from search_spaces.space import ChoiceSpace
from workers.evaluator import CallableEvaluator, EvaluatorSpec
from workers.pool import Result, Task, run_task

SLOW = ("gp",)  # strategies whose every proposal takes about half a second
FITTING = (*SLOW, "predictor", "tpe")  # those that fit a model, which takes most of the time of the tests


def length(name: str, n: int) -> int:
    """`n` trials, or as few as show a strategy's model at work: its first ten are random, of the predictor sixteen."""
    return min(n, 14 if name in SLOW else 40) if name in FITTING else n


def choice_space(genes: int = 6, choices: int = 4) -> ChoiceSpace:
    return ChoiceSpace({f"g{i}": tuple(range(choices)) for i in range(genes)})


def size_cost(arch: Mapping[str, Any]) -> dict[str, float]:
    return {"macs": float(sum((i + 1) * value for i, value in enumerate(arch.values())))}


def noise(key: str) -> float:
    """A number in [0, 1) that looks random and is the same everywhere."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def score(arch: ArchLike) -> dict[str, float]:
    """A noisy objective that any space has: the more of everything, the better."""
    numbers = [v for values in arch.to_dict().values() for v in (values if isinstance(values, list) else [values])]
    return {"top1": sum(numbers) / 1000 + 0.1 * noise(arch.key), "error_rate": noise(arch.key)}


def flaky_score(arch: ArchLike) -> dict[str, float]:
    """Fails for a fifth of the architectures."""
    if noise(arch.key) < 0.2:
        raise RuntimeError("no luck")
    return score(arch)


def choice_problem(limit: float | None = None, genes: int = 6, choices: int = 4) -> Problem:
    limits = {} if limit is None else {"macs": limit}
    objectives = {"top1": "maximize", "macs": "minimize"}
    return Problem(choice_space(genes, choices), objectives, limits, batch_cost(size_cost))


def network_problem(name: str, limit: float | None = None) -> Problem:
    space = SPACES[name]()
    limits = {} if limit is None else {"macs": limit}
    return Problem(space, {"top1": "maximize"}, limits, functools.partial(network_cost.costs, space))


def complete_trial(problem: Problem, number: int, arch: ArchLike, metrics: Mapping[str, float]) -> Trial:
    known = {**metrics, **problem.costs(arch)}
    return Trial(number, arch, "complete", known, problem.constraints(known), "test", 0.0)


def failed_trial(problem: Problem, number: int, arch: ArchLike) -> Trial:
    costs = problem.costs(arch)
    return Trial(number, arch, "failed", costs, problem.constraints(costs), "test", 0.0, "RuntimeError: no luck")


def drive(
    strategy: Strategy, n_trials: int, evaluate: Callable[[ArchLike], Mapping[str, float]] = score
) -> list[Trial]:
    """Asks and tells one by one, without loop, pool or store; ends early when the space is exhausted."""
    trials: list[Trial] = []
    taken: set[str] = set()
    for number in range(n_trials):
        arch = strategy.ask(number, taken)
        if arch is None:
            break
        assert arch.key not in taken
        taken.add(arch.key)
        try:
            trial = complete_trial(strategy.problem, number, arch, evaluate(arch))
        except RuntimeError:
            trial = failed_trial(strategy.problem, number, arch)
        strategy.tell(trial)
        trials.append(trial)
    return trials


def even_score(arch: ArchLike) -> dict[str, float]:
    """The score with hardly any noise."""
    numbers = [v for values in arch.to_dict().values() for v in (values if isinstance(values, list) else [values])]
    return {"top1": sum(numbers) / 100 + 0.01 * noise(arch.key)}


def make_strategy(name: str, problem: Problem, seed: int = 0) -> Strategy:
    return STRATEGIES[name](problem, seed)


def history(trials: Sequence[Trial]) -> list[tuple[int, str, str, dict[str, float]]]:
    """What must not depend on who evaluated and when."""
    return [(t.number, t.arch.key, t.state, dict(t.metrics)) for t in trials]


def spec_of(function: Callable[[Any], Any]) -> EvaluatorSpec:
    return EvaluatorSpec(functools.partial(CallableEvaluator, function))


class ShufflingPool:
    """`size` workers that finish in an order drawn from a seed."""

    def __init__(self, spec: EvaluatorSpec, size: int, seed: int = 0) -> None:
        self.size, self._rng = size, np.random.default_rng(seed)
        self._evaluator = spec.build()
        self._tasks: list[Task] = []

    def submit(self, number: int, arch: ArchLike) -> None:
        self._tasks.append(Task(number, arch))

    def wait(self, timeout: float | None = None) -> list[Result]:
        results = []
        for _ in range(int(self._rng.integers(1, self.size + 1))):
            if self._tasks:
                task = self._tasks.pop(int(self._rng.integers(min(self.size, len(self._tasks)))))
                results.append(run_task(self._evaluator, task, "shuffled"))
        return results

    def close(self) -> None:
        self._tasks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
