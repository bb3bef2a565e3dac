"""`nas train`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.terminal import drawn, next_step, quoted, say_stopping, stderr, with_urls

if TYPE_CHECKING:
    from nas.run import Run

_PARTS = "Part of the recipe"


def train(
    out: Annotated[str, typer.Option("-o", "--out", help="Run folder, or URL, to make, or to continue with --resume.")],
    space: Annotated[
        str | None, typer.Option(help="Name of a space (`nas spaces`), a .yaml file, or FILE.py:FUNCTION.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10[:ROOT], cifar100[:ROOT], fashion_mnist[:ROOT], folder:DIR, npz:FILE, or a function, "
            "FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.", show_default="100")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", show_default="128")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default="0.1")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every random choice.", show_default="0")] = None,
    step_plan: Annotated[
        str | None,
        typer.Option(
            help="Subnets of a step: sandwich, single_path, sorted, chunked, matched_min or strict_fair.",
            show_default="single_path", rich_help_panel=_PARTS,
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="How they are drawn: uniform, macs_weighted, pool_weighted, macs_binned, best_up, worst_up, "
            "adjacent_band or shifted.",
            show_default="uniform", rich_help_panel=_PARTS,
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="How choices open up: none, delayed_epsilon or progressive.",
            show_default="none", rich_help_panel=_PARTS,
        ),
    ] = None,
    distillation: Annotated[
        str | None,
        typer.Option(
            help="Loss of a taught subnet: soft_ce, adaptive_alpha, ce_kd or none.",
            show_default="soft_ce with a teacher", rich_help_panel=_PARTS,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Folder of an exported model, or torchvision:NAME[:WEIGHTS.safetensors].",
            show_default="the largest subnet, if trained", rich_help_panel=_PARTS,
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(help="Weight sets, routed on the pooling positions.", show_default="1", rich_help_panel=_PARTS),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Any other setting of the recipe, such as mixup=0.2; repeat it.",
            rich_help_panel=_PARTS,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this many pixels a side.", show_default="the data's own")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch a missing torchvision data set.")] = False,
    skip_corrupt: Annotated[
        bool | None, typer.Option("--skip-corrupt", help="Leave out unreadable images and count them.")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(help="Folder of an exported model of the same space: its weights are where training starts."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Train on this many Ray workers.", show_default="in this process")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Their Ray: local, auto or host:6379.", show_default="RAY_ADDRESS, or else local"),
    ] = None,
) -> None:  # fmt: skip
    """Train the supernet of a space on a data set."""
    from nas.progress import TrainingProgress
    from nas.run import folder_of
    from nas.signals import stop_requests
    from nas.training import is_main_process

    logging.getLogger("nas.training").setLevel(logging.INFO)  # how the images are shared out
    if not is_main_process():
        logging.disable(logging.WARNING)  # rank 0 says it
    named = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed, "step_plan": step_plan, "sampler": sampler,
        "schedule": schedule, "distillation": distillation, "teacher": teacher, "members": members,
    }  # fmt: skip
    settings = settings_of(recipe or [], {name: value for name, value in named.items() if value is not None})
    console, folder = stderr(), folder_of(out)
    say = [say_stopping] if is_main_process() else []
    with stop_requests(*say) as should_stop, TrainingProgress(console, folder / "tensorboard") as progress:
        run = _training(num_workers, address)(
            space, data, out, resume=resume, device=device, image_size=image_size, skip_corrupt=skip_corrupt,
            download=download, init_from=init_from, on_start=progress.start, on_record=progress.record,
            should_stop=should_stop, **settings,
        )  # fmt: skip
    if not is_main_process():  # of the ranks that torchrun started, one is enough to show the result
        return
    from nas.plots import save_training
    from nas.quantities import show_quantity
    from search_spaces import cost

    picture = run.path / "training.png"
    with run.publishing():
        written = drawn(picture, lambda: save_training(run.metrics, picture, f"{run.space.name} on {run.data.name}"))
    if written:
        print(f"picture: {with_urls(str(picture))}")
    smallest, largest = (cost.macs(run.space, arch) for arch in (run.space.smallest(), run.space.largest()))
    next_step(f"nas search {quoted(run)} --max-macs {show_quantity(max(largest // 8, 2 * smallest))}")


def _training(num_workers: int | None, address: str | None) -> Callable[..., Run]:
    """The function that trains: in this process, or on Ray workers."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if num_workers is not None and processes != "1":
        raise ValueError(
            f"--num-workers {num_workers} starts workers on Ray, but this is one of {processes} processes that "
            "torchrun started; leave out one of the two"
        )
    if num_workers is None:
        if address is not None:
            raise ValueError(f"--address {address} needs --num-workers: how many Ray workers train")
        from nas.training import train

        return train
    from nas.distributed import train_on_ray

    return partial(train_on_ray, num_workers=num_workers, address=address or os.environ.get("RAY_ADDRESS") or "local")


def settings_of(texts: list[str], named: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe from options and from texts NAME=VALUE, read by the type of the field's default."""
    from dataclasses import fields

    from supernet.recipe import TrainConfig

    defaults = {field.name: field.default for field in fields(TrainConfig)}
    settings = dict(named)
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in defaults:
            raise ValueError(f"--recipe {text!r} is not NAME=VALUE of: {', '.join(defaults)}")
        if name in settings:
            raise ValueError(f"--recipe {text!r}: {name} was given already, as {settings[name]!r}")
        settings[name] = _parsed(name, value, defaults[name])
    return settings


def _parsed(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise ValueError(f"--recipe {name} is {text!r}; valid: true, false")
        return text == "true"
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            kind = "a whole number" if isinstance(default, int) else "a number"
            raise ValueError(f"--recipe {name} is {text!r}; it must be {kind}") from None
    return text
