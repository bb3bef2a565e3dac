"""The runs under a folder, and one view of each that everyone who watches it shares. Reads only."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.run import Run
from nas.searching import is_stale
from nas.service.study_view import StudyView
from nas.service.training_view import TrainingView
from nas.status import read_status

SEPARATOR = "~"  # between the folders of a run's id, where a path has a slash
_TILDE = "~.~"  # a tilde of a folder's own name: no folder between two slashes is called "."

_DEPTH = 4  # folders below the root in which runs are looked for
_SCAN_SECONDS = 1.0  # for which a listing is believed, or
_SCAN_SHARE = 20  # times what it took, as where a data set of many files lies under the root


class UnknownError(LookupError):
    """There is no such run or study; the message says which there are."""


class Library:
    """The runs in a folder and below it, by id: the path from the root, `~` for each slash and `~.~` for a tilde.

    Ids are looked up among the runs that were found and never made into paths, so nothing outside the root can be
    named; links are not followed. root: itself a run, or a folder of runs.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._studies: dict[tuple[str, str], StudyView] = {}
        self._trainings: dict[str, TrainingView] = {}
        self._scan_at = self._rescan_at = float("-inf")

    def runs(self, missed: bool = False) -> dict[str, Run]:
        """Every run by id, in order of id, as of some seconds ago. Folders that only look like runs are left out.

        missed: whether one was looked for in vain, which may have been made since.
        """
        with self._lock:
            started = time.monotonic()
            if started > (self._rescan_at if missed else self._scan_at):
                known, self._runs = self._runs, dict(sorted(self._scan(), key=lambda found: found[0]))
                for run_id, run in self._runs.items():
                    if run_id in known and known[run_id].description == run.description:
                        self._runs[run_id] = known[run_id]  # which the views are of
                self._forget(self._runs)
                ended = time.monotonic()
                self._rescan_at = ended + (ended - started)  # so that ids that are none take half of the time at most
                self._scan_at = ended + max(_SCAN_SECONDS, _SCAN_SHARE * (ended - started))
            return dict(self._runs)

    def run(self, run_id: str) -> Run:
        """Raises UnknownError listing the runs there are."""
        runs = self.runs()
        if run_id not in runs:
            runs = self.runs(missed=True)
        if run_id not in runs:
            raise UnknownError(f"there is no run {run_id!r}; runs: {', '.join(runs) or 'none yet'}")
        return runs[run_id]

    def study(self, run_id: str, name: str) -> StudyView:
        """The view of a study, read up to now. Raises UnknownError listing the studies there are."""
        run = self.run(run_id)
        names = study_names(run)
        if name not in names:
            with self._lock:
                self._studies.pop((run_id, name), None)
            raise UnknownError(f"run {run_id!r} has no study {name!r}; studies: {', '.join(names) or 'none yet'}")
        return self._view(run_id, run, name)

    def studies(self, run_id: str) -> list[StudyView]:
        """The views of a run's studies, read up to now, in order of name."""
        run = self.run(run_id)
        return [self._view(run_id, run, name) for name in study_names(run)]

    def _view(self, run_id: str, run: Run, name: str) -> StudyView:
        with self._lock:
            view = self._studies.get((run_id, name))
            if view is None or view.run is not run:
                view = self._studies[run_id, name] = StudyView(run, name)
        view.refresh()
        return view

    def _forget(self, runs: Mapping[str, Run]) -> None:
        """Gives up the views of runs that are not there any more."""
        self._studies = {key: view for key, view in self._studies.items() if key[0] in runs}
        self._trainings = {run_id: view for run_id, view in self._trainings.items() if run_id in runs}

    def training(self, run_id: str) -> TrainingView:
        """The view of a run's training, read up to now. Raises UnknownError."""
        run = self.run(run_id)
        with self._lock:
            view = self._trainings.get(run_id)
            if view is None or view.run is not run:
                view = self._trainings[run_id] = TrainingView(run)
        view.refresh()
        return view

    def _scan(self) -> Iterator[tuple[str, Run]]:
        for folder, children, files in os.walk(self.root):
            path = Path(folder)
            below = path.relative_to(self.root).parts
            children[:] = sorted(c for c in children if not c.startswith(".")) if len(below) < _DEPTH else []
            if "run.json" not in files:
                continue
            try:
                description = path / "run.json"
                if description.is_symlink() or not description.is_file():
                    continue
                children.clear()
                run, run_id = Run.open(path), _id_of(below or path.parts[-1:])
                json.dumps([run_id, run.description], ensure_ascii=False).encode()
                yield run_id, run
            except (ValueError, OSError):  # broken, of a name that is no text, or not ours to read
                continue


