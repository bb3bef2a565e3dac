"""What the commands say to people: JSON on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value))


def drawn(path: Path, draw: Callable[[], None]) -> Path | None:
    """`path` after `draw` wrote the picture there; None, and a warning, where it could not: results matter more."""
    try:
        draw()
    except OSError as error:
        logging.getLogger(__name__).warning("the picture could not be written: %s", error)
        return None
    return path


def quoted(path: Path) -> str:
    """The path as a shell takes it."""
    return shlex.quote(str(path))


def next_step(command: str) -> None:
    """What to run next."""
    print(f"next: {command}", file=sys.stderr)


def say_stopping() -> None:
    """The answer to the first Ctrl-C."""
    print("\nstopping after this step; once more to stop at once", file=sys.stderr)


def stderr() -> Any:
    """A console for progress and messages."""
    from rich.console import Console

    return Console(stderr=True)
