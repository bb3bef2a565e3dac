"""Turning subnets into folders that need nothing of this project, and proving that they are what was scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.export.certificate import Budget, Certificate
from nas.export.exporter import Exporter, ExportError, Options
from nas.export.formats import ALWAYS, FORMATS
from nas.finetune_report import require_finetuned
from nas.run import Run, require_empty
from search_spaces.arch import Arch
from search_spaces.plan import plan

__all__ = ["FORMATS", "Budget", "Certificate", "ExportError", "export_subnet"]


def export_subnet(
    run: Run | str | Path,
    arch: Arch,
    out: str | Path,
    *,
    force: bool = False,
    finetuned: str | None = None,
    formats: Sequence[str] = (ALWAYS,),
    with_preprocessing: bool = False,
    threads: int = 1,
    budgets: Sequence[Budget] = (),
) -> Certificate:
    """Writes `arch` of the run's supernet to the folder `out`, checks it and returns the certificate.

    The folder gets `model.py` (a plain nn.Module), `model.safetensors`, `config.json` (the architecture, and timm's
    preprocessing keys), `certificate.json`, a model card `README.md`, and a file for each further name in `formats`
    (see `FORMATS`). force: write into a folder that is not empty. finetuned: name of
    the study as a trial of which `nas finetune` trained `arch` on; its weights then are written, not the supernet's.
    with_preprocessing: graphs take uint8 images of the network's size and normalise them. threads: CPU threads that
    latencies are measured on. budgets: limits on latency to show beside them; one that is broken fails no check.
    Raises ValueError for an architecture of another space and for a format that is unknown or not installed, RunError
    for a folder in use or where there are no fine-tuned weights, all before anything is loaded; OSError when the disk
    is full, and ExportError when a check fails: the files are then kept beside `out`, under a name that says so.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    out = Path(out).absolute()
    options = Options(tuple(formats), with_preprocessing, threads, tuple(budgets))
    plan(run.space, arch)
    require_empty(out, None if force else "name another folder, or overwrite with --force")
    if finetuned is not None:
        require_finetuned(run, finetuned, arch)
    with Exporter(run, options) as exporter:
        return exporter.export(arch, out, finetuned)
