"""What a running search says of its workers, in a small file beside its journal; the driver alone writes it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.json_file import write_json
from workers.pool import Pool

_WRITE_SECONDS = 1.0


def status_path(journal: Path) -> Path:
    """Where the status of the study in `journal` is."""
    return journal.with_suffix(".status.json")


def read_status(journal: Path) -> dict[str, Any] | None:
    """The last status of the study, or None. It is of a running search only while `nas.journal.is_written`."""
    try:
        status = json.loads(status_path(journal).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


def reporting(journal: Path, pool: Pool, stop: Callable[[], bool]) -> Callable[[], bool]:
    """`stop`, which the search asks again and again, so that each call may also write the status, once a second.

    alive, busy, restarted: workers of the pool now, and those replaced so far. pid, host, started: of the driver.
    A disk that cannot take it does not end the search.
    """
    started, written = time.time(), float("-inf")

    def report_and_ask() -> bool:
        nonlocal written
        if time.monotonic() - written >= _WRITE_SECONDS:
            written = time.monotonic()
            workers = pool.workers()
            status = {
                "pid": os.getpid(), "host": socket.gethostname(), "started": started, "updated": time.time(),
                "alive": workers.alive, "busy": workers.busy, "restarted": workers.restarted,
            }  # fmt: skip
            with contextlib.suppress(OSError):  # results matter more, and they are written elsewhere
                write_json(status_path(journal), status)
        return stop()

    return report_and_ask
