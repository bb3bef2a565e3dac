"""The `nas` command. It parses and prints; the work is done by documented functions that it imports when needed."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from nas.cli_train import train
from nas.cli_trust import trust
from nas.terminal import UrlFormatter, drawn, with_urls
from nas.terminal import next_step as _next
from nas.terminal import print_json as _print_json
from nas.terminal import quoted as _quoted
from nas.terminal import say_stopping as _say_stopping
from nas.terminal import stderr as _stderr

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train one weight-sharing supernet, search its subnets under limits, export standalone models.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Seed = Annotated[int | None, typer.Option(help="Decides every random choice.", show_default="0")]


@app.command()
def spaces(as_json: Json = False) -> None:
    """List the search spaces: names, sizes and range of MACs."""
    from nas.spaces import describe_catalog

    rows = describe_catalog()
    if as_json:
        _print_json(rows)
    else:
        from nas import tables

        tables.print_spaces(rows)
        _next("nas train --space NAME --data digits|cifar10:DIR|folder:DIR -o RUN")


app.command()(train)
app.command()(trust)

StudyName = Annotated[str, typer.Option(help="Name of the study within the run.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="Run folder of `nas train`, or its URL.")]


@app.command()
def search(
    run: RunFolder,
    study_name: StudyName = "default",
    strategy: Annotated[str, typer.Option(help="evolution or random.")] = "evolution",
    n_trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of an earlier call included.")] = 100,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Ray workers; 0 evaluates in this process.", show_default="one a CPU")
    ] = None,
    max_macs: Annotated[str | None, typer.Option(help="Upper limit on multiply-adds, such as 20M.")] = None,
    max_params: Annotated[str | None, typer.Option(help="Upper limit on parameters, such as 1M.")] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help="top1, macs or params; repeat it.", show_default="top1, macs")
    ] = None,
    score: Annotated[str, typer.Option(help="inherited, or calibrated by `nas trust`.")] = "inherited",
    seed: Annotated[int, typer.Option(help="Decides every proposal.")] = 0,
    address: Annotated[str, typer.Option(envvar="RAY_ADDRESS", help="Ray: local, auto or host:6379.")] = "local",
) -> None:
    """Search the subnets of a run; the same command again continues the study."""
    from nas.quantities import parse_quantity
    from nas.run import Run
    from nas.searching import DEFAULT_OBJECTIVES, search_run

    opened = Run.open(run)
    texts = {"macs": max_macs, "params": max_params}
    limits = {name: parse_quantity(text) for name, text in texts.items() if text is not None}
    from nas.progress import SearchProgress
    from nas.signals import stop_requests

    with stop_requests(_say_stopping) as stop, SearchProgress(_stderr(), n_trials) as progress:
        study = search_run(
            opened, n_trials=n_trials, study_name=study_name, strategy=strategy, limits=limits,
            objectives=objective or DEFAULT_OBJECTIVES, num_workers=num_workers, score=score, seed=seed,
            address=address, on_trial=progress.trial, stop=stop,
        )  # fmt: skip
    if study.outcome == "stopped":
        from nas.training import Interrupted

        raise Interrupted(f"stopped after {len(study.trials)} of {n_trials} trials; the same command continues")
    if study.outcome == "exhausted":
        print(f"the space has no further architecture within the limits: {len(study.trials)} trials", file=sys.stderr)
    _show_study(opened, study_name, study)


@app.command()
def pareto(run: RunFolder, study_name: StudyName = "default", as_json: Json = False) -> None:
    """Show the Pareto front of a study as a table and as a picture beside the run."""
    from nas.run import Run
    from nas.searching import open_study, summarize

    opened = Run.open(run)
    study = open_study(opened, study_name)
    if as_json:
        _save_front(opened, study_name, study)
        _print_json({"study": study_name} | summarize(study))
    else:
        _show_study(opened, study_name, study)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")],
    trial: Annotated[int | None, typer.Option(help="Number of a trial of the study.")] = None,
    best: Annotated[bool, typer.Option("--best", help="The best feasible trial by the first objective.")] = False,
    arch: Annotated[str | None, typer.Option(help="An architecture as JSON, as in `nas pareto --json`.")] = None,
    study_name: StudyName = "default",
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that is not empty.")] = False,
    as_json: Json = False,
) -> None:
    """Export a subnet as a standalone model, check it, and score the test set once."""
    from dataclasses import asdict

    from nas.run import Run
    from nas.searching import pick_arch

    opened = Run.open(run)
    chosen = pick_arch(opened, study_name, trial=trial, best=best, arch=arch)
    from nas.export import export_subnet

    certificate = export_subnet(opened, chosen, out, force=force)
    if as_json:
        _print_json(asdict(certificate) | {"out": str(out)})
    else:
        from nas import tables

        tables.print_certificate(certificate)
        _next(f"read {out / 'README.md'}, or: cd {_quoted(out)} && python -c 'from model import load; print(load())'")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the run, the pictures and the model.")] = Path(
        "runs/demo"
    ),
) -> None:
    """Run the whole chain on handwritten digits in about two minutes: train, search, export, check."""
    from nas.demo import run_demo
    from nas.signals import stop_requests

    with stop_requests(_say_stopping) as should_stop:
        run_demo(out, _stderr(), should_stop)
    _next(f"nas pareto {_quoted(out / 'run')}, or the same with --data folder:DIR on your own images (README.md)")


def _show_study(run: Any, study_name: str, study: Any) -> None:
    from nas import tables

    tables.print_front(study)
    picture = _save_front(run, study_name, study)
    if picture:
        print(f"picture: {with_urls(str(picture))}")
    if study.best is not None:
        suffix = "" if study_name == "default" else f" --study-name {study_name}"
        _next(f"nas export {_quoted(run)}{suffix} --best -o DIR")


def _save_front(run: Any, study_name: str, study: Any) -> Path | None:
    """The picture's path, or None where there is no feasible trial to draw or it cannot be written."""
    from nas.plots import save_front

    if not study.front():
        return None
    path = run.path / ("front.png" if study_name == "default" else f"front-{study_name}.png")
    title = f"{run.space.name}: {len(study.trials)} subnets of one supernet"
    with run.publishing():
        return drawn(path, lambda: save_front(study, path, title))


def main() -> None:
    """Entry point: exit codes 0 done, 1 failed, 2 usage, 130 interrupted."""
    handler = logging.StreamHandler()
    handler.setFormatter(UrlFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    signal.signal(signal.SIGTERM, _interrupt)  # so that what a command cleans up on Ctrl-C, it does here too
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show ≤ must not fail the command
    try:
        app()
    except SystemExit as stop:
        if stop.code == 130:  # how typer ends on KeyboardInterrupt
            _fail("interrupted; what was saved is kept", 130)
        raise
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _fail(str(error), code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _exit_code(error: Exception) -> int | None:
    """130 for a requested stop, 2 for what the user can mend in the command, 1 for a failure, None for a bug."""
    from nas.training import Interrupted

    if isinstance(error, Interrupted):
        return 130
    if isinstance(error, ValueError):
        return 2
    if isinstance(error, OSError | RuntimeError):
        return 1
    return None


def _fail(message: str, code: int) -> None:
    print(with_urls(message if code == 130 else f"error: {message}"), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
