"""Published tables as search problems: nothing is trained, an evaluation is a look-up, or a model's answer."""

from __future__ import annotations

import csv
import functools
import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import search_ofa
import search_synthetic

from nas.problem import Problem, batch_cost
from search_spaces.catalog import SPACES
from search_spaces.space import ChoiceSpace

OPS = {"0": "none", "1": "skip", "2": "conv1x1", "3": "conv3x3", "4": "pool3x3"}
OP_MACS = {"none": 0.0, "skip": 0.0, "conv1x1": 1.0, "conv3x3": 9.0, "pool3x3": 0.0}  # per pixel and pair of channels
CELL_LIMIT = 20.0  # of 54: the best cells are beyond it
BUDGETS = (50, 100, 250, 500)
OFA_LIMITS = {"ofa-limited": 250e6, "ofa-tight": 170e6}  # multiply-adds, of 116M to 566M
DATA_SETS = {"cells": "c10", "cifar100-cells": "c100", "imagenet16-cells": "in16"}  # the latter two chose nothing


@dataclass(frozen=True)
class Task:
    """A problem, and what a search of it is judged by.

    evaluate: what the search sees. judge: what an architecture is really worth, in percent.
    worst: of two objectives, values from which hypervolumes are counted. find_best: where there are too many to judge.
    """

    name: str
    problem: Problem
    evaluate: Callable[[Any], Mapping[str, float]]
    judge: Callable[[Any], float]
    budgets: tuple[int, ...]
    worst: Mapping[str, float] = field(default_factory=lambda: {"top1": 0.0, "macs": 60.0})
    find_best: Callable[[Problem], float] | None = None

    @functools.cached_property
    def best(self) -> float:
        """The greatest worth within the limits, or the greatest known."""
        if self.find_best:
            return self.find_best(self.problem)
        limits, archs = self.problem.limits, list(self.problem.space.enumerate())
        return max(
            self.judge(arch) for arch in archs if all(self.problem.costs(arch)[n] <= v for n, v in limits.items())
        )


def load_tasks(folder: Path) -> dict[str, Task]:
    """Every task that the tables in `folder` allow."""
    with gzip.open(folder / "nas_bench_201.csv.gz", "rt") as text:
        cells = {tuple(OPS[op] for op in row["ops"]): row for row in csv.DictReader(text)}
    tasks = [task for name, column in DATA_SETS.items() for task in _cells(cells, name, column)]
    return {task.name: task for task in [*tasks, *_ofa(folder), _pooling(folder), *_synthetic()]}


def _cells(rows: Mapping[tuple[str, ...], Mapping[str, str]], name: str, column: str) -> list[Task]:
    """Searched by the validation accuracy after 12 epochs, judged by the test accuracy after 200."""
    space = ChoiceSpace({f"edge{i}": tuple(OPS.values()) for i in range(6)}, "nas_bench_201")
    cost = batch_cost(lambda arch: {"macs": sum(OP_MACS[op] for op in arch.values())})

    def evaluate(arch: Any) -> dict[str, float]:
        return {"top1": float(rows[tuple(arch.values())][f"{column}_val_e12"]) / 100}

    def judge(arch: Any) -> float:
        return float(rows[tuple(arch.values())][f"{column}_test_e200"])

    one, two = {"top1": "maximize"}, {"top1": "maximize", "macs": "minimize"}
    return [
        Task(name, Problem(space, one, {}, cost), evaluate, judge, BUDGETS),
        Task(f"{name}-limited", Problem(space, one, {"macs": CELL_LIMIT}, cost), evaluate, judge, BUDGETS),
        Task(f"{name}-two", Problem(space, two, {}, cost), evaluate, judge, BUDGETS),
    ]


def _ofa(folder: Path) -> list[Task]:
    """Under a limit of half the most multiply-adds, under a tight one, and with them as a second objective."""

    def evaluate(arch: Any) -> dict[str, float]:
        return {"top1": search_ofa.accuracy(folder).seen(arch) / 100}

    def judge(arch: Any) -> float:
        return float(search_ofa.accuracy(folder).true([arch])[0])

    def best(problem: Problem) -> float:
        return search_ofa.best_known(problem, search_ofa.accuracy(folder))

    space, known = search_ofa.SPACE, search_ofa.COST
    limited = [
        Task(
            name, Problem(space, {"top1": "maximize"}, {"macs": limit}, known), evaluate, judge, BUDGETS, find_best=best
        )
        for name, limit in OFA_LIMITS.items()
    ]
    two = Problem(space, {"top1": "maximize", "macs": "minimize"}, {}, known)
    return [*limited, Task("ofa-two", two, evaluate, judge, BUDGETS, {"top1": 0.7, "macs": 600e6})]


def _pooling(folder: Path) -> Task:
    space = SPACES["resnet20_pooling"]()
    with open(folder / "pooling_resnet20_cifar10.csv") as text:
        rows = list(csv.DictReader(text))
    worth = {}
    for row in rows:
        pools = [i - 1 for i, pool in enumerate(row["pool_before_layer"].split(",")) if int(pool)]
        worth[space.with_pools(space.largest(), tuple(pools)).key] = float(row["baseline_avg"])
    assert len(worth) == len(rows) == space.size()
    return Task(
        "pooling",
        Problem(space, {"top1": "maximize"}),
        lambda arch: {"top1": worth[arch.key] / 100},
        lambda arch: worth[arch.key],
        (6, 12, 18, 24),
    )


def _synthetic() -> list[Task]:
    """Judged by the true worth; `top1` and regrets are in its unit."""
    problem = Problem(search_synthetic.SPACE, {"top1": "maximize"})
    return [
        Task(
            name, problem, lambda arch, worth=worth: {"top1": worth.seen(arch)}, worth.true, BUDGETS[:3],
            find_best=lambda problem, worth=worth: worth.best(),
        )
        for name, worth in search_synthetic.problems().items()
    ]  # fmt: skip


def regrets(task: Task, archs: list[Any], seen: np.ndarray) -> list[float]:
    """At each budget: the best worth there is, less that of what looks best so far; in points.

    seen: -inf for what is beyond a limit. Where nothing else was seen, the regret is infinite.
    """
    picks = [int(seen[:n].argmax()) for n in task.budgets]
    return [task.best - task.judge(archs[i]) if np.isfinite(seen[i]) else np.inf for i in picks]
