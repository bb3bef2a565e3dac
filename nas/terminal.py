"""What the commands say to people: JSON on stdout, everything else on stderr."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value))


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
