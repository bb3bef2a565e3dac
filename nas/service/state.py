"""The runs under a folder, and one view of each that everyone who watches it shares. Reads only."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nas.profiles import costs_with
from nas.run import Run, RunError
from nas.searching import is_stale
from nas.service.study_view import StudyView
from nas.service.training_view import TrainingView
from nas.status import read_status
from search_spaces import cost
from search_spaces.feasible import preflight

SEPARATOR = "~"  # between the folders of a run's id, where a path has a slash

_DEPTH = 4  # folders below the root in which runs are looked for
_SCAN_SECONDS = 1.0  # for which a listing is believed, or
_SCAN_SHARE = 20  # times what it took, as where a data set of many files lies under the root
_SAMPLES = 2000  # architectures behind a distribution


class UnknownError(LookupError):
    """There is no such run or study; the message says which there are."""


class Library:
    """The runs in a folder and below it, by id: the folder's path from the root, with `~` for each slash.

    Ids are looked up among the runs that were found and never made into paths, so nothing outside the root can be
    named; links are not followed. root: itself a run, or a folder of runs.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._studies: dict[tuple[str, str], StudyView] = {}
        self._trainings: dict[str, TrainingView] = {}
        self._scan_at = float("-inf")

    def runs(self) -> dict[str, Run]:
        """Every run by id, in order of id. Folders that only look like runs are left out."""
        with self._lock:
            started = time.monotonic()
            if started > self._scan_at:
                known, self._runs = self._runs, dict(sorted(self._scan(), key=lambda found: found[0]))
                for run_id, run in self._runs.items():
                    if run_id in known and known[run_id].description == run.description:
                        self._runs[run_id] = known[run_id]  # which the views are of
                ended = time.monotonic()
                self._scan_at = ended + max(_SCAN_SECONDS, _SCAN_SHARE * (ended - started))
            return dict(self._runs)

    def run(self, run_id: str) -> Run:
        """Raises UnknownError listing the runs there are."""
        runs = self.runs()
        if run_id not in runs:
            raise UnknownError(f"there is no run {run_id!r}; runs: {', '.join(runs) or 'none yet'}")
        return runs[run_id]

    def study(self, run_id: str, name: str) -> StudyView:
        """The view of a study, read up to now. Raises UnknownError listing the studies there are."""
        run = self.run(run_id)
        names = study_names(run)
        if name not in names:
            raise UnknownError(f"run {run_id!r} has no study {name!r}; studies: {', '.join(names) or 'none yet'}")
        with self._lock:
            view = self._studies.get((run_id, name))
            if view is None or view.run is not run:
                view = self._studies[run_id, name] = StudyView(run, name)
        view.refresh()
        return view

    def studies(self, run_id: str) -> list[StudyView]:
        """The views of a run's studies, read up to now, in order of name."""
        return [self.study(run_id, name) for name in study_names(self.run(run_id))]

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
            if "run.json" not in files or (path / "run.json").is_symlink():
                continue
            children.clear()
            try:
                yield SEPARATOR.join(below) or path.name, Run.open(path)
            except RunError:
                continue


def study_names(run: Run) -> list[str]:
    """The studies of a run whose journals are files of their own, by name."""
    return [name for name in run.study_names() if not run.study(name).is_symlink()]


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


def reachable(run: Run, limits: dict[str, Any]) -> dict[str, Any]:
    """Between which values limits make sense, and whether these can be met together.

    range: of `macs`, `params`, `peak_memory` and `weight_bytes`, what the smallest and the largest architectures have.
    feasible: whether an architecture within `limits` was found; where not, `message` names the nearest reachable
    values. Raises ValueError for a limit that is none.
    """
    from nas.problem import Problem
    from nas.searching import EVALUATED
    from search_spaces.feasible import InfeasibleLimitsError

    space = run.space
    known = cost.costs(space, [space.smallest(), space.largest(), space.most_macs()])
    ranges = {name: [float(values.min()), float(values.max())] for name, values in known.items()}
    batch = costs_with(space, [])
    problem = Problem(space, {"top1": "maximize"}, limits, batch, EVALUATED)
    try:
        preflight(space, problem.limits, batch)
    except InfeasibleLimitsError as error:
        return {"range": ranges, "feasible": False, "message": str(error), "nearest": dict(error.nearest)}
    return {"range": ranges, "feasible": True, "message": None, "nearest": {}}


def space_summary(run: Run, samples: int = _SAMPLES) -> dict[str, Any]:
    """What a space holds: its genes and their choices, its size, and MACs and parameters of a random sample."""
    space, rng = run.space, np.random.default_rng(0)
    known = cost.costs(space, [space.sample(rng) for _ in range(samples)], ("macs", "params"))
    return {
        "name": space.name,
        "size": space.size(),
        "description": space.to_dict(),
        "genes": [{"name": gene.name, "choices": list(gene.choices)} for gene in space.genes],
        "sample": {name: values.tolist() for name, values in known.items()},
        "range": reachable(run, {})["range"],
    }
