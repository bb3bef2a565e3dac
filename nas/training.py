"""`train`: from a data set to a run folder with a trained supernet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.run import DataOptions, Run, RunError
from nas.spaces import SpaceSource, resolve
from supernet.recipe import TrainConfig

if TYPE_CHECKING:
    from supernet.data import ImageData

log = logging.getLogger(__name__)

OnRecord = Callable[[dict[str, Any]], None]


class Interrupted(Exception):  # noqa: N818 - not an error: the work done is kept
    """A run or a search was asked to stop and has saved its state; the message says how to go on."""


def train(
    space: str | SpaceSource | None,
    data: str | None,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    image_size: int | None = None,
    skip_corrupt: bool | None = None,
    download: bool = False,
    on_start: Callable[[int, int], None] = lambda step, total: None,
    on_record: OnRecord = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    **recipe: Any,
) -> Run:
    """Trains the supernet of `space` on `data` into the folder `out`; returns the finished run.

    space: a name in the catalog, the path of a YAML file, or a `NetworkSpace`. data: such as "cifar10:DIR", see
    `supernet.datasets`. recipe: fields of `supernet.train.TrainConfig`.
    resume: continue the run in `out`; whatever else is given must then be what it was started with.
    on_start: called once with the step reached so far and the number of steps. on_record: every metric record.
    should_stop: polled after every step; True ends the call with `Interrupted`, after a checkpoint.
    Raises ValueError for a bad name or value, RunError for a folder in use, DataError for unusable images, and
    TrainingError when the loss is not finite or the run cannot be resumed.
    """
    if resume:
        run = Run.open(out)
        _check_resumed(run, space, data, {"image_size": image_size, "skip_corrupt": skip_corrupt}, recipe)
        images = load_data(run, download)
    else:
        run, images = _create(space, data, out, device, image_size, bool(skip_corrupt), download, recipe)

    from supernet import checkpoint
    from supernet.model import Supernet
    from supernet.train import Hooks, Trainer, fit

    config = TrainConfig(**run.recipe)
    _seed_weights(config.seed)
    trainer = Trainer(Supernet(run.space), images, config, device)
    if resume and checkpoint.exists(run.checkpoint):
        trainer.restore(run.checkpoint)
    on_start(trainer.step, trainer.total_steps)
    if not fit(trainer, run.checkpoint, run.metrics, Hooks(on_record, should_stop)):
        raise Interrupted(
            f"stopped at step {trainer.step} of {trainer.total_steps}; continue with: nas train -o {run.path} --resume"
        )
    return run


def load_data(run: Run, download: bool = False) -> ImageData:
    """The run's images, split as they were for its training."""
    return _prepare(run.data, run.recipe["seed"], download)


def _create(
    space: str | SpaceSource | None,
    data: str | None,
    out: str | Path,
    device: str,
    image_size: int | None,
    skip_corrupt: bool,
    download: bool,
    recipe: Mapping[str, Any],
) -> tuple[Run, ImageData]:
    if space is None or data is None:
        raise ValueError("a new run needs a space and a data set: --space and --data")
    source = resolve(space)
    config = TrainConfig(**recipe)
    options = DataOptions(data, image_size or source.image_size, skip_corrupt)
    if Path(out).is_dir() and any(Path(out).iterdir()):
        raise RunError(f"the folder {out} is not empty; continue that run with --resume, or name another folder")
    from supernet.train import resolve_device

    resolve_device(device)
    images = _prepare(options, config.seed, download)
    network = source.build(images.in_channels, images.image_size, images.num_classes)
    return Run.create(out, network, options, asdict(config), list(images.classes)), images


def _prepare(options: DataOptions, seed: int, download: bool) -> ImageData:
    from supernet import datasets
    from supernet.data import prepare

    raw = datasets.load(
        options.spec, image_size=options.image_size, download=download, skip_corrupt=options.skip_corrupt
    )
    if raw.skipped:
        log.warning("%d corrupt images of %s were left out", raw.skipped, options.spec)
    return prepare(raw, seed)


def _seed_weights(seed: int) -> None:
    import torch

    torch.manual_seed(seed)


def _check_resumed(
    run: Run,
    space: str | SpaceSource | None,
    data: str | None,
    options: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> None:
    """Refuses settings that are given again and differ from the run's."""
    started = run.description["data"] | run.recipe
    given = {"spec": data, **options, **recipe}
    differs = [f"{name} was {started[name]!r} and is now {v!r}" for name, v in _given(given) if started[name] != v]
    if space is not None:
        network = resolve(space).build(run.space.in_channels, run.space.image_size, run.space.num_classes)
        if network.to_dict() != run.space.to_dict():
            differs.append(f"space was {run.space.name!r} and is now {network.name!r} or has other choices")
    if differs:
        raise RunError(f"cannot resume {run.path}: {'; '.join(differs)}")


def _given(values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    return ((name, value) for name, value in values.items() if value is not None)
