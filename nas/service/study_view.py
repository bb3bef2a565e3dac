"""`StudyView`: a study followed by the bytes that its journal grows by, shared by everyone who watches it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import moocore
import numpy as np
import orjson

from nas import pareto
from nas.identity import Identity
from nas.journal import is_written
from nas.problem import Problem, are_metrics
from nas.run import Run
from nas.service.tail import Tail
from nas.trial import Trial
from search_spaces import cost
from search_spaces.limits import bounds
from search_spaces.network import NetworkSpace

STATES = ("searching", "idle", "finished", "interrupted", "damaged")

_CREATE_STUDY, _DELETE_STUDY, _STUDY_ATTR, _CREATE_TRIAL = 0, 1, 2, 4  # Optuna's codes of a journal's records
_COMPLETE = 1  # Optuna's code of a trial's state
_LOOK_SECONDS = 0.3
_RECENT = 20  # trials that the present speed is taken from


@dataclass(frozen=True)
class StoredArch:
    """An architecture as a journal has it: enough to list, compare and draw points; `Run.space` makes an `Arch`."""

    key: str
    genes: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(self.genes)


class StudyView:
    """One study of a run, as far as its journal has been read; `refresh` reads on.

    trials: in order of number. completed: when each was recorded, seconds since 1970. front: the feasible trials that
    none dominates. best_so_far: the best feasible value of the first objective after each trial, or None.
    hypervolumes: after each trial, as a part of the box between `reference` and the ideal (1 for accuracy, 0 for
    costs). error: why the journal cannot be read, or None. generation: changes when the study starts over, so that
    whoever holds a part of it asks for all of it. All of this changes in `refresh` alone, which any thread may call.
    """

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.path = run.study(name)
        self._tail = Tail(self.path)
        self._lock = threading.Lock()
        self._looked, self._written = float("-inf"), False
        self._clear()

    def _clear(self) -> None:
        self.identity: Identity | None = None
        self.n_asked: int | None = None
        self.trials: list[Trial] = []
        self.completed: list[float] = []
        self.front: list[Trial] = []
        self.best: Trial | None = None
        self.best_so_far: list[float | None] = []
        self.hypervolumes: list[float] = []
        self.reference: dict[str, float] = {}
        self.error: str | None = None
        self.n_failed = self.n_infeasible = 0
        self._points = np.zeros((0, 0))

    @property
    def generation(self) -> int:
        """How often the study started over."""
        return self._tail.generation

    @property
    def searching(self) -> bool:
        """Whether a driver has the journal open for writing now; looked at no more than every `_LOOK_SECONDS`.

        For looking takes the driver's lock for a moment, in which none could start.
        """
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked, self._written = now, is_written(self.path)
        return self._written

    @property
    def state(self) -> str:
        """One of `STATES`: idle has no trials or says of no number to reach, interrupted has fewer than that."""
        if self.error:
            return "damaged"
        if self.searching:
            return "searching"
        if not self.trials or self.n_asked is None:
            return "idle"
        return "finished" if len(self.trials) >= self.n_asked else "interrupted"

    @property
    def objectives(self) -> dict[str, str]:
        """Metric to "maximize" or "minimize", the most important first; empty before the study is described."""
        return dict(self.identity.objectives) if self.identity else {}

    @property
    def limits(self) -> dict[str, Any]:
        """Metric to upper limit, or to (lowest, highest)."""
        return dict(self.identity.limits) if self.identity else {}

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that trials have, objectives first."""
        names = dict.fromkeys(self.objectives)
        for trial in self.trials[-1:] + self.front[:1]:
            names |= dict.fromkeys(trial.metrics)
        return list(names)

    @property
    def changed(self) -> datetime:
        """When the journal was last written, in UTC."""
        try:
            return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        except FileNotFoundError:
            return datetime.fromtimestamp(0, UTC)

    @property
    def trials_per_second(self) -> float | None:
        """Of the last `_RECENT` trials, by when they were recorded; None where that is not known."""
        times = self.completed[-_RECENT:]
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None

    @property
    def seconds_left(self) -> float | None:
        """Until a running search has the trials it was asked for, at its present speed; None where it does not run."""
        speed = self.trials_per_second
        if speed is None or self.n_asked is None or not self.searching:
            return None
        return max(0, self.n_asked - len(self.trials)) / speed

    def refresh(self) -> int:
        """Reads what was appended; the number of new trials. A record that cannot be read stays as `error`."""
        with self._lock:
            again, lines = self._tail.read()
            if again:
                self._clear()
            before = len(self.trials)
            if self.error is None:
                try:
                    for line in lines:
                        self._record(orjson.loads(line))
                except Exception as error:  # whatever a record that is not as it was written makes of the reading
                    self.error = f"{self.path.name} is damaged: {type(error).__name__}: {error}"
                if len(self.trials) > before:
                    self._follow(self.trials[before:])
            return len(self.trials) - before

    def trial(self, number: int) -> Trial:
        """Raises IndexError, with the valid numbers, for one that there is not."""
        if not 0 <= number < len(self.trials):
            valid = f"0 to {len(self.trials) - 1}" if self.trials else "none yet"
            raise IndexError(f"study {self.name!r} has no trial {number}; valid: {valid}")
        return self.trials[number]

    def page(self, offset: int = 0, limit: int = 100, descending: bool = False, sort: str = "number") -> list[Trial]:
        """`limit` trials from `offset` on, in the order of `sort`: "number", "seconds", "worker", "state" or a metric.

        Trials without the metric come last. Raises ValueError for an unknown name, listing the valid ones.
        """
        if sort == "number":
            ordered: Sequence[Trial] = self.trials[::-1] if descending else self.trials
        else:
            ordered = _sorted(self.trials, sort, descending, self.metrics)
        return list(ordered[offset : offset + limit])

    def neighbours(self, trial: Trial) -> dict[str, Trial | None]:
        """The trials of the front next to this one, by the last objective: `lower` and `higher`."""
        name = list(self.objectives)[-1]
        if name not in trial.metrics:
            return {"lower": None, "higher": None}
        value = trial.metrics[name]
        others = [other for other in self.front if other.number != trial.number]
        lower = [other for other in others if other.metrics[name] <= value]
        higher = [other for other in others if other.metrics[name] > value]
        return {
            "lower": max(lower, key=lambda other: other.metrics[name], default=None),
            "higher": min(higher, key=lambda other: other.metrics[name], default=None),
        }

    def _record(self, record: Mapping[str, Any]) -> None:
        code = record["op_code"]
        if code == _CREATE_TRIAL:
            self._add(record)
        elif code == _STUDY_ATTR:
            attrs = record["user_attr"]
            self.n_asked = attrs.get("nas_n_trials", self.n_asked)
            if "nas" in attrs:
                self._describe(Identity(**attrs["nas"]))
        elif code == _DELETE_STUDY or (code == _CREATE_STUDY and self.trials):
            self._clear()

    def _describe(self, identity: Identity) -> None:
        space = NetworkSpace.from_dict(identity.space)
        problem = Problem(space, identity.objectives, identity.limits)
        self.identity = replace(identity, limits=problem.limits)
        self.reference = _reference(space, self.identity)

    def _add(self, record: Mapping[str, Any]) -> None:
        if self.identity is None:
            raise ValueError("a trial stands before the study's description")
        attrs, system = record["user_attrs"], record["system_attrs"]
        excesses = {n.removeprefix("constraints:"): v for n, v in system.items() if n.startswith("constraints:")}
        number = attrs.get("number", len(self.trials))
        if number != len(self.trials) or not are_metrics(attrs["metrics"]):
            raise ValueError(f"trial {len(self.trials)} is missing, doubled or has a metric that is no finite number")
        trial = Trial(
            number=number,
            arch=StoredArch(attrs["key"], attrs["arch"]),
            state="complete" if record["state"] == _COMPLETE else "failed",
            metrics=attrs["metrics"],
            constraints={name: value for name, value in excesses.items() if name in self.identity.limits},
            worker=attrs["worker"],
            seconds=attrs["seconds"],
            error=attrs["error"],
        )
        self.n_failed += trial.state == "failed"
        self.n_infeasible += trial.state == "complete" and not trial.feasible
        self.trials.append(trial)
        self.completed.append(datetime.fromisoformat(record["datetime_complete"]).timestamp())

    def _follow(self, new: Sequence[Trial]) -> None:
        objectives = self.objectives
        self.front = pareto.front([*self.front, *new], objectives)
        self.best = pareto.best(self.front, objectives)
        first, direction = next(iter(objectives.items()))
        better = max if direction == "maximize" else min
        best = self.best_so_far[-1] if self.best_so_far else None
        for trial in new:
            if trial.feasible:
                value = trial.metrics[first]
                best = value if best is None else better(best, value)
            self.best_so_far.append(best)
        wider = _wider(self.reference, new, objectives)
        if wider != self.reference:  # of a metric whose worst value nobody knows beforehand
            self.reference, self.hypervolumes = wider, []
            self._points, new = np.zeros((0, 0)), self.trials
        self._add_volumes(new, objectives)

    def _add_volumes(self, new: Sequence[Trial], objectives: Mapping[str, str]) -> None:
        """Only a point that is on the front when it comes changes the volume: there alone it is computed."""
        signs = [-1.0 if direction == "maximize" else 1.0 for direction in objectives.values()]
        corner = np.array([sign * self.reference[name] for sign, name in zip(signs, objectives)])
        scale = math.prod(abs(self.reference[name]) or 1.0 for name in objectives)
        volume = self.hypervolumes[-1] if self.hypervolumes else 0.0
        for trial in new:
            if trial.feasible:
                point = pareto.points([trial], objectives)
                kept = self._points if self._points.size else np.zeros((0, len(corner)))
                if not (kept <= point).all(axis=1).any():
                    self._points = moocore.filter_dominated(np.concatenate([kept, point]))
                    volume = float(moocore.hypervolume(self._points, ref=corner)) / scale
            self.hypervolumes.append(volume)


