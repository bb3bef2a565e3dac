"""`train`: from a data set to a run folder with a trained supernet."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas.continuing import continued
from nas.data_options import DataOptions
from nas.outside import absolute, absolute_teacher, warn_of_splits
from nas.run import Run, RunError, require_new, writing
from nas.spaces import Source, SpaceSource, resolve
from search_spaces.compare import differences
from supernet.callables import FunctionError, is_function
from supernet.recipe import TrainConfig

if TYPE_CHECKING:
    from search_spaces.network import NetworkSpace
    from supernet.data import ImageData
    from supernet.distributed import Ranks
    from supernet.mixture import SharedWeights
    from supernet.train import Trainer

log = logging.getLogger(__name__)

OnRecord = Callable[[dict[str, Any]], None]
New = tuple[Source, DataOptions, TrainConfig]


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
    init_from: str | Path | None = None,
    on_start: Callable[[int, int], None] = lambda step, total: None,
    on_record: OnRecord = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    **recipe: Any,
) -> Run:
    """Trains the supernet of `space` on `data` into the folder, or URL, `out`; returns the finished run.

    space: a name in the catalog, the path of a YAML file, a function such as "my.py:make" (`nas.spaces`), or a
    `NetworkSpace`. data: such as "cifar10:DIR", or a function likewise, see `supernet.datasets`. recipe: fields of
    `supernet.recipe.TrainConfig`.
    init_from: folder of an exported model of the same space, of these or other classes: the supernet starts with its
    weights (`supernet.initial`).
    resume: continue the run in `out`; whatever else is given must then be what it was started with. The data set and
    a teacher may be given at another place; the run is there from then on, once they are found to be the same.
    on_start: called once with the step reached so far and the number of steps. on_record: every metric record.
    should_stop: polled after every step; True ends the call with `Interrupted`, after a checkpoint.
    Raises ValueError for a bad name or value, RunError for a folder in use, DataError for unusable images, and
    TrainingError when the loss is not finite or the run cannot be resumed.
    Where torchrun or Ray Train started this process among others, they train together: rank 0 makes the folder, which
    all must see, writes and calls `on_start` and `on_record`.
    """
    new = saved = None
    moved = False
    if not resume:  # on every rank, so that none waits for one that has ended with an error
        new = check_new(space, data, out, image_size, bool(skip_corrupt), recipe)

    from supernet import checkpoint
    from supernet.distributed import joined
    from supernet.fit import LAST_GOOD, Hooks, fit

    with joined(device) as ranks:
        if new and ranks.is_main:
            trainer, start = _new_trainer(*new, init_from, device, download, ranks)
            classes = list(trainer.data.classes)
            run = Run.create(out, trainer.supernet.space, new[1], trainer.config, classes, start)
        ranks.wait()  # for the folder
        if not (new and ranks.is_main):
            run = Run.open(out)
            if resume:
                options = {"image_size": image_size, "skip_corrupt": skip_corrupt, "init_from": init_from}
                run, begun = continued(run, space, data, options, recipe), run
                moved = run is not begun
            # before its first checkpoint a run has the state it started from, which knows its images
            states = (run.checkpoint, run.fetch(LAST_GOOD)) if resume else ()
            saved = next((path for path in states if checkpoint.exists(path)), None)
            if moved and not saved:
                raise RunError(f"{run} has no state yet that knows its data and teacher; start a new one elsewhere")
            trainer, _ = _trainer(
                run.space, load_data(run, download), run.recipe, None if saved else run.init_from, device, ranks
            )
        with writing(run) if ranks.is_main else nullcontext():
            if saved:
                trainer.restore(saved)
            if ranks.is_main:
                if moved:  # and the same, or it would not have been restored
                    run.write_description()
                    taught = f", its teacher {run.recipe.teacher}" if run.recipe.teacher else ""
                    log.info("from now on the data set of %s is %s%s", run, run.data.spec, taught)
                on_start(trainer.step, trainer.total_steps)
            done = fit(trainer, run.checkpoint, run.metrics, Hooks(on_record, should_stop))
            if done and ranks.is_main and (concern := trainer.spikes.concern(trainer.config.lr)):
                log.warning(concern)
    if not done:
        raise Interrupted(
            f"stopped at step {trainer.step} of {trainer.total_steps}; "
            f"continue with: {_program()} train -o {shlex.quote(str(run))} --resume"
        )
    return run


def make_run(new: New, out: str | Path, ranks: Ranks, init_from: str | Path | None, download: bool) -> Run:
    """Makes the folder of a run of these settings that `ranks` will train elsewhere; raises what `train` does."""
    trainer, start = _new_trainer(*new, init_from, "cpu", download, ranks)
    return Run.create(out, trainer.supernet.space, new[1], trainer.config, list(trainer.data.classes), start)


def is_main_process() -> bool:
    """Whether this is rank 0 of a distributed run, which writes files and shows progress, or no part of any."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def _program() -> str:
    """What starts `nas` as this process was started."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return "nas"
    return f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} -m nas.cli"


def load_data(run: Run, download: bool = False) -> ImageData:
    """The run's images, split as they were for its training.

    Raises DataError where they cannot be read; where their place is gone it says how to name another.
    """
    from supernet.data import DataError

    try:
        return _prepare(run.data, run.recipe.seed, download)
    except (DataError, FunctionError) as error:
        if run.data.place is None or run.data.place.exists():
            raise
        name = run.data.name
        place = f"PLACE/{name}" if is_function(run.data.spec) else f"{name}:PLACE"
        again = f"nas train -o {shlex.quote(str(run))} --resume --data {place}"
        raise DataError(f"{error}; if it was moved, say where to: {again}") from None


def load_trained(run: Run) -> tuple[SharedWeights, dict[str, Any], ImageData]:
    """The run's supernet, its checkpoint's state, and the very images it was trained with.

    Raises CheckpointError for a checkpoint that cannot be read, and RunError for one of another space or recipe, or
    when the data set is no longer what it was: its scores would be compared with ones of other images.
    """
    from supernet import checkpoint
    from supernet.data import fingerprint
    from supernet.snapshot import recipe_changes
    from supernet.train import load_supernet

    if not checkpoint.exists(run.checkpoint):
        raise checkpoint.CheckpointError(
            f"{run} has no checkpoint {run.checkpoint}; train it with: nas train -o {shlex.quote(str(run))} --resume"
        )
    supernet, state = load_supernet(run.checkpoint)
    if supernet.space != run.space:
        found = differences(supernet.space, run.space)
        raise RunError(
            f"{run.checkpoint} is a checkpoint of another space: "
            + "; ".join(f"its {name} is {theirs}, the run's {ours}" for name, theirs, ours in found)
        )
    recipe = asdict(run.recipe)
    if differs := recipe_changes({**recipe, **state["recipe"]}, recipe):  # one of an older version may lack some
        raise RunError(f"{run} is not as it was trained: {'; '.join(differs)}")
    if state["step"] < state["total_steps"]:
        log.warning(
            "the training of %s stands at step %d of %d; continue it with: nas train -o %s --resume",
            run, state["step"], state["total_steps"], shlex.quote(str(run)),
        )  # fmt: skip
    images = load_data(run)
    if fingerprint(images) != state["data"]:
        raise RunError(f"the data set {run.data.spec} is not what {run} was trained on: it has changed since")
    return supernet, state, images


def check_new(
    space: str | SpaceSource | None,
    data: str | None,
    out: str | Path,
    image_size: int | None,
    skip_corrupt: bool,
    recipe: Mapping[str, Any],
) -> New:
    """The settings of a new run, checked as far as that is cheap; arguments and errors are those of `train`."""
    if space is None or data is None:
        raise ValueError("a new run needs a space and a data set: --space and --data")
    source = resolve(space)
    if recipe.get("teacher"):
        recipe = {**recipe, "teacher": absolute_teacher(recipe["teacher"])}
    config = TrainConfig(**recipe)
    options = DataOptions(data, source.image_size if image_size is None else image_size, skip_corrupt)
    require_new(out)
    return source, options, config


def _new_trainer(
    source: Source,
    options: DataOptions,
    config: TrainConfig,
    init_from: str | Path | None,
    device: str,
    download: bool,
    ranks: Ranks,
) -> tuple[Trainer, dict[str, Any] | None]:
    """Everything else that settings can make fail, before the run folder is made."""
    from supernet import balance
    from supernet.streaming import ImageFiles
    from supernet.train import resolve_device

    resolve_device(device)
    start = None if init_from is None else {"folder": absolute(init_from)}
    images = _prepare(options, config.seed, download)
    log.info("%s: %s", options.spec, balance.summary(images))
    for concern in balance.concerns(images):
        log.warning(concern)
    if isinstance(files := cast(object, images.test.images), ImageFiles):
        log.info("reading the %d test images once, which stay in their files: export will need them all", len(files))
        files.check()
    network = source.build(images.in_channels, images.image_size, images.num_classes)
    if not network.num_pools:
        for setting in config.about_pools():
            log.warning("%s has no effect: space %r places no pools", setting, network.name)
    for model in (start["folder"] if start else None, config.teacher):
        warn_of_splits(model, options, config.seed)
    return _trainer(network, images, config, start, device, ranks)


def _trainer(
    space: NetworkSpace,
    images: ImageData,
    config: TrainConfig,
    init_from: Mapping[str, Any] | None,
    device: str,
    ranks: Ranks,
) -> tuple[Trainer, dict[str, Any] | None]:
    """A trainer at step 0, and what its weights started from, which must be all that `init_from` says of it."""
    import torch

    from supernet.initial import initialise
    from supernet.mixture import make_supernet
    from supernet.teacher import load_teacher
    from supernet.train import Trainer

    _check_memory(space, config.members)
    teacher = load_teacher(config.teacher, images) if config.teacher else None
    torch.manual_seed(config.seed)  # the initial weights
    weights, start = make_supernet(space, config.members), None
    if init_from:
        start = initialise(weights, Path(init_from["folder"]), images.classes)
        if any(start[name] != value for name, value in init_from.items()):
            raise RunError(f"the model in {start['folder']} is no longer the one that the run was to start from")
        log.info("the weights start from %s; its classifier is %s", start["folder"], start["classifier"])
    return Trainer(weights, images, config, device, teacher, ranks), start


def _check_memory(space: NetworkSpace, members: int) -> None:
    """Raises ValueError when weights and gradients alone take more than the machine's memory.

    A zero too many in a space is then said at once, where it would otherwise swap for minutes and be killed.
    """
    import torch

    from supernet.mixture import make_supernet

    with torch.device("meta"):
        weights = make_supernet(space, members)
    needed = 2 * sum(weight.nbytes for weight in weights.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ValueError(
            f"space {space.name!r} needs {needed / 2**30:,.0f} GiB for its weights and their gradients; this "
            f"machine has {memory / 2**30:,.0f} GiB: fewer or narrower blocks, or fewer members, would fit"
        )


def _prepare(options: DataOptions, seed: int, download: bool) -> ImageData:
    from supernet import datasets
    from supernet.data import prepare

    raw = datasets.load(
        options.spec, image_size=options.image_size, download=download, skip_corrupt=options.skip_corrupt
    )
    if raw.skipped:
        log.warning("%d corrupt images of %s were left out", raw.skipped, options.spec)
    return prepare(raw, seed)
