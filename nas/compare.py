"""Strategies side by side at equal numbers of evaluations, over seeds. Works on trials wherever they come from.

Failed and infeasible trials count as evaluations. A study that has found nothing feasible yet counts as worse than any
that has. Over the seeds, the median and the quartiles are reported, which describe the seeds there are; with one seed
there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas import pareto
from nas.trial import Trial

INTERVAL = "quartiles"  # what `Spread.low` and `Spread.high` are
_CURVE = 200  # points of a curve, the denser the fewer evaluations: at most that many, and the checkpoints
_MARGIN = 0.1  # of the range of each objective, from the worst value to the reference point


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over the seeds, float64 [evaluations]; NaN where they rest on studies with nothing feasible.

    low, high: the lower and the upper quartile; None with one seed.
    """

    median: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None


@dataclass(frozen=True)
class Curves:
    """One group: what each of its studies had after so many evaluations, float64 [studies, evaluations].

    best: the best feasible value of the first objective, NaN before there is one. hypervolume: as a share of the box
    between the comparison's `ideal` and `reference`, 0 to 1; None for a single objective.
    """

    best: np.ndarray
    hypervolume: np.ndarray | None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    evaluations: where the curves have their points, int [evaluations]. checkpoints: those of them that a table shows.
    ideal, reference: the best value of each objective that any study found within the evaluations compared, and the
    worst one moved away by a tenth of the range: the corners of the box that hypervolumes are measured in.
    groups: by label.
    """

    objectives: Mapping[str, str]
    evaluations: np.ndarray
    checkpoints: Sequence[int]
    ideal: Mapping[str, float]
    reference: Mapping[str, float]
    groups: Mapping[str, Curves]

    @property
    def first(self) -> str:
        """The objective that `best` is about."""
        return next(iter(self.objectives))

    @property
    def measures(self) -> tuple[str, ...]:
        """Of "best" and "hypervolume", which there are."""
        return ("best", "hypervolume") if len(self.reference) > 1 else ("best",)

    def spread(self, label: str, measure: str) -> Spread:
        """Over the seeds of a group, of its "best" or its "hypervolume"."""
        values: np.ndarray = getattr(self.groups[label], measure)
        upwards = measure == "hypervolume" or self.objectives[self.first] == "maximize"
        sign = -1.0 if upwards else 1.0
        ordered = np.sort(np.where(np.isnan(values), np.inf, sign * values), axis=0)  # the best study first
        median, better, worse = (sign * _quantile(ordered, q) for q in (0.5, 0.25, 0.75))
        median, better, worse = (np.where(np.isinf(v), np.nan, v) for v in (median, better, worse))
        if len(values) == 1:
            return Spread(median, None, None)
        return Spread(median, worse, better) if upwards else Spread(median, better, worse)


def checkpoints(length: int) -> list[int]:
    """10, 20, 50, 100, … up to `length`, which is the last: `checkpoints(120)` → `[10, 20, 50, 100, 120]`."""
    series = [step * 10**power for power in range(1, len(str(length)) + 1) for step in (1, 2, 5)]
    return [*(n for n in series if n < length), length]


def compare(groups: Mapping[str, Sequence[Sequence[Trial]]], objectives: Mapping[str, str]) -> Comparison:
    """Compares groups of studies, of each of which the trials are given, up to the length of the shortest one.

    groups: by label; the studies of one group are the seeds. objectives: of all of them, the most important first.
    Raises ValueError when there is no study, or one without trials.
    """
    lengths = {label: [len(trials) for trials in studies] for label, studies in groups.items()}
    shortest = min((n for label in lengths for n in lengths[label]), default=0)
    if shortest == 0:
        empty = [label for label, found in lengths.items() if 0 in found] or ["all"]
        raise ValueError(f"nothing to compare: a study of group {empty[0]!r} has no trials")
    marks = checkpoints(shortest)
    at = np.unique([*np.geomspace(1, shortest, _CURVE).round().astype(int), *marks])
    ideal, reference = _corners([t for studies in groups.values() for s in studies for t in s[:shortest]], objectives)
    box = math.prod(abs(reference[name] - ideal[name]) for name in reference)
    curves = {}
    for label, studies in groups.items():
        best = np.array([_best(trials, objectives, at) for trials in studies])
        volumes = None
        if len(reference) > 1:
            volumes = np.array([pareto.hypervolumes(t, objectives, reference, at.tolist()) / box for t in studies])
        curves[label] = Curves(best, volumes)
    return Comparison(dict(objectives), at, marks, ideal, reference, curves)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison at its checkpoints as plain JSON types; what does not exist is null."""
    where = np.searchsorted(comparison.evaluations, comparison.checkpoints)
    groups: dict[str, dict[str, Any]] = {}
    for label, curves in comparison.groups.items():
        groups[label] = {"n": len(curves.best)}
        for measure in comparison.measures:
            spread = comparison.spread(label, measure)
            groups[label][measure] = {
                "median": _plain(spread.median[where]),
                "low": _plain(spread.low[where]) if spread.low is not None else None,
                "high": _plain(spread.high[where]) if spread.high is not None else None,
                "studies": [_plain(row[where]) for row in getattr(curves, measure)],
            }
    return {
        "objectives": dict(comparison.objectives),
        "evaluations": list(comparison.checkpoints),
        "interval": INTERVAL,
        "ideal": dict(comparison.ideal),
        "reference": dict(comparison.reference),
        "groups": groups,
    }


def _best(trials: Sequence[Trial], objectives: Mapping[str, str], at: np.ndarray) -> np.ndarray:
    """The best feasible value of the first objective among the first n trials, for each n of `at`; else NaN."""
    name, direction = next(iter(objectives.items()))
    sign = -1.0 if direction == "maximize" else 1.0
    values = np.array([sign * t.metrics[name] if t.feasible else np.inf for t in trials[: at[-1]]])
    best = sign * np.minimum.accumulate(values)[at - 1]
    return np.where(np.isinf(best), np.nan, best)


def _corners(trials: Sequence[Trial], objectives: Mapping[str, str]) -> tuple[dict[str, float], dict[str, float]]:
    """The ideal and the reference point of a comparison; both empty where no trial is feasible."""
    values = pareto.points([trial for trial in trials if trial.feasible], objectives)
    if not len(values):
        return {}, {}
    low, high = values.min(axis=0), values.max(axis=0)
    margin = _MARGIN * (high - low)
    margin[high + margin == high] = 1.0  # an objective in which all are equal, but for rounding
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in objectives.values()]
    ideal = {name: float(sign * v) for name, sign, v in zip(objectives, signs, low)}
    return ideal, {name: float(sign * v) for name, sign, v in zip(objectives, signs, high + margin)}


def _quantile(ordered: np.ndarray, q: float) -> np.ndarray:
    """Of each column, linear between the two nearest rows as numpy's; infinite where one that counts is."""
    place = q * (len(ordered) - 1)
    low, weight = int(place), place - int(place)
    return ordered[low] if weight == 0 else (1 - weight) * ordered[low] + weight * ordered[low + 1]


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
