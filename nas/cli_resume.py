"""`nas resume`, and how `nas search` and it end."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from nas.cli_read import RunFolder, StudyName, show_study
from nas.terminal import say_stopping, stderr


def resume(
    run: RunFolder,
    study_name: StudyName = "default",
    n_trials: Annotated[
        int | None, typer.Option(min=1, help="Trials in all.", show_default="as last asked for")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Ray workers; 0 evaluates in this process.", show_default="one a CPU")
    ] = None,
    num_cpus: Annotated[float, typer.Option(min=0, help="CPUs that Ray reserves for a worker.")] = 1,
    num_gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs for a worker.", show_default="1 for a study scored on GPUs")
    ] = None,
    evaluation_timeout: Annotated[
        float | None, typer.Option(help="Seconds after which an evaluation hangs.", show_default="none")
    ] = None,
    address: Annotated[str, typer.Option(envvar="RAY_ADDRESS", help="Ray: local, auto or host:6379.")] = "local",
) -> None:
    """Continue a study with the settings that it records: strategy, seed, limits, objectives, score."""
    from nas.progress import SearchProgress
    from nas.resuming import n_trials_of, resume_run
    from nas.run import Run
    from nas.searching import read_run_study
    from nas.signals import stop_requests

    opened = Run.open(run)
    stored = read_run_study(opened, study_name)
    total = n_trials_of(stored) if n_trials is None else n_trials
    if (done := len(stored.trials)) >= total:
        print(f"study {study_name!r} is finished with {done} trials; extend it with --n-trials N", file=sys.stderr)
    with stop_requests(say_stopping) as stop, SearchProgress(stderr(), total) as progress:
        study = resume_run(
            opened, study_name, n_trials=total, num_workers=num_workers, num_cpus=num_cpus, num_gpus=num_gpus,
            evaluation_timeout=evaluation_timeout, address=address,
            on_trial=progress.trial, stop=stop,
        )  # fmt: skip
    end_search(opened, study_name, study, total)


def end_search(run: Any, study_name: str, study: Any, n_trials: int) -> None:
    """What a search came to. Raises Interrupted for one that was stopped before it had its `n_trials`."""
    if study.outcome == "stopped":
        from nas.training import Interrupted

        raise Interrupted(f"stopped after {len(study.trials)} of {n_trials} trials; the same command continues")
    if study.outcome == "exhausted":
        print(f"the space has no further architecture within the limits: {len(study.trials)} trials", file=sys.stderr)
    if any(name.startswith("latency_ms") for trial in study.front() for name in trial.metrics):
        from nas.front_latency import measure_front

        for reason in measure_front(run, study_name, study):
            print(f"the front was not measured: {reason}", file=sys.stderr)
    show_study(run, study_name, study)
