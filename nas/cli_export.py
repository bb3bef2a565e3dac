"""`nas export`, apart from the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli_read import Json, RunFolder, StudyName
from nas.terminal import next_step, print_json, quoted

if TYPE_CHECKING:
    from nas.run import Run


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    trial: Annotated[int | None, typer.Option(help="Number of a trial of the study.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best feasible trial by the first objective.")] = False,
    arch: Annotated[str | None, typer.Option(help="An architecture as JSON, as in `nas pareto --json`.")] = None,
    front: Annotated[bool, typer.Option("--front", help="The whole Pareto front, a folder a trial.")] = False,
    finetuned: Annotated[bool, typer.Option("--finetuned", help="With the weights that `nas finetune` kept.")] = False,
    study_name: StudyName = "default",
    formats: Annotated[
        str, typer.Option("--format", help="Of safetensors (always there), onnx and pt2, such as onnx,pt2.")
    ] = "safetensors",
    with_preprocessing: Annotated[
        bool, typer.Option("--with-preprocessing", help="ONNX and pt2 take uint8 images and normalise them.")
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            help="CPU threads that latencies are measured on.", show_default="those of the study's profile, or 1"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    as_json: Json = False,
) -> None:
    """Export a subnet, or a whole front, as standalone models; check each, and score the test set once."""
    from nas.run import Run

    opened = Run.open(run)
    budgets = _budgets(opened, study_name)
    options: dict[str, Any] = {
        "formats": tuple(formats.split(",")), "with_preprocessing": with_preprocessing, "force": force,
        "threads": threads if threads is not None else next((budget.threads for budget in budgets), 1),
        "budgets": budgets,
    }  # fmt: skip
    if front:
        if trial is not None or best or arch is not None:
            raise ValueError("--front exports the whole front: leave out --trial, --best and --arch, or --front")
        _export_front(opened, out, as_json, study_name=study_name, finetuned=finetuned, **options)
        return
    from nas.export import ExportError, export_subnet
    from nas.searching import pick_arch

    chosen = pick_arch(opened, study_name, trial=trial, best=best, arch=arch)
    try:
        certificate = export_subnet(opened, chosen, out, finetuned=study_name if finetuned else None, **options)
    except ExportError as error:
        if not as_json:
            _print_certificate(error.certificate)
        raise
    if as_json:
        print_json(certificate.to_dict() | {"out": str(out)})
    else:
        _print_certificate(certificate)
        next_step(
            f"read {out / 'README.md'}, or: cd {quoted(out)} && python -c 'from model import load; print(load())'"
        )


def _budgets(run: Run, study_name: str) -> tuple[Any, ...]:
    """The latency limits of the study, where there is one: an architecture may be given without."""
    if not run.study(study_name).exists():
        return ()
    from nas.profiles import budgets
    from nas.searching import read_run_study

    return tuple(budgets(run, read_run_study(run, study_name).identity))


def _print_certificate(certificate: Any) -> None:
    from nas.export.table import print_certificate

    print_certificate(certificate)


def _export_front(run: Run, out: Path, as_json: bool, **options: Any) -> None:
    """Exit code 1 where a trial could not be exported; the others then are there."""
    from nas.export.front import export_front
    from nas.terminal import stderr

    console = stderr()

    def say(entry: Any) -> None:
        console.print(f"trial {entry.trial.number}: {entry.error or 'exported'}", highlight=False, soft_wrap=True)

    entries = export_front(run, out, on_entry=say, **options)
    if as_json:
        print((out / "index.json").read_text(encoding="utf-8"), end="")
    else:
        from nas.export.table import print_entries

        print_entries(entries)
    failed = [str(entry.trial.number) for entry in entries if entry.error]
    if failed:
        study = f" --study-name {options['study_name']}" if options["study_name"] != "default" else ""
        next_step(f"nas export {quoted(run)}{study} --trial {failed[0]} -o {quoted(out / f'trial-{failed[0]}')}")
        raise typer.Exit(1)
    next_step(f"open {quoted(out / 'index.html')} in a browser")