def _id_of(folders: Iterable[str]) -> str:
    return SEPARATOR.join(folder.replace(SEPARATOR, _TILDE) for folder in folders)


def study_names(run: Run) -> list[str]:
    """The studies of a run whose journals are files of their own, by name."""
    files = ((name, run.study(name)) for name in run.study_names())
    return [name for name, file in files if os.path.isfile(file) and not os.path.islink(file)]


def run_summaries(library: Library) -> list[dict[str, Any]]:
    """`run_summary` of every run that is still there when it is looked at."""
    found = []
    for run_id in library.runs():
        with contextlib.suppress(UnknownError):
            found.append(run_summary(library, run_id))
    return found


def run_summary(library: Library, run_id: str) -> dict[str, Any]:
    """A run in plain JSON types: space, data, training, and a summary of each of its studies."""
    run, training = library.run(run_id), library.training(run_id)
    step, total = training.progress
    return {
        "id": run_id,
        "path": str(run.path),
        "space": run.space.name,
        "space_size": run.space.size(),
        "data": run.data.name,
        "classes": len(run.description["classes"]),
        "training": {
            "state": training.state,
            "step": step,
            "total_steps": total,
            "seconds_left": training.seconds_left if training.state == "training" else None,
        },
        "studies": [study_summary(view) for view in library.studies(run_id)],
    }


def study_summary(view: StudyView) -> dict[str, Any]:
    """A study in plain JSON types.

    state: one of `study_view.STATES`. n_asked: the trials it is to have, or None. best: number and metrics of the best
    feasible trial, or None. hypervolume: 0 to 1, or None. trials_per_second and seconds_left: None where not known.
    workers: see `workers_of`. stale: whether its scores are those of weights that the run no longer has.
    """
    state, identity = view.state, view.identity
    return {
        "study": view.name,
        "state": state,
        "error": view.error,
        "generation": view.generation,
        "strategy": identity.strategy if identity else None,
        "seed": identity.seed if identity else None,
        "lookahead": identity.lookahead if identity else None,
        "score": identity.context.get("score", "inherited") if identity else None,
        "objectives": view.objectives,
        "limits": view.limits,
        "metrics": view.metrics,
        "n_trials": len(view.trials),
        "n_failed": view.n_failed,
        "n_infeasible": view.n_infeasible,
        "n_asked": view.n_asked,
        "best": {"number": view.best.number, "metrics": dict(view.best.metrics)} if view.best else None,
        "front": len(view.front),
        "hypervolume": view.hypervolumes[-1] if view.hypervolumes else None,
        "stale": is_stale(view.run, identity.context) if identity else False,
        "changed": view.changed.isoformat(timespec="seconds"),
        "age_seconds": max(0.0, time.time() - view.changed.timestamp()),
        "trials_per_second": view.trials_per_second,
        "seconds_left": view.seconds_left,
        "workers": workers_of(view),
    }


def workers_of(view: StudyView) -> dict[str, Any]:
    """Who evaluates: what a running driver says of its workers, and what each worker has done so far.

    alive, busy, restarted: counts, None where no driver runs. by_worker: name, `trials`, `seconds` of evaluation and
    `last`, when it last finished one (seconds since 1970).
    """
    counts: dict[str, dict[str, Any]] = {}
    for trial, completed in zip(view.trials, view.completed):
        row = counts.setdefault(trial.worker, {"worker": trial.worker, "trials": 0, "seconds": 0.0, "last": 0.0})
        row["trials"] += 1
        row["seconds"] += trial.seconds
        row["last"] = max(row["last"], completed)
    status = read_status(view.path) if view.searching else None
    live = {name: (status or {}).get(name) for name in ("alive", "busy", "restarted", "pid", "host", "started")}
    return live | {"by_worker": sorted(counts.values(), key=lambda row: -row["last"])}


def trial_row(view: StudyView, number: int) -> dict[str, Any]:
    """A trial in plain JSON types. Raises IndexError with the valid numbers."""
    trial = view.trial(number)
    return {
        "number": trial.number,
        "key": trial.arch.key,
        "arch": trial.arch.to_dict(),
        "state": trial.state,
        "feasible": trial.feasible,
        "metrics": dict(trial.metrics),
        "constraints": dict(trial.constraints),
        "worker": trial.worker,
        "seconds": trial.seconds,
        "completed": view.completed[number],
        "error": trial.error,
    }
