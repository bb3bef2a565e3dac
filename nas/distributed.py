"""`nas train --address …`: the training of `nas.training`, on the workers of a Ray cluster."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.continuing import continued
from nas.run import Run
from nas.spaces import SpaceSource
from nas.training import Interrupted, OnRecord, check_new, load_data, make_run, train

if TYPE_CHECKING:
    from workers.ray_train import Channel


def train_on_ray(
    space: str | SpaceSource | None,
    data: str | None,
    out: str | Path,
    *,
    num_workers: int,
    address: str = "local",
    resume: bool = False,
    device: str = "auto",
    image_size: int | None = None,
    skip_corrupt: bool | None = None,
    download: bool = False,
    init_from: str | Path | None = None,
    on_start: Callable[[int, int], None] = lambda step, total: None,
    on_record: OnRecord = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    **recipe: Any,
) -> Run:
    """What `nas.training.train` does, by `num_workers` Ray Train workers that share each batch equally.

    Each worker takes one CPU, and one GPU where `device` is "cuda" or is "auto" and there are enough. `out` and the
    data set must be at the same place for the driver and all workers: on several machines, on a shared file system.
    Of an `out` that is a URL, that goes for its mirror (`nas.remote`).
    When a worker dies, all go on from the last checkpoint, up to three times. address: as in `workers.ray_train`.
    Raises what `train` does, ValueError for "cuda" on a machine with fewer GPUs, ConnectionError when no cluster
    answers, and RayTrainError when workers keep dying.
    """
    from supernet.checkpoint import CheckpointError
    from supernet.distributed import RankError, Ranks
    from supernet.fit import LAST_GOOD
    from supernet.train import TrainingError, require_device_name
    from workers.ray_train import NoWorkerError, connected, run_on_ray

    require_device_name(device)  # the driver need not have what its workers have
    ranks, started = Ranks(0, num_workers), False
    if resume:
        run = Run.open(out)
        options = {"image_size": image_size, "skip_corrupt": skip_corrupt, "init_from": init_from}
        run = continued(run, space, data, options, recipe)
        if download:
            load_data(run, download)  # once, before all workers look for it
    else:
        new = check_new(space, data, out, image_size, bool(skip_corrupt), recipe)

    def receive(message: tuple[str, Any]) -> None:
        nonlocal started
        kind, value = message
        if kind == "record":
            on_record(value)
        elif not started:  # workers that were restarted start once more
            started = True
            on_start(*value)

    fatal = (ValueError, OSError, TrainingError, CheckpointError, RankError)
    with connected(address, num_workers, device):  # before the folder is made
        if not resume:
            run = make_run(new, out, ranks, init_from, download)
        places = (run.data.spec, run.recipe.teacher)  # wherever they were moved
        work = partial(_work, str(run.path.resolve()), *places)
        with run.publishing(run.path / "training"):  # workers see the folder on this machine alone
            for name in (run.checkpoint.name, LAST_GOOD):
                run.fetch(name)
            try:
                stopped = run_on_ray(work, num_workers, run.path, address, device, fatal, receive, should_stop)
            except NoWorkerError as error:
                stopped = f"{error}; continue with: nas train -o {shlex.quote(str(run))} --resume"
    if stopped:
        raise Interrupted(f"{stopped.replace(str(run.path), str(run))} --num-workers {num_workers}")
    return run


def _work(out: str, data: str, teacher: str | None, channel: Channel, device: str) -> str | None:
    """One worker's part: the training, continued from where the folder's checkpoint is; why it stopped, if it did."""
    try:
        train(
            None,
            data,
            out,
            resume=True,
            device=device,
            on_start=lambda step, total: channel.send(("start", (step, total))),
            on_record=lambda record: channel.send(("record", record)),
            should_stop=channel.should_stop,
            teacher=teacher,
        )
    except Interrupted as stop:
        return str(stop)
    return None
