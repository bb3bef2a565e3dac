"""The journal file of a study: one writer, any number of readers, one line a record, repaired after a kill."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import logging
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any

from optuna.storages.journal import BaseJournalBackend

from nas.file_lock import is_held, locked

log = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_LOOK_SECONDS = 0.05  # for which `is_written` may at most hold the lock
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
        if path.is_dir():
            raise JournalError(f"{path} is a folder; a study is kept in a file, for example {path / 'study.journal'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, _lock(path)
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _cut_torn_line(path)
        except BaseException:
            self.close()
            raise
        self._lines: list[bytes] | None = _lines(path)
        self._flushed = time.monotonic()

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from this one on; none after `stop_reading`."""
        yield from _records(self._lines or [], log_number_from)

    def stop_reading(self) -> None:
        """Keeps Optuna from reading back each record it writes, into a copy several times the size of our trials."""
        self._lines = None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Raises OSError when the disk is full, and then leaves no half record."""
        lines = [json.dumps(record, separators=(",", ":")).encode() for record in logs]
        data = b"".join(line + b"\n" for line in lines)
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, data)
        except OSError as error:  # which names no file
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        if written < len(data):
            os.truncate(self._file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        if self._lines is not None:
            self._lines += lines
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            os.fsync(self._file)
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes the file and lets another process write. May be called twice."""
        if not self._lock.closed:
            os.fsync(self._file)
            os.close(self._file)
            self._lock.close()


class JournalReader(BaseJournalBackend):
    """Optuna's journal backend for the records that are complete now, while another process may be writing.

    A last line that a killed writer left unfinished is left out, which is logged as a warning. Trials come without
    Optuna's parameters, of which parsing takes half the time: the architecture is among the user attributes.
    """

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        end = _end(data)
        self._lines = data[:end].split(b"\n")[:-1]
        if data[end:].strip() and not is_written(path):
            log.warning("%s: the last %d bytes are an unfinished record and are left out", path, len(data) - end)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records from this one on."""
        yield from _records(self._lines, log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Raises UnsupportedOperation: one process writes, with `JournalWriter`."""
        raise io.UnsupportedOperation("this study was opened for reading")


def is_written(path: Path) -> bool:
    """Whether a process has the journal at `path` open for writing now."""
    return is_held(_lock_file(path))


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".writer")


def _lock(path: Path) -> IO[str]:
    """A lock that goes when the file is closed or the process ends, however it ends."""
    file = open(_lock_file(path), "a+")  # noqa: SIM115  held open as long as the journal
    if not locked(file, fcntl.LOCK_EX):
        time.sleep(_LOOK_SECONDS)
    if not locked(file, fcntl.LOCK_EX):
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise JournalError(f"{path} is being written by another search (process {holder})")
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _cut_torn_line(path: Path) -> None:
    data = path.read_bytes()
    if data[: len(_HEAD)] != _HEAD[: len(data)]:
        raise JournalError(f"{path} is not a study file")
    end = _end(data)
    if end < len(data):
        log.warning("%s: the last %d bytes are an unfinished record and were cut off", path, len(data) - end)
        os.truncate(path, end)


def _lines(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return data[: _end(data)].split(b"\n")[:-1]


def _records(lines: list[bytes], start: int) -> Iterator[dict[str, Any]]:
    """Raises JournalError naming the line that is none."""
    for number, line in enumerate(lines[start:], start + 1):
        try:
            yield _record(line)
        except ValueError:
            raise JournalError(f"line {number} is no record") from None


def _record(line: bytes) -> dict[str, Any]:
    """A record as Optuna is given it: a trial's parameters, which it would take half of its time to rebuild, are left
    out, for we read the architecture itself.
    """
    record: dict[str, Any] = json.loads(line)
    return record | {"params": {}, "distributions": {}} if "distributions" in record else record


def _end(data: bytes) -> int:
    """Where the last complete record ends; blank lines behind it, as an editor may leave them, do not count."""
    records = data[: data.rfind(b"\n") + 1].rstrip(b"\n")
    return len(records) + 1 if records else 0
