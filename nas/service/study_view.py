"""`StudyView`: a study followed by the bytes that its journal grows by, shared by everyone who watches it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from nas import pareto
from nas.identity import Identity
from nas.journal import is_written
from nas.problem import Problem
from nas.run import Run
from nas.service import records
from nas.service.hypervolume import Hypervolumes
from nas.service.tail import Tail
from nas.trial import Trial
from search_spaces.network import NetworkSpace

STATES = ("searching", "idle", "finished", "exhausted", "interrupted", "damaged")

_LOOK_SECONDS = 0.3
_RECENT = 20  # trials that the present speed is taken from


class StudyView:
    """One study of a run, as far as its journal has been read; `refresh` reads on.

    trials: in order of number. completed: when each was recorded, seconds since 1970. front: the feasible trials that
    none dominates. best_so_far: the best feasible value of the first objective after each trial, or None. generation:
    changes when the study starts over, so that whoever holds a part of it asks for all of it. All of this changes in
    `refresh` alone, which any thread may call.
    """

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self.path = run.study(name)
        self._tail = Tail(self.path)
        self._lock = threading.Lock()
        self._looked, self._written = float("-inf"), False
        self._unreadable: str | None = None
        self._clear()

    def _clear(self) -> None:
        self.identity: Identity | None = None
        self.n_asked: int | None = None
        self.trials: list[Trial] = []
        self._read: list[Trial] = []  # but not yet among `trials`, as what follows from them is not known yet
        self.completed: list[float] = []
        self.front: list[Trial] = []
        self.best: Trial | None = None
        self.best_so_far: list[float | None] = []
        self._damage: str | None = None
        self.n_failed = self.n_infeasible = 0
        self._volumes: Hypervolumes | None = None
        self._exhausted: int | None = None

    @property
    def generation(self) -> int:
        """How often the study started over."""
        return self._tail.generation

    @property
    def error(self) -> str | None:
        """Why the journal cannot be read, from some record on or now; or None."""
        return self._damage or self._unreadable

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
        """One of `STATES`: idle has no trials or says of no number to reach, interrupted and exhausted have fewer than
        that, exhausted because there are no more architectures within the limits.
        """
        if self.error:
            return "damaged"
        if self.searching:
            return "searching"
        if not self.trials or self.n_asked is None:
            return "idle"
        if len(self.trials) >= self.n_asked:
            return "finished"
        return "exhausted" if len(self.trials) == self._exhausted else "interrupted"

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
    def hypervolumes(self) -> list[float]:
        """After each trial, the part of the box between `reference` and the ideal that is dominated."""
        return self._volumes.values if self._volumes else []

    @property
    def reference(self) -> dict[str, float]:
        """The worst value of each objective, as `nas.service.hypervolume` has it."""
        return self._volumes.reference if self._volumes else {}

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
            try:
                again, lines = self._tail.read()
            except OSError as error:
                self._unreadable = f"{self.path.name} cannot be read: {error.strerror}"
                return 0
            self._unreadable = None
            if again:
                self._clear()
            if self._damage is None:
                try:
                    for line in lines:
                        self._record(orjson.loads(line))
                except Exception as error:  # whatever a record that is not as it was written makes of the reading
                    self._damage = f"{self.path.name} is damaged: {type(error).__name__}: {error}"
            new, self._read = self._read, []
            if new:
                self._follow(new)
            return len(new)

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
        if code == records.CREATE_TRIAL:
            self._add(record)
        elif code == records.STUDY_ATTR:
            attrs = record["user_attr"]
            self.n_asked = records.n_asked(attrs, self.n_asked)
            self._exhausted = attrs.get("nas_exhausted", self._exhausted)
            if "nas" in attrs:
                self._describe(records.identity(attrs["nas"], self.name))
        elif code == records.DELETE_STUDY or (code == records.CREATE_STUDY and (self.trials or self._read)):
            self._clear()

    def _describe(self, identity: Identity) -> None:
        if self.trials or self._read:
            raise ValueError("it is described anew behind its trials")
        space = NetworkSpace.from_dict(identity.space)
        problem = Problem(space, identity.objectives, identity.limits)
        self.identity = replace(identity, limits=problem.limits)
        self._volumes = Hypervolumes(space, self.identity)

    def _add(self, record: Mapping[str, Any]) -> None:
        if self.identity is None:
            raise ValueError("a trial stands before the study's description")
        due = len(self.trials) + len(self._read)
        trial = records.trial(record, due, self.identity)
        self.completed.append(datetime.fromisoformat(record["datetime_complete"]).timestamp())
        self._read.append(trial)

    def _follow(self, new: Sequence[Trial]) -> None:
        """Others read meanwhile: what belongs to a trial is there before it is, and the front has no other trials."""
        objectives = self.objectives
        assert self._volumes
        first, direction = next(iter(objectives.items()))
        better = max if direction == "maximize" else min
        best = self.best_so_far[-1] if self.best_so_far else None
        for trial in new:
            if trial.feasible:
                value = trial.metrics[first]
                best = value if best is None else better(best, value)
            self.best_so_far.append(best)
        self._volumes.follow([*self.trials, *new])
        self.trials += new
        self.n_failed += sum(trial.state == "failed" for trial in new)
        self.n_infeasible += sum(trial.state == "complete" and not trial.feasible for trial in new)
        self.front = pareto.front([*self.front, *new], objectives)
        self.best = pareto.best(self.front, objectives)


def _sorted(trials: Sequence[Trial], sort: str, descending: bool, metrics: Sequence[str]) -> list[Trial]:
    fixed = ("number", "seconds", "worker", "state")
    if sort in fixed:
        return sorted(trials, key=lambda trial: (getattr(trial, sort), trial.number), reverse=descending)
    if sort not in metrics:
        raise ValueError(f"cannot sort by {sort!r}; valid: {', '.join([*fixed, *metrics])}")
    known = [trial for trial in trials if sort in trial.metrics]
    known.sort(key=lambda trial: (trial.metrics[sort], trial.number), reverse=descending)
    return known + [trial for trial in trials if sort not in trial.metrics]
