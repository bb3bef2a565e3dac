"""`query_run`: the best architectures within limits among those that a run's studies evaluated; nothing is searched."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.problem import Problem
from nas.run import Run, RunError
from nas.searching import directions, is_stale, read_run_study
from nas.store import StudyError
from search_spaces import cost as network_cost
from search_spaces.arch import ArchLike
from search_spaces.feasible import InfeasibleLimitsError, preflight
from search_spaces.limits import Limit


@dataclass(frozen=True)
class Found:
    """An evaluated architecture, and the study and trial that hold it.

    metrics: `top1` is the inherited score, also of a calibrated study. excess: by limited metric, relative to the
    limit; at most 0 is within.
    """

    study: str
    number: int
    arch: ArchLike
    metrics: Mapping[str, float]
    excess: Mapping[str, float]

    @property
    def violation(self) -> float:
        """Sum of the excesses over the limits."""
        return sum(max(0.0, value) for value in self.excess.values())


@dataclass(frozen=True)
class Answer:
    """What `query_run` found.

    evaluated: different architectures that were looked at. within: those within all limits, the best first. nearest:
    where there is none, by limited metric the architecture nearest to that limit alone (the best one within it, if any
    is), and under "together" the one that exceeds all of them least. studies: the names of those that were read.
    left_out: by name, why others were not.
    """

    limits: Mapping[str, Limit]
    objectives: Sequence[str]
    evaluated: int
    within: Sequence[Found]
    nearest: Mapping[str, Found]
    studies: Sequence[str]
    left_out: Mapping[str, str]


def query_run(
    run: Run | str | Path,
    limits: Mapping[str, Limit] | None = None,
    *,
    objectives: Sequence[str] = ("top1", "macs"),
    study_name: str | None = None,
) -> Answer:
    """Reads the run's studies, also while a search writes them; of those on weights that the run no longer has, none.

    limits: as of `nas.search_run`, on any metric that a trial has. objectives: what is best, the most important first.
    study_name: read this one alone. Inherited and calibrated scores are never mixed: all are the inherited ones.
    Raises RunError when there is no study to read, ValueError for a metric that no trial has, listing those there are.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    problem = Problem(run.space, directions(objectives), limits or {})
    rows, studies, left_out = _evaluated(run, problem, [study_name] if study_name else run.study_names())
    if not studies:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise RunError(f"{run} has no study to ask; {reasons or 'make one with `nas search`'}")
    known = sorted({name for row in rows for name in row.metrics})
    for name in (*problem.limits, *problem.objectives):
        if rows and name not in known:
            raise ValueError(f"no trial has metric {name!r}; there are: {', '.join(known)}")
    signs = [(-1 if direction == "maximize" else 1, name) for name, direction in problem.objectives.items()]
    rows = sorted(
        (row for row in rows if {*problem.limits, *problem.objectives} <= row.metrics.keys()),
        key=lambda row: [sign * row.metrics[name] for sign, name in signs],
    )
    within = [row for row in rows if row.violation == 0]
    nearest = {} if within else _nearest(rows)
    return Answer(problem.limits, tuple(objectives), len(rows), within, nearest, studies, left_out)


def unreachable(run: Run | str | Path, limits: Mapping[str, Limit]) -> str | None:
    """Why no search could find an architecture within `limits`, as far as costs tell; None where one could."""
    space = (run if isinstance(run, Run) else Run.open(run)).space
    try:
        preflight(space, Problem(space, limits=limits).limits, functools.partial(network_cost.costs, space))
    except InfeasibleLimitsError as error:
        return str(error)
    return None


def _evaluated(run: Run, problem: Problem, names: Sequence[str]) -> tuple[list[Found], list[str], dict[str, str]]:
    """Every architecture once, the names of the studies that were read, and why others were not."""
    rows: dict[str, Found] = {}
    studies, left_out = list[str](), dict[str, str]()
    for name in names:
        try:
            stored = read_run_study(run, name)
        except StudyError as error:
            left_out[name] = str(error)
            continue
        if is_stale(run, stored.identity.context):
            left_out[name] = "searched on weights that the run no longer has"
            continue
        studies.append(name)
        for trial in stored.trials:
            if trial.state == "complete":
                metrics = _inherited(trial.metrics)
                found = Found(name, trial.number, trial.arch, metrics, problem.constraints(metrics))
                rows.setdefault(trial.arch.key, found)
    return list(rows.values()), studies, left_out


def _inherited(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without what a calibration made of them."""
    plain = {name: value for name, value in metrics.items() if name not in ("top1_std", "top1_inherited")}
    return plain | ({"top1": metrics["top1_inherited"]} if "top1_inherited" in metrics else {})


def _nearest(rows: Sequence[Found]) -> dict[str, Found]:
    """Of several that are equally near, as are all within a limit, the first."""
    if not rows:
        return {}
    alone = {name: min(rows, key=lambda row: max(0.0, row.excess[name])) for name in rows[0].excess}
    return alone | {"together": min(rows, key=lambda row: row.violation)}


def as_json(answer: Answer, top: int) -> dict[str, Any]:
    """The answer as plain JSON types, with the `top` best of what is within the limits."""
    return {
        "limits": dict(answer.limits),
        "objectives": list(answer.objectives),
        "studies": list(answer.studies),
        "left_out": dict(answer.left_out),
        "evaluated": answer.evaluated,
        "n_within": len(answer.within),
        "within": [_row(found) for found in answer.within[:top]],
        "nearest": {name: _row(found) for name, found in answer.nearest.items()},
    }


def _row(found: Found) -> dict[str, Any]:
    return {
        "study": found.study,
        "number": found.number,
        "key": found.arch.key,
        "metrics": dict(found.metrics),
        "arch": found.arch.to_dict(),
    }
