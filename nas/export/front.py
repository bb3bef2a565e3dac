"""A whole Pareto front, exported: a folder a trial, and an index of them for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nas.export.certificate import Certificate
from nas.export.exporter import Exporter, Options
from nas.finetune_report import require_finetuned
from nas.run import Run, RunError, require_empty
from nas.searching import open_study
from nas.study import Study
from nas.trial import Trial
from search_spaces.arch import Arch

WAITING = "not exported yet"


@dataclass
class Entry:
    """A trial of the front, and what became of it: a certificate, or the error for which there is none."""

    trial: Trial
    certificate: Certificate | None = None
    error: str | None = WAITING

    @property
    def folder(self) -> str:
        """Its name beside the index."""
        return f"trial-{self.trial.number}"


def export_front(
    run: Run | str | Path,
    out: str | Path,
    *,
    study_name: str = "default",
    force: bool = False,
    finetuned: bool = False,
    on_entry: Callable[[Entry], None] = lambda entry: None,
    **options: Any,
) -> list[Entry]:
    """Exports every trial of a study's front to `out`/trial-N, best by the first objective first.

    `out` also gets `index.html`, which needs no other file, and `index.json`; both are written anew after each trial,
    so that what an interruption leaves is complete. A trial that fails a check, or cannot be written, has its error in
    its entry, and the others are exported all the same. finetuned: with the weights that `nas finetune` kept for each.
    on_entry: called after each trial. options: those of `nas.export.export_subnet` for formats and measurements.
    Raises before anything is loaded: RunError for a folder in use, a study without a feasible trial, or a trial without
    fine-tuned weights, ValueError for a bad option.
    """
    from nas.export.index import write_index

    run = run if isinstance(run, Run) else Run.open(run)
    out = Path(out).absolute()
    chosen = Options(**options)
    study = open_study(run, study_name)
    require_empty(out, None if force else "name another folder, or overwrite with --force")
    entries = [Entry(trial) for trial in _ordered(study)]
    if not entries:
        raise RunError(f"study {study_name!r} has no feasible trial among its {len(study.trials)}")
    for entry in entries if finetuned else ():
        require_finetuned(run, study_name, cast(Arch, entry.trial.arch))
    out.mkdir(parents=True, exist_ok=True)
    with Exporter(run, chosen) as exporter:
        for entry in entries:
            try:
                arch = cast(Arch, entry.trial.arch)
                entry.certificate = exporter.export(arch, out / entry.folder, study_name if finetuned else None)
                entry.error = None
            except (RuntimeError, OSError) as error:
                entry.error = str(error)
            write_index(out, run, study_name, study, entries)
            on_entry(entry)
    return entries


def _ordered(study: Study) -> list[Trial]:
    first, direction = next(iter(study.objectives.items()))
    return sorted(study.front(), key=lambda trial: trial.metrics[first], reverse=direction == "maximize")