def _reference(space: NetworkSpace, identity: Identity) -> dict[str, float]:
    """The worst value of each objective as far as it is known before: accuracy 0, costs the limit or the costliest."""
    known = cost.costs(space, [space.largest(), space.most_macs()])
    reference: dict[str, float] = {}
    for name, direction in identity.objectives.items():
        if direction == "maximize":
            reference[name] = 0.0
        elif name in identity.limits and math.isfinite(bounds(identity.limits[name])[1]):
            reference[name] = bounds(identity.limits[name])[1]
        elif name in known:
            reference[name] = float(known[name].max())
    return reference


def _wider(reference: Mapping[str, float], trials: Sequence[Trial], objectives: Mapping[str, str]) -> dict[str, float]:
    """`reference` with a value for every objective: of one not known beforehand, the worst that was seen."""
    wider = dict(reference)
    for name, direction in objectives.items():
        worst = max if direction == "minimize" else min
        values = [trial.metrics[name] for trial in trials if trial.feasible]
        if values and (name not in wider or worst([wider[name], *values]) != wider[name]):
            wider[name] = worst([*values, *([wider[name]] if name in wider else [])])
        wider.setdefault(name, 0.0)
    return wider


def _sorted(trials: Sequence[Trial], sort: str, descending: bool, metrics: Sequence[str]) -> list[Trial]:
    fixed = ("number", "seconds", "worker", "state")
    if sort in fixed:
        return sorted(trials, key=lambda trial: (getattr(trial, sort), trial.number), reverse=descending)
    if sort not in metrics:
        raise ValueError(f"cannot sort by {sort!r}; valid: {', '.join([*fixed, *metrics])}")
    known = [trial for trial in trials if sort in trial.metrics]
    known.sort(key=lambda trial: (trial.metrics[sort], trial.number), reverse=descending)
    return known + [trial for trial in trials if sort not in trial.metrics]
