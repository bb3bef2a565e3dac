"""Locks on files: held by one process of this machine, and given up when it ends, however it ends."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def locked(file: IO[str], kind: int) -> bool:
    """Takes the lock of an open file without waiting; False where another process has it. kind: `fcntl.LOCK_…`."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of the file `path` for itself; none that is known where it cannot be opened."""
    try:
        with open(path, encoding="utf-8") as file:
            return not locked(file, fcntl.LOCK_SH)
    except OSError:
        return False
