"""Constrained domination: which trials are better than which, with several objectives and limits.

A feasible trial dominates an infeasible one; of two infeasible ones the smaller violation dominates; two feasible
ones compare by Pareto domination (Deb et al. 2002, NSGA-II, section VI).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from nas.trial import Trial


def points(trials: Sequence[Trial], objectives: Mapping[str, str]) -> np.ndarray:
    """Objective values, all to be minimised: float64 [trials, objectives]. Every trial must be complete."""
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in objectives.values()]
    rows = [[sign * trial.metrics[name] for sign, name in zip(signs, objectives)] for trial in trials]
    return np.array(rows, dtype=float).reshape(len(trials), len(objectives))


def ranks(values: np.ndarray, violations: np.ndarray) -> np.ndarray:
    """Fronts under constrained domination, int [n]: 0 is dominated by none, 1 by members of front 0 alone, …

    values: to be minimised [n, objectives]. violations: 0 where feasible [n].
    """
    result = np.zeros(len(values), dtype=int)
    feasible = violations <= 0
    if feasible.any():
        result[feasible] = moocore.pareto_rank(values[feasible])
    if not feasible.all():
        first = result[feasible].max() + 1 if feasible.any() else 0
        result[~feasible] = first + np.unique(violations[~feasible], return_inverse=True)[1]
    return result


def crowding(values: np.ndarray, fronts: np.ndarray) -> np.ndarray:
    """Crowding distance within each front, float64 [n]; infinite at the ends of a front (Deb et al. 2002, III-B)."""
    distance = np.zeros(len(values))
    if not len(values):
        return distance
    starts = np.flatnonzero(np.diff(np.sort(fronts))) + 1
    first, last = np.append(0, starts), np.append(starts, len(values)) - 1
    sizes = last - first + 1
    for column in values.T:
        order = np.lexsort((column, fronts))  # front after front, each by value
        ordered = column[order]
        spans = np.repeat(ordered[last] - ordered[first], sizes)
        inner = spans > 0
        inner[first] = inner[last] = False
        i = np.flatnonzero(inner)
        distance[order[i]] += (ordered[i + 1] - ordered[i - 1]) / spans[i]
        distance[order[first]] = distance[order[last]] = np.inf
    return distance


def front(trials: Sequence[Trial], objectives: Mapping[str, str]) -> list[Trial]:
    """The feasible trials that no feasible trial dominates, in order of number."""
    feasible = [trial for trial in trials if trial.feasible]
    if not feasible:
        return []
    kept = moocore.is_nondominated(points(feasible, objectives), keep_weakly=True)
    return [trial for trial, keep in zip(feasible, kept) if keep]


def best(trials: Sequence[Trial], objectives: Mapping[str, str]) -> Trial | None:
    """The feasible trial that is best by the first objective, the others breaking ties; None when none is feasible."""
    feasible = [trial for trial in trials if trial.feasible]
    if not feasible:
        return None
    return min(zip(points(feasible, objectives).tolist(), feasible), key=lambda pair: pair[0])[1]


def hypervolume(trials: Sequence[Trial], objectives: Mapping[str, str], reference: Mapping[str, float]) -> float:
    """Volume that the feasible trials dominate, up to the `reference` value of each objective."""
    return float(hypervolumes(trials, objectives, reference, [len(trials)])[0])


def hypervolumes(
    trials: Sequence[Trial], objectives: Mapping[str, str], reference: Mapping[str, float], at: Sequence[int]
) -> np.ndarray:
    """`hypervolume` of the first n trials for each n of `at`, which must rise: float64 [len(at)].

    Only the front is carried from one n to the next, so the cost does not grow with the number of trials behind it.
    """
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in objectives.values()]
    corner = [sign * reference[name] for sign, name in zip(signs, objectives)]
    volumes, kept, done = np.zeros(len(at)), np.zeros((0, len(corner))), 0
    for i, n in enumerate(at):
        new = points([trial for trial in trials[done:n] if trial.feasible], objectives)
        if len(new):
            kept = moocore.filter_dominated(np.concatenate([kept, new]))
        volumes[i], done = moocore.hypervolume(kept, ref=corner), n
    return volumes
