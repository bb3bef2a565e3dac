"""What is searched for: a space, objectives, limits, and the costs that are known before anything is evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np

from search_spaces.arch import ArchLike
from search_spaces.feasible import BatchCost, relative_excess
from search_spaces.space import Space

DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class Problem:
    """A constrained problem of one or more objectives.

    objectives: metric name to "maximize" or "minimize"; the first one decides what is best.
    limits: metric name to upper limit. Where `cost` knows the metric, nothing above the limit is ever evaluated;
        otherwise an evaluated architecture above it is an infeasible trial.
    cost: metrics that need no evaluation, for many architectures at once; None when there are none.
    evaluated: names that the evaluator is known to return, so that a misspelt metric is refused at once.
    Raises ValueError naming what is wrong and what is valid.
    """

    space: Space[Any]
    objectives: Mapping[str, str] = field(default_factory=lambda: {"top1": "maximize"})
    limits: Mapping[str, float] = field(default_factory=dict)
    cost: BatchCost | None = None
    evaluated: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.objectives, Mapping) or not self.objectives:
            raise ValueError('objectives: give at least one, for example {"top1": "maximize"}')
        for name, direction in self.objectives.items():
            if direction not in DIRECTIONS:
                raise ValueError(f"objective {name!r} is {direction!r}; valid: {', '.join(DIRECTIONS)}")
        for name, limit in self.limits.items():
            if isinstance(limit, bool) or not isinstance(limit, Real) or not math.isfinite(limit):
                raise ValueError(f"limit {name!r} is {limit!r}; it must be a finite number")
        object.__setattr__(self, "limits", {name: float(limit) for name, limit in self.limits.items()})
        if self.evaluated is not None:
            valid = (*self.evaluated, *(name for name in self.cost_metrics if name not in self.evaluated))
            for name in (*self.objectives, *self.limits):
                if name not in valid:
                    raise ValueError(f"unknown metric {name!r}; valid: {', '.join(valid)}")

    @cached_property
    def cost_metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are known without evaluation."""
        return tuple(self.cost([self.space.smallest()])) if self.cost else ()

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the metrics that an evaluation must return."""
        return tuple(name for name in {**self.objectives, **self.limits} if name not in self.cost_metrics)

    def costs(self, arch: ArchLike) -> dict[str, float]:
        """The metrics of `arch` that are known without evaluation."""
        return {name: float(values[0]) for name, values in self.cost([arch]).items()} if self.cost else {}

    def constraints(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """(value - limit) / |limit| for each limited metric in `metrics`; at most 0 is feasible."""
        return {n: relative_excess(metrics[n], limit) for n, limit in self.limits.items() if n in metrics}


def batch_cost(cost: Callable[[Any], Mapping[str, float]]) -> BatchCost:
    """A cost of one architecture, made one of many. A cost with a true attribute `batched` is returned as it is."""
    if getattr(cost, "batched", False):
        return cost  # type: ignore[return-value]

    def of_many(archs: Sequence[Any]) -> dict[str, np.ndarray]:
        rows = [_checked(cost(arch), arch) for arch in archs]
        if odd := [arch for row, arch in zip(rows, archs) if row.keys() != rows[0].keys()]:
            raise ValueError(f"the cost of {odd[0].key} has other metrics than that of {archs[0].key}")
        return {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else ())}

    return of_many


def _checked(costs: Mapping[str, float], arch: ArchLike) -> dict[str, float]:
    if not isinstance(costs, Mapping):
        raise ValueError(f"the cost of {arch.key} is {costs!r}; it must be a mapping of metric to number")
    for name, value in costs.items():
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise ValueError(f"the cost {name!r} of {arch.key} is {value!r}; it must be a finite number")
    return {name: float(value) for name, value in costs.items()}
