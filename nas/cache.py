"""Evaluations that need not be done again, shared between searches through one file."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nas.problem import are_metrics

log = logging.getLogger(__name__)


class EvaluationCache:
    """Metrics by architecture key, for one context, in an append-only file of JSON lines.

    Where an architecture has several entries, the first that has a metric counts for it, so an evaluator that learns
    to return more adds to what is there. Several processes may use one file: each sees what the others have added. A
    line that a killed process left unfinished is skipped, and so is one that holds anything but finite metrics, with a
    warning. Nothing is flushed to the disk: what a power failure takes is evaluated again.

    path: created when missing; None keeps everything in memory.
    context: what the metrics depend on beside the architecture, such as the checkpoint's hash and the split.
    """

    def __init__(self, path: Path | str | None = None, context: str = "") -> None:
        self._context = context
        self._metrics: dict[str, dict[str, float]] = {}
        self._path, self._read_up_to = path, 0
        self._file: int | None = None
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def get(self, key: str) -> dict[str, float] | None:
        """The metrics of the architecture `key`, or None."""
        if key not in self._metrics:
            self._read_new_lines()
        return self._metrics.get(key)

    def put(self, key: str, metrics: Mapping[str, float]) -> None:
        """Adds one evaluation, unless all its metrics are there already. Raises OSError when the disk is full."""
        if self._file is None:
            self._add(key, metrics)
            return
        line = json.dumps({"context": self._context, "key": key, "metrics": dict(metrics)}).encode() + b"\n"
        with _locked(self._file):
            self._read_new_lines()
            if key in self._metrics and metrics.keys() <= self._metrics[key].keys():
                return
            size = os.fstat(self._file).st_size
            _append(self._file, line)
            self._add(key, metrics)
            if self._read_up_to == size:
                self._read_up_to = os.fstat(self._file).st_size

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _add(self, key: str, metrics: Mapping[str, float]) -> None:
        self._metrics[key] = {**metrics, **self._metrics.get(key, {})}

    def _read_new_lines(self) -> None:
        if self._file is None or (size := os.fstat(self._file).st_size) <= self._read_up_to:
            return
        new = os.pread(self._file, size - self._read_up_to, self._read_up_to)
        complete = new[: new.rfind(b"\n") + 1]
        self._read_up_to += len(complete)
        bad = 0
        for line in complete.splitlines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue  # torn by a killed writer
            match entry:
                case {"context": context, "key": str(key), "metrics": metrics} if are_metrics(metrics):
                    if context == self._context:
                        self._add(key, metrics)
                case _:
                    bad += 1
        if bad:
            log.warning("%s: %d entries that are no metrics are left out and evaluated again", self._path, bad)


def add_lines(path: Path, lines: bytes) -> None:
    """Appends the complete ones of `lines` that the cache file `path` lacks, while others may be appending too."""
    known = set(path.read_bytes().splitlines())
    new = [line for line in lines[: lines.rfind(b"\n") + 1].splitlines() if line not in known]
    if new:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            with _locked(file):
                _append(file, b"".join(line + b"\n" for line in new))
        finally:
            os.close(file)


def _append(file: int, lines: bytes) -> None:
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        lines = b"\n" + lines  # ends what a killed writer began
    try:
        written = os.write(file, lines)
    except OSError as error:  # which names no file
        if error.errno != errno.ENOSPC:
            raise
        written = 0
    if written < len(lines):
        raise OSError(f"could not write to the evaluation cache: the disk is full, {size} bytes written so far")


@contextmanager
def _locked(file: int) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
