"""`nas demo`: the whole chain on scikit-learn's handwritten digits, which need no download."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from nas import tables
from nas.plots import save_front, save_training
from nas.progress import SearchProgress, TrainingProgress
from nas.run import require_empty
from nas.training import Interrupted
from search_spaces.arch import Arch

N_TRIALS, NUM_WORKERS, MAX_MACS = 80, 2, 3e6
# strong weight decay and dropout: there are only 1,151 training images. The settings were chosen with the sandwich rule
RECIPE: dict[str, Any] = {
    "step_plan": "sandwich", "epochs": 60, "batch_size": 64, "lr": 0.2, "weight_decay": 2e-3, "dropout": 0.2,
}  # fmt: skip


class DemoError(RuntimeError):
    """The exported model did not reproduce the accuracy that was reported for it."""


def run_demo(out: Path, console: Console, should_stop: Callable[[], bool]) -> None:
    """Trains, searches on a local Ray with two workers, exports and checks, all below the folder `out`.

    Raises RunError when `out` is not empty, Interrupted when `should_stop` answers True, and DemoError when the model,
    run by a process that cannot import this project, does not get as many test images right as was reported.
    """
    import torch

    from nas.export import export_subnet
    from nas.export.table import print_certificate
    from nas.searching import search_run
    from nas.training import train

    require_empty(out, "remove it, or name another folder with -o")
    torch.set_num_threads(1)  # as fast as two for images this small, and the same result on any number of cores
    started = time.monotonic()

    def say(text: str) -> None:
        if should_stop():
            raise Interrupted(f"stopped; what was made is in {out}: remove it to start again with nas demo -o {out}")
        console.print(f"[bold]{text}[/bold]", highlight=False)

    say("1/4  training the supernet of `digits`: every subnet shares its weights")
    with TrainingProgress(console, out / "run" / "tensorboard", quiet=True) as progress:
        run = train(
            "digits", "digits", out / "run", on_start=progress.start, on_record=progress.record,
            should_stop=should_stop, **RECIPE,
        )  # fmt: skip
    save_training(run.metrics, out / "training.png", "digits")

    say(f"2/4  searching {N_TRIALS} of its {run.space.size()} subnets under 3M MACs, on {NUM_WORKERS} Ray workers")
    with SearchProgress(console, N_TRIALS) as bar:
        study = search_run(
            run, n_trials=N_TRIALS, limits={"macs": MAX_MACS}, num_workers=NUM_WORKERS,
            on_trial=bar.trial, stop=should_stop,
        )  # fmt: skip
    say("3/4  exporting the best one as a standalone model")
    assert study.best is not None  # nothing above the limit is evaluated
    tables.print_front(study)
    save_front(study, out / "front.png", f"digits: {len(study.trials)} subnets of one supernet")

    certificate = export_subnet(run, cast(Arch, study.best.arch), out / "model")
    print_certificate(certificate)

    say("4/4  running it in a process that cannot import this project")
    correct, total = standalone_correct(out / "model")
    tables.console.print(
        f"standalone test top-1: {correct / total:.2%} ({correct} of {total}); reported: {certificate.model.accuracy}",
        highlight=False,
    )
    if (correct, total) != (certificate.model.correct, certificate.model.total):
        raise DemoError(f"{correct} of {total} correct standalone, {certificate.model.accuracy} reported")
    tables.console.print(
        f"pictures: {out / 'front.png'} {out / 'training.png'}; model: {out / 'model'}", soft_wrap=True
    )
    console.print(f"done in {time.monotonic() - started:.0f} s", highlight=False)


def standalone_correct(folder: Path) -> tuple[int, int]:
    """Test images of the digits that the exported model gets right in an isolated process, and how many there are."""
    from nas.export.isolated import predict_isolated
    from supernet import datasets

    raw = datasets.load("digits")
    answers = predict_isolated(folder, raw.test_images).argmax(1)
    return int((answers == raw.test_labels).sum()), len(raw.test_labels)
