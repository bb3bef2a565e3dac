"""`nas finetune`, apart from the other commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from nas.terminal import drawn, next_step, print_json, quoted, say_stopping, stderr, with_urls


def finetune(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder of `nas train`, or its URL.")],
    trials: Annotated[str, typer.Option(help="Numbers of trials of the study, such as 3,7,9.")],
    study_name: Annotated[str, typer.Option(help="Name of the study within the run.")] = "default",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of a sample.", show_default="a third of the recipe's")
    ] = None,
    samples: Annotated[int, typer.Option(help="Learning rates and weight decays to try for each trial.")] = 8,
    seed: Annotated[int, typer.Option(help="Decides what is sampled, and the batches.")] = 0,
    num_workers: Annotated[
        int | None, typer.Option(help="Samples under way at a time.", show_default="as Ray has room")
    ] = None,
    num_cpus: Annotated[float, typer.Option(help="CPUs of each.")] = 1,
    num_gpus: Annotated[float, typer.Option(help="GPUs of each; fractions are allowed.")] = 0,
    address: Annotated[str, typer.Option(envvar="RAY_ADDRESS", help="Ray: local, auto or host:6379.")] = "local",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
    ] = False,
) -> None:
    """Train short-listed subnets on from their inherited weights, and keep what is better."""
    from nas.finetune import finetune_run, parse_trials
    from nas.run import Run
    from nas.signals import stop_requests

    opened, numbers = Run.open(run), parse_trials(trials)
    with stop_requests(say_stopping) as should_stop, _Progress(stderr()) as progress:
        report = finetune_run(
            opened, numbers, study_name=study_name, epochs=epochs, samples=samples, seed=seed,
            num_workers=num_workers, num_cpus=num_cpus, num_gpus=num_gpus, address=address,
            on_progress=progress.show, should_stop=should_stop,
        )  # fmt: skip
    from nas.plots import save_finetuning

    picture = opened.path / "finetune" / study_name / "finetune.png"
    title = f"{opened.space.name} on {opened.data.name}: fine-tuned subnets"
    with opened.publishing():
        written = drawn(picture, lambda: save_finetuning(report, picture, title))
    if as_json:
        print_json(report)
        return
    from nas import tables

    tables.print_finetuning(report)
    if written:
        print(f"picture: {with_urls(str(picture))}")
    next_step(_advice(run, study_name, report))


def _advice(run: str, study_name: str, report: Mapping[str, Any]) -> str:
    """The export of the trial with the best weights."""
    best = max(report["trials"], key=lambda row: row["top1"])
    study = "" if study_name == "default" else f" --study-name {study_name}"
    return f"nas export {quoted(run)}{study} --trial {best['trial']} --finetuned -o DIR"


class _Progress:
    """A bar over the epochs of all samples; one that is stopped early counts as done."""

    def __init__(self, console: Any) -> None:
        from nas.progress import bar

        self._bar = bar(console)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar.tasks:
            self._bar.stop()

    def show(self, progress: Mapping[str, Any]) -> None:
        if not self._bar.tasks:
            self._task = self._bar.add_task("fine-tuning", total=progress["total_epochs"], note="")
            self._bar.start()
        note = f"{progress['samples']}/{progress['total_samples']} samples, best gain {progress['gain']:+.2%}"
        self._bar.update(self._task, completed=progress["epochs"], note=note)
