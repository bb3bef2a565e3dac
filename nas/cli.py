"""The `nas` command. It parses and prints; the work is done by documented functions that it imports when needed."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

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


@app.command()
def train(
    out: Annotated[Path, typer.Option("-o", "--out", help="Run folder to make, or to continue with --resume.")],
    space: Annotated[str | None, typer.Option(help="Name of a space (`nas spaces`), or a .yaml file.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10[:ROOT], cifar100[:ROOT], fashion_mnist[:ROOT], folder:DIR or npz:FILE."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training split.", show_default="30")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", show_default="128")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.", show_default="0.1")] = None,
    seed: Seed = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    image_size: Annotated[
        int | None, typer.Option(help="Resize images to this many pixels a side.", show_default="the data's own")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch a missing torchvision data set.")] = False,
    skip_corrupt: Annotated[
        bool | None, typer.Option("--skip-corrupt", help="Leave out unreadable images and count them.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
) -> None:
    """Train the supernet of a space on a data set."""
    from nas.progress import TrainingProgress
    from nas.signals import stop_requests
    from nas.training import train as run_training

    recipe = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "seed": seed}
    console = _stderr()
    with stop_requests(_say_stopping) as should_stop, TrainingProgress(console, out / "tensorboard") as progress:
        run = run_training(
            space, data, out, resume=resume, device=device, image_size=image_size, skip_corrupt=skip_corrupt,
            download=download, on_start=progress.start, on_record=progress.record, should_stop=should_stop,
            **{name: value for name, value in recipe.items() if value is not None},
        )  # fmt: skip
    _next(f"nas search {run.path} --max-macs 20M")


def main() -> None:
    """Entry point: exit codes 0 done, 1 failed, 2 usage, 130 interrupted."""
    logging.basicConfig(format="%(levelname)s: %(message)s", stream=sys.stderr, level=logging.WARNING)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _fail(str(error), code)


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
    print(message if code == 130 else f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _print_json(value: Any) -> None:
    print(json.dumps(value))


def _next(command: str) -> None:
    print(f"next: {command}", file=sys.stderr)


def _say_stopping() -> None:
    print("\nstopping after this step; once more to stop at once", file=sys.stderr)


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)


if __name__ == "__main__":
    main()
