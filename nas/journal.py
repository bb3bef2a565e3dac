"""The journal file of a study: one writer, any number of readers, one line a record, repaired after a kill."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_HEAD = b'{"op_code":'  # how every record begins


class JournalError(ValueError):
    """The file cannot be written as a journal: another process writes it, or it is something else. Says which."""


class JournalWriter(BaseJournalBackend):
    """Optuna's journal backend for the one process that writes.

    Creates the file, or cuts off a last line that a killed writer left unfinished. Each record is one write; the file
    is flushed to the disk once a second and on closing, so a killed process loses at most the record it was
    writing, and a power failure the last second. Raises JournalError while another process has it open, or when the
    file is something else.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, _lock(path)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _cut_torn_line(path)
        except BaseException:
            self.close()
            raise
        self._reader: JournalFileBackend | None = _file_backend(path)
        self._flushed = time.monotonic()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from this one on; none after `stop_reading`."""
        if self._reader is not None:
            yield from self._reader.read_logs(log_number_from)

    def stop_reading(self) -> None:
        """Keeps Optuna from reading back each record it writes, into a copy several times the size of our trials."""
        self._reader = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Raises OSError when the disk is full, and then leaves no half record."""
        data = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in logs).encode()
        size = os.fstat(self._file).st_size
        if os.write(self._file, data) < len(data):
            os.truncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            os.fsync(self._file)
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes the file and lets another process write. May be called twice."""
        if not self._lock.closed:
            os.fsync(self._file)
            os.close(self._file)
            self._lock.close()


def reading_storage(path: Path) -> JournalStorage:
    """An Optuna storage to read from while another process may be writing."""
    return JournalStorage(_file_backend(path))


class _NoLock(JournalFileOpenLock):
    """In place of Optuna's lock, which a killed process leaves behind for 30 s; ours excludes other writers."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _file_backend(path: Path) -> JournalFileBackend:
    return JournalFileBackend(str(path), lock_obj=_NoLock(str(path)))


def _lock(path: Path) -> IO[str]:
    """A lock that goes when the file is closed or the process ends, however it ends."""
    file = open(path.with_name(path.name + ".writer"), "a+")  # noqa: SIM115  held open as long as the journal
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise JournalError(f"{path} is being written by another search (process {holder})") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _cut_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if data[: len(_HEAD)] != _HEAD[: len(data)]:
        raise JournalError(f"{path} is not a study file")
    complete = data[: data.rfind(b"\n") + 1].rstrip()
    end = len(complete) + 1 if complete else 0  # with its line end, without blank lines
    if end < len(data):
        log.warning("%s: the last %d bytes are an unfinished record and were cut off", path, len(data) - end)
        os.truncate(path, end)
