"""`nas push`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from nas.cli_read import Json
from nas.terminal import next_step, print_json, quoted


def push(
    folder: Annotated[Path, typer.Argument(help="Folder that `nas export` wrote.")],
    to: Annotated[str, typer.Option("--to", metavar="ORG/NAME", help="Model repository; made where there is none.")],
    as_json: Json = False,
) -> None:
    """Upload an exported model, with certificate and card, to the Hugging Face Hub."""
    from nas.pushing import push as push_model

    pushed = push_model(folder, to)
    if as_json:
        print_json(asdict(pushed))
    else:
        print(f"{len(pushed.files)} files are at {pushed.url}: {', '.join(pushed.files)}")
        next_step(f"hf download {quoted(pushed.repo)} --local-dir {quoted(folder.resolve().name)}")
