"""One writer at a time on remote storage: an object beside the file, renewed while its holder lives. Best effort."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from nas.remote_storage import RemoteError, Storage
from nas.run import RunError

log = logging.getLogger(__name__)

RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0  # without a renewal, by clocks that are assumed to agree


class WriterLock:
    """Held while writing `name` of a storage, by an object `name.lock`.

    mirror: tells one machine's copy of the run from another's. A lock left by a killed process of this very copy is
    taken over at once: a lock of the operating system tells that it is dead. One of another copy is after a minute.
    file: where this machine keeps that lock. Raises RunError while another process holds either.
    """

    def __init__(self, storage: Storage, name: str, file: Path, mirror: str) -> None:
        self.name = name
        self._storage, self._object, self._file = storage, f"{name}.lock", file
        self._me = {"id": uuid4().hex, "mirror": mirror, "host": socket.gethostname(), "pid": os.getpid()}
        self._what = f"{storage.url}/{name}"
        self._lost: str | None = None

    def __enter__(self) -> Self:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._local = open(self._file, "a", encoding="utf-8")
        try:
            self._acquire()
        except BaseException:
            self._local.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if (self._holder() or {}).get("id") == self._me["id"]:
                self._storage.remove(self._object)
        except RemoteError as failure:
            log.warning("the lock stays for a minute: %s", failure)
        finally:
            self._local.close()

    def renew(self) -> None:
        """Says that this process is alive; to be called every `RENEW_SECONDS`."""
        holder = self._holder()
        if holder is not None and holder["id"] != self._me["id"]:
            self._lost = f"{self._what} was taken over by {_named(holder)} while this process did not answer"
        elif self._lost is None:
            self._storage.write(self._object, self._content())

    def check(self) -> None:
        """Raises RunError when another process has taken the lock over."""
        if self._lost:
            raise RunError(f"{self._lost}; nothing more is published from here")

    def _acquire(self) -> None:
        try:
            fcntl.flock(self._local, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{self._what} is being written by another process of this machine") from None
        holder = self._holder()
        if holder is not None:
            alive = time.time() - holder["time"] < STALE_SECONDS
            if alive and holder["mirror"] != self._me["mirror"]:
                raise self._refusal(holder)
            self._storage.remove(self._object)
        if not self._storage.create(self._object, self._content()):
            raise self._refusal(self._holder())

    def _refusal(self, holder: dict[str, Any] | None) -> RunError:
        return RunError(
            f"{self._what} is being written by {_named(holder)}; wait for it to end, or, where it was killed, "
            f"{STALE_SECONDS:.0f} seconds"
        )

    def _content(self) -> bytes:
        return json.dumps(self._me | {"time": time.time()}).encode()

    def _holder(self) -> dict[str, Any] | None:
        """Who holds the lock, or None."""
        data = self._storage.read(self._object)
        if not data:
            return None
        try:
            holder = json.loads(data)
            return {**holder, "id": holder["id"], "mirror": holder["mirror"], "time": float(holder["time"])}
        except (ValueError, KeyError, TypeError):  # no lock of ours
            return {"id": None, "mirror": None, "time": 0.0}


@contextmanager
def repeating(function: Callable[[], None], seconds: float, factor: float = 0.0) -> Iterator[None]:
    """Calls `function` in a thread, with pauses of `seconds`, or of `factor` times what the last call took.

    Its RemoteError, RunError and OSError become warnings, one for each time that it begins to fail.
    """
    done = threading.Event()

    def work() -> None:
        pause, failed = seconds, False
        while not done.wait(pause):
            started = time.monotonic()
            try:
                function()
                failed = False
            except (RemoteError, RunError, OSError) as error:
                if not failed:
                    log.warning("%s; trying again", error)
                failed = True
            pause = max(seconds, factor * (time.monotonic() - started))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _named(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another process"
    ago = max(0.0, time.time() - holder["time"])
    return f"process {holder.get('pid')} on {holder.get('host')} (last seen {ago:.0f} s ago)"
