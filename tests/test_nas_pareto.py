"""Constrained domination against a brute-force oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_cases import choice_space

from nas import pareto
from nas.trial import Trial

ARCH = choice_space().smallest()
OBJECTIVES = {"top1": "maximize", "macs": "minimize"}

small = st.integers(0, 4).map(float)  # few values, so that ties are common
trials_ = st.lists(st.tuples(small, small, st.sampled_from([-1.0, 0.0, 0.5, 1.0]), st.booleans()), max_size=25)


def make(rows: list[tuple[float, float, float, bool]]) -> list[Trial]:
    return [
        Trial(i, ARCH, "failed" if failed else "complete", {"top1": a, "macs": b}, {"x": c}, "test", 0.0)
        for i, (a, b, c, failed) in enumerate(rows)
    ]


def dominates(a: Trial, b: Trial) -> bool:
    if a.violation != b.violation:
        return a.violation < b.violation
    if a.violation:
        return False
    gains = (a.metrics["top1"] - b.metrics["top1"], b.metrics["macs"] - a.metrics["macs"])
    return min(gains) >= 0 and max(gains) > 0


@given(trials_)
def test_front_is_what_nothing_feasible_dominates(rows: list[tuple[float, float, float, bool]]) -> None:
    trials = make(rows)
    feasible = [t for t in trials if t.state == "complete" and all(c <= 0 for c in t.constraints.values())]
    expected = [t for t in feasible if not any(dominates(other, t) for other in feasible)]
    assert pareto.front(trials, OBJECTIVES) == expected


@given(trials_)
def test_ranks_peel_front_after_front(rows: list[tuple[float, float, float, bool]]) -> None:
    trials = make(rows)
    ranks = pareto.ranks(pareto.points(trials, OBJECTIVES), np.array([t.violation for t in trials]))
    left, rank = list(range(len(trials))), 0
    while left:
        front = [i for i in left if not any(dominates(trials[j], trials[i]) for j in left)]
        assert [i for i in left if ranks[i] == rank] == front
        left = [i for i in left if i not in front]
        rank += 1


@given(trials_)
def test_best_is_first_by_the_first_objective(rows: list[tuple[float, float, float, bool]]) -> None:
    trials = make(rows)
    best = pareto.best(trials, OBJECTIVES)
    feasible = [t for t in trials if t.feasible]
    if not feasible:
        assert best is None
        return
    assert best in pareto.front(trials, OBJECTIVES)
    assert best.metrics["top1"] == max(t.metrics["top1"] for t in feasible)


@settings(max_examples=50)
@given(st.lists(st.tuples(small, small), max_size=12))
def test_hypervolume_counts_the_dominated_cells(rows: list[tuple[float, float]]) -> None:
    """With whole numbers the volume is the number of unit cells that a trial dominates."""
    trials = make([(a, b, 0.0, False) for a, b in rows])
    cells = {(x, y) for a, b in rows for x in range(int(a)) for y in range(int(b), 4)}
    assert pareto.hypervolume(trials, OBJECTIVES, {"top1": 0, "macs": 4}) == pytest.approx(len(cells))


def test_crowding_of_a_known_front() -> None:
    values = np.array([[0.0, 4.0], [1.0, 2.0], [3.0, 1.0], [4.0, 0.0], [9.0, 9.0]])
    distance = pareto.crowding(values, np.array([0, 0, 0, 0, 1]))
    assert distance.tolist() == [np.inf, 3 / 4 + 3 / 4, 3 / 4 + 2 / 4, np.inf, np.inf]


def test_crowding_without_spread_is_finite_or_infinite_but_never_nan() -> None:
    assert not np.isnan(pareto.crowding(np.ones((5, 2)), np.zeros(5))).any()


def test_nothing_has_no_front() -> None:
    assert pareto.front([], OBJECTIVES) == []
    assert pareto.best([], OBJECTIVES) is None
    assert pareto.hypervolume([], OBJECTIVES, {"top1": 0, "macs": 4}) == 0
