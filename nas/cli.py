"""The `nas` command. It parses and prints; the work is done by documented functions that it imports when needed."""

from __future__ import annotations

import inspect
import io
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from nas.cli_export import export
from nas.cli_finetune import finetune
from nas.cli_jobs import jobs, launch_command, logs, stop
from nas.cli_profile import profile
from nas.cli_push import push
from nas.cli_read import (
    Json,
    MaxLatency,
    MaxMacs,
    MaxMemory,
    MaxParams,
    MaxWeights,
    MinMacs,
    MinParams,
    MinTop1,
    RunFolder,
    StudyName,
    compare,
    limits_of,
    pareto,
    query,
    studies,
)
from nas.cli_resume import end_search, resume
from nas.cli_serve import serve
from nas.cli_train import train
from nas.cli_trust import trust
from nas.terminal import UrlFormatter, with_urls
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
app.command()(finetune)
app.command()(profile)


@app.command()
def search(
    run: RunFolder,
    study_name: StudyName = "default",
    strategy: Annotated[
        str,
        typer.Option(help="predictor, evolution, local, coarse_to_fine, random, or Optuna's tpe, gp, nsga2, nsga3."),
    ] = "predictor",
    n_trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of an earlier call included.")] = 100,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Ray workers; 0 evaluates in this process.", show_default="one a CPU")
    ] = None,
    max_macs: MaxMacs = None,
    min_macs: MinMacs = None,
    max_params: MaxParams = None,
    min_params: MinParams = None,
    max_latency_ms: MaxLatency = None,
    max_memory: MaxMemory = None,
    max_weight_bytes: MaxWeights = None,
    min_top1: MinTop1 = None,
    profile: Annotated[
        list[Path] | None, typer.Option(help="Device profile of `nas profile`; repeat it for several devices.")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            help="top1, macs, params, latency_ms, peak_memory or weight_bytes; repeat it.", show_default="top1, macs"
        ),
    ] = None,
    score: Annotated[str, typer.Option(help="inherited, or calibrated by `nas trust`.")] = "inherited",
    evaluator: Annotated[
        str | None,
        typer.Option(
            help="fast, or reference: one by one. They answer alike.", show_default="fast; reference on a GPU"
        ),
    ] = None,
    worker_memory: Annotated[
        str | None, typer.Option(help="Bytes for what a worker evaluates at a time, such as 512M.", show_default="1G")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides every proposal.")] = 0,
    address: Annotated[str, typer.Option(envvar="RAY_ADDRESS", help="Ray: local, auto or host:6379.")] = "local",
    num_cpus: Annotated[float, typer.Option(min=0, help="CPUs that Ray reserves for a worker.")] = 1,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs for a worker, such as 0.25; they score on it.")] = 0,
    lookahead: Annotated[
        int, typer.Option(min=1, help="Trial n is proposed from trials 0 to n - lookahead; best 1.5 x workers or more.")
    ] = 8,
    evaluation_timeout: Annotated[
        float | None, typer.Option(help="Seconds after which an evaluation hangs.", show_default="none")
    ] = None,
) -> None:
    """Search the subnets of a run; the same command again continues the study."""
    from nas.run import Run
    from nas.searching import search_run

    opened = Run.open(run)
    settings = _search_settings(
        study_name=study_name, strategy=strategy, n_trials=n_trials, num_workers=num_workers, objective=objective,
        min_macs=min_macs, max_macs=max_macs, min_params=min_params, max_params=max_params,
        max_latency_ms=max_latency_ms, max_memory=max_memory, max_weight_bytes=max_weight_bytes, min_top1=min_top1,
        profile=profile, score=score, seed=seed, num_cpus=num_cpus, num_gpus=num_gpus, lookahead=lookahead,
        evaluation_timeout=evaluation_timeout, evaluator=evaluator, worker_memory=worker_memory,
    )  # fmt: skip
    from nas.progress import SearchProgress
    from nas.signals import stop_requests

    with stop_requests(_say_stopping) as should_stop, SearchProgress(_stderr(), n_trials) as progress:
        study = search_run(opened, **settings, address=address, on_trial=progress.trial, stop=should_stop)
    end_search(opened, study_name, study, n_trials)


def _search_settings(
    objective: list[str] | None, profile: list[Path] | None, worker_memory: str | None, **options: Any
) -> dict[str, Any]:
    """The options of `nas search` as `search_run` takes them.

    Raises ValueError for what is no quantity, ProfileError for a file that is no profile.
    """
    from nas.profiles import Profile
    from nas.quantities import parse_quantity
    from nas.searching import DEFAULT_OBJECTIVES

    limits = limits_of(**{name: options.pop(name) for name in inspect.signature(limits_of).parameters})
    return {
        **options,
        "worker_memory": None if worker_memory is None else parse_quantity(worker_memory),
        "limits": limits,
        "profiles": [Profile.read(file) for file in profile or []],
        "objectives": objective or DEFAULT_OBJECTIVES,
    }


app.command("launch")(launch_command(search, _search_settings))
for command in (jobs, logs, stop, resume, studies, pareto, query, compare, push, serve):
    app.command()(command)


app.command()(export)


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
        if code == 130 and _is_other_rank():
            sys.exit(code)  # all ranks have stopped, and rank 0 says how to go on
        _fail(_said(error), code)


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


def _is_other_rank() -> bool:
    from nas.training import is_main_process

    return not is_main_process()


def _said(error: Exception) -> str:
    """What it says; of the system's errors without their number."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _fail(message: str, code: int) -> None:
    print(with_urls(message if code == 130 else f"error: {message}"), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
