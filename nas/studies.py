"""The studies of a run at a glance, and the studies that a command line names."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas import pareto
from nas.journal import is_written
from nas.run import Run, RunError
from nas.searching import is_stale, read_run_study
from nas.store import StoredStudy, StudyError, read_studies, read_study
from nas.trial import Trial

log = logging.getLogger(__name__)

_FIXED = ("space", "objectives", "limits", "context")  # what has to be equal for a comparison to mean anything


@dataclass(frozen=True)
class NamedStudy:
    """A study, and the words that name it on a command line: its file's path, or RUN:NAME."""

    name: str
    stored: StoredStudy


def list_studies(run: Run) -> list[dict[str, Any]]:
    """One row of plain JSON types for each study of the run, in order of name; a damaged one has an `error` alone.

    n_asked: the trials last asked for, or None. exhausted: whether no further architecture is within the limits. best:
    the number and metrics of the best feasible trial, or None. front: how many trials are on it. score: "inherited" or
    "calibrated". current: whether its scores are those of the weights that the run has now. changed: when it was last
    written, in UTC. writing: whether a search does so now.
    """
    return [_row(run, name) for name in run.study_names()]


def _row(run: Run, name: str) -> dict[str, Any]:
    path = run.study(name)
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    row = {"study": name, "changed": changed.isoformat(timespec="seconds"), "writing": is_written(path), "error": None}
    try:
        stored = read_study(path, name)
    except (StudyError, OSError) as error:
        return row | {"error": str(error)}
    identity, trials = stored.identity, stored.trials
    best = pareto.best(trials, identity.objectives)
    return row | {
        "strategy": identity.strategy,
        "seed": identity.seed,
        "objectives": dict(identity.objectives),
        "limits": dict(identity.limits),
        "score": identity.context.get("score", "inherited"),
        "current": not is_stale(run, identity.context),
        "n_trials": len(trials),
        "n_failed": sum(trial.state == "failed" for trial in trials),
        "n_asked": stored.n_trials,
        "exhausted": stored.exhausted,
        "best": {"number": best.number, "metrics": dict(best.metrics)} if best else None,
        "front": len(pareto.front(trials, identity.objectives)),
    }


def find_studies(sources: Sequence[str]) -> list[NamedStudy]:
    """The studies that `sources` mean, each once: journal files, run folders (or URLs) with all their studies, or
    RUN:NAME. Of a folder, damaged studies are left out with a warning.

    Raises StudyError or RunError naming a source that is none of these, or holds no study that can be read.
    """
    found: dict[tuple[Path, str], NamedStudy] = {}
    for source in sources:
        for path, named in _of_source(source):
            found.setdefault((path.resolve(), named.stored.identity.study_name), named)
    return list(found.values())


def _of_source(source: str) -> list[tuple[Path, NamedStudy]]:
    path = Path(source)
    if path.is_file():
        studies = read_studies(path)
        names = [f"{source}:{s.identity.study_name}" if len(studies) > 1 else source for s in studies]
        return [(path, NamedStudy(name, stored)) for name, stored in zip(names, studies, strict=True)]
    folder, colon, study_name = source.rpartition(":")
    if path.is_dir() or study_name.startswith("//"):
        return _of_run(Run.open(source))
    if colon:
        return [_named(Run.open(folder), study_name)]
    raise StudyError(f"there is no journal file and no run folder {source}")


def _of_run(run: Run) -> list[tuple[Path, NamedStudy]]:
    """All studies of the run that can be read."""
    names = run.study_names()
    if not names:
        raise RunError(f"{run} has no studies; make one with: nas search {shlex.quote(str(run))}")
    intact, damage = [], []
    for name in names:
        try:
            intact.append(_named(run, name))
        except (StudyError, OSError) as error:
            damage.append(error)
    if not intact:
        raise damage[0]
    for reason in damage:
        log.warning("left out: %s", reason)
    return intact


def _named(run: Run, name: str) -> tuple[Path, NamedStudy]:
    return run.study(name), NamedStudy(f"{run}:{name}", read_run_study(run, name))


def group_studies(studies: Sequence[NamedStudy]) -> dict[str, list[list[Trial]]]:
    """The trials of studies by strategy, each study of a group a seed of its own: what `nas.compare.compare` takes.

    Where further settings differ, such as the lookahead, the labels say them. Raises ValueError naming what differs
    for studies of other spaces, objectives, limits or evaluations (weights, images, score), which cannot be compared,
    and for two that are the same search; and for one without trials.
    """
    if empty := [study.name for study in studies if not study.stored.trials]:
        raise ValueError(f"{empty[0]} has no trials yet")
    first, varying = studies[0], set[str]()
    for study in studies[1:]:
        differs = _differing(first, study)
        if fixed := [text for name, text in differs.items() if name.partition(".")[0] in _FIXED]:
            raise ValueError(f"{first.name} and {study.name} cannot be compared: {'; '.join(fixed)}")
        varying |= differs.keys() - {"study_name", "seed", "strategy"}
    groups: dict[str, dict[int, NamedStudy]] = {}
    for study in studies:
        settings = study.stored.identity.flat()
        label = ", ".join([settings["strategy"], *(f"{n} {settings.get(n, 'absent')}" for n in sorted(varying))])
        same = groups.setdefault(label, {}).setdefault(settings["seed"], study)
        if same is not study:
            raise ValueError(f"{same.name} and {study.name} are the same search ({label}, seed {settings['seed']})")
    return {label: [study.stored.trials for study in seeds.values()] for label, seeds in groups.items()}


def _differing(a: NamedStudy, b: NamedStudy) -> dict[str, str]:
    """By the setting's name, for example `limits.macs is 4e7 and 5e7`."""
    mine, theirs = ({"objectives": list(s.stored.identity.objectives), **s.stored.identity.flat()} for s in (a, b))
    names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
    return {n: f"{n} is {mine.get(n, 'absent')} and {theirs.get(n, 'absent')}" for n in names}
