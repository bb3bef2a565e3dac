"""What is searched for: a space, objectives, limits, and the costs that are known before anything is evaluated."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from search_spaces.arch import ArchLike
from search_spaces.limits import BatchCost, Limit, checked_limit, relative_excess
from search_spaces.space import Space

DIRECTIONS = ("maximize", "minimize")


@dataclass(frozen=True)
class Problem:
    """A constrained problem of one or more objectives.

    objectives: metric name to "maximize" or "minimize"; the first one decides what is best.
    limits: metric name to upper limit, or to (lowest, highest), of which one may be None. Where `cost` knows the
        metric, nothing beyond the limit is ever evaluated; otherwise an evaluated architecture beyond it is an
        infeasible trial.
    cost: metrics that need no evaluation, for many architectures at once; None when there are none.
    evaluated: names that the evaluator is known to return, so that a misspelt metric is refused at once.
    Raises ValueError naming what is wrong and what is valid.
    """

    space: Space[Any]
    objectives: Mapping[str, str] = field(default_factory=lambda: {"top1": "maximize"})
    limits: Mapping[str, Limit] = field(default_factory=dict)
    cost: BatchCost | None = None
    evaluated: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.objectives, Mapping) or not self.objectives:
            example = '{"top1": "maximize"}'
            raise ValueError(f"objectives: give at least one, for example {example}, not {self.objectives!r}")
        if not isinstance(self.limits, Mapping):
            raise ValueError(f'limits must map metrics to numbers, for example {{"macs": 40e6}}, not {self.limits!r}')
        for name, direction in self.objectives.items():
            if direction not in DIRECTIONS:
                raise ValueError(f"objective {name!r} is {direction!r}; valid: {', '.join(DIRECTIONS)}")
        limits = {name: checked_limit(name, limit) for name, limit in self.limits.items()}
        object.__setattr__(self, "limits", limits)
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
        """The relative excess over each limit whose metric is in `metrics`; at most 0 is feasible."""
        return {n: float(relative_excess(metrics[n], limit)) for n, limit in self.limits.items() if n in metrics}


def are_metrics(data: object) -> bool:
    """Whether `data`, as read from JSON, maps names to finite numbers."""
    return isinstance(data, Mapping) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        for value in data.values()
    )


def batch_cost(cost: Callable[[Any], Mapping[str, float]]) -> BatchCost:
    """A cost of one architecture, made one of many; a cost with a true attribute `batched` is one already.

    Calling it raises ValueError, naming metric and architecture, when the cost is not a mapping of finite numbers, or
    has not the same metrics for all.
    """
    batched = getattr(cost, "batched", False)
    names: Iterable[str] | None = None  # as the first architecture had them

    def of_many(archs: Sequence[Any]) -> dict[str, np.ndarray]:
        nonlocal names
        if batched:
            return _checked_batch(cost(archs), archs)
        rows = [_checked(cost(arch), arch) for arch in archs]
        for row, arch in zip(rows, archs):
            names = row.keys() if names is None else names
            if odd := [*(row.keys() ^ names)]:
                has = "has" if odd[0] in row else "has no"
                raise ValueError(f"the cost of {arch.key} {has} {odd[0]!r}, unlike that of another architecture")
        return {name: np.array([row[name] for row in rows]) for name in names or ()}

    return of_many


def _checked(costs: Mapping[str, float], arch: ArchLike) -> dict[str, float]:
    if not isinstance(costs, Mapping):
        raise ValueError(f"the cost of {arch.key} is {costs!r}; it must be a mapping of metric to number")
    return {name: _finite(name, value, arch) for name, value in costs.items()}


def _checked_batch(costs: Any, archs: Sequence[ArchLike]) -> dict[str, np.ndarray]:
    if not isinstance(costs, Mapping):
        raise ValueError(f"the batched cost is {costs!r}; it must be a mapping of metric to array")
    for name, values in costs.items():
        if np.shape(values) != (len(archs),):
            raise ValueError(
                f"the batched cost {name!r} of {len(archs)} architectures has the shape {np.shape(values)}; "
                f"it must hold one number for each"
            )
        for i in np.flatnonzero(~np.isfinite(values)).tolist():
            _finite(name, values[i], archs[i])
    return dict(costs)


def _finite(name: str, value: Any, arch: ArchLike) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"the cost {name!r} of {arch.key} is {value!r}; it must be a finite number")
    return number
