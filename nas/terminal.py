"""What the commands say to people: JSON on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_URLS: dict[str, str] = {}  # of remote runs, by the folder that mirrors each on this machine


def call_by_url(folder: Path, url: str) -> None:
    """From now on, messages call what lies in `folder`, the mirror of a remote run, by its URL."""
    _URLS[str(folder)] = url


def with_urls(text: str) -> str:
    """`text` with URLs for the names of files in mirrors."""
    for folder, url in _URLS.items():
        text = text.replace(f"{folder}/", f"{url}/")
    return text


class UrlFormatter(logging.Formatter):
    """Formats log records, with URLs for the names of files in mirrors."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return with_urls(super().format(record))


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


def quoted(path: object) -> str:
    """A path, or a run, as a shell takes it."""
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
