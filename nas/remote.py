"""Runs on object stores and other remote file systems.

Object stores cannot append, so a remote run is worked on in a mirror: an ordinary run folder of this machine. Opening
the run pulls what is new there; whatever writes it publishes what has changed, each file whole, every few seconds
and at the end. After a kill the mirror is ahead: what it has and the remote lacks is kept, and published the next time.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from nas.cache import add_lines
from nas.remote_files import Records, compare_journals, complete_lines, is_shared, version_of
from nas.remote_lock import RENEW_SECONDS, WriterLock, repeating
from nas.remote_storage import RemoteError, Storage
from nas.run import RunError
from nas.terminal import call_by_url
from supernet.header import CheckpointError, read_state, state_of

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 3.0
PUBLISH_FACTOR = 9.0  # pause after an upload, in times what it took: a tenth of the time at most is spent on them
DESCRIPTION, CHECKPOINT, EVALUATIONS = "run.json", "checkpoint.safetensors", "evaluations.jsonl"
TRAINING = (CHECKPOINT, "last-good.safetensors", "metrics.jsonl")
TRAINING_LOCK = "training"
PULLED = (".json", ".jsonl", ".journal")  # whenever a run is opened; other files when they are asked for


class Mirror:
    """The run at a URL, and the folder of this machine that mirrors it.

    The folder is in NAS_CACHE, by default ~/.cache/nas. Several processes of a machine may use it. Raises RunError for
    a protocol that is unknown or lacks its package; methods raise RemoteError where the storage fails.
    """

    def __init__(self, url: str) -> None:
        self._storage = Storage(url)
        self.url = self._storage.url
        cache = Path(os.environ.get("NAS_CACHE") or "~/.cache/nas").expanduser().resolve()
        self.path = cache / "runs" / hashlib.sha256(self._storage.identity.encode()).hexdigest()[:32]
        self._diverged: set[str] = set()  # journals that are no continuation of one another
        self._locks: list[WriterLock] = []
        call_by_url(self.path, self.url)

    def pull(self) -> None:
        """Brings what the remote has and the mirror lacks; does nothing where the remote holds no run.

        Raises RunError when the mirror holds unpublished work of another run.
        """
        with self._records() as records:
            if self._storage.signature(DESCRIPTION) is None:
                self._storage.require_container()
                if DESCRIPTION in records.files:
                    self._forget(records, "there is no run any more")
                return
            there = {name: s for name, s in self._storage.list().items() if is_shared(name) and name.endswith(PULLED)}
            mine = self.path / DESCRIPTION
            changed = mine.exists() and records.there(DESCRIPTION) != there[DESCRIPTION]
            if changed and mine.read_bytes() != self._storage.read(DESCRIPTION):
                self._forget(records, "there is another run now")
            for name, signature in there.items():
                self._update(name, signature, records)

    def fetch(self, name: str) -> Path:
        """The newest version of a file, in the mirror; it need not exist."""
        with self._records() as records:
            if (signature := self._storage.signature(name)) is not None:
                self._update(name, signature, records)
        return self.path / name

    def checkpoint_state(self) -> dict[str, Any]:
        """The state of the newest checkpoint, from its head alone: nothing is downloaded.

        Raises CheckpointError where there is none that can be read.
        """
        mine = self.path / CHECKPOINT
        with self._records() as records:
            signature = self._storage.signature(CHECKPOINT)
            here = mine.exists() and (signature == records.there(CHECKPOINT) or self._trained_further(records))
            return read_state(mine) if here or signature is None else self._remote_state()

    def publish(self) -> None:
        """Uploads what has changed in the mirror, but for what has a lock that is not held here.

        Raises RunError when another machine has taken over a lock that was.
        """
        held = {None, *(lock.name for lock in self._locks)}
        with self._records() as records:
            changed = {name: now for name, now in self._files().items() if now != records.here(name)}
            for name in sorted(changed, key=lambda name: name == CHECKPOINT):
                for lock in self._locks:
                    lock.check()
                # the checkpoint goes last, and only the one that the metrics uploaded just now go with
                newer = name == CHECKPOINT and version_of(self.path / name) != changed[name]
                if _lock_of(name) in held and name not in self._diverged and not newer:
                    self._publish(name, changed[name], records)
            for lock in self._locks:
                self.require_one_history(lock.name)

    @contextmanager
    def publishing(self, lock: str | None = None) -> Iterator[None]:
        """Publishes at the end of the block, however it ends.

        lock: a journal, or `training`, that nobody else may write meanwhile; with one, changes are published while the
        block runs, too.
        Raises RunError while another process holds the lock. Without a lock a failure to publish is a warning.
        """
        with ExitStack() as stack:
            if lock is not None:
                self._locks.append(stack.enter_context(self._locked(lock)))
                stack.callback(self._locks.pop)
                self.pull()
                self.require_one_history(lock)
                self.publish()
                stack.enter_context(repeating(self._locks[-1].renew, RENEW_SECONDS))
                stack.enter_context(repeating(self.publish, PUBLISH_SECONDS, PUBLISH_FACTOR))
            try:
                yield
            except BaseException:
                self._publish_or_warn()
                raise
            if lock is None:
                self._publish_or_warn()
            else:
                self.publish()

    def require_one_history(self, name: str) -> None:
        """Raises RunError for a journal that went different ways here and there."""
        if name in self._diverged:
            raise RunError(
                f"{name} of {self.url} and of its mirror {self.path} are different searches, or have gone different "
                "ways; remove the one that you do not want"
            )

    def require_empty(self, advice: str) -> None:
        """Raises RunError where the URL, or a run of this machine that was to be published there, holds anything."""
        with self._records() as records:
            self._storage.require_container()
            if any(map(is_shared, self._storage.list(depth=1))):
                raise RunError(f"the folder {self.url} is not empty; {advice}")
            if DESCRIPTION in records.files:
                self._forget(records, "there is no run any more")
            elif self.path.exists() and any(self.path.iterdir()):
                raise RunError(f"{self.url} has a run on this machine that was not published yet; {advice}")

    def _locked(self, name: str) -> WriterLock:
        with self._records() as records:
            return WriterLock(self._storage, name, self.path / f"{name}.lock", records.mirror)

    def _publish_or_warn(self) -> None:
        try:
            self.publish()
        except (RemoteError, RunError) as error:
            log.warning("%s; it is kept in %s, and published the next time", error, self.path)

    def _update(self, name: str, signature: str, records: Records) -> None:
        """Takes the remote's version of a file, unless the mirror's is the same or goes further."""
        file = self.path / name
        if file.exists() and records.there(name) == signature:
            return
        if file.exists() and name == EVALUATIONS:
            self._merge_evaluations(signature, records)
        elif file.exists() and name.endswith(".journal"):
            self._join_journal(name, signature, records)
        elif file.exists() and name in TRAINING and self._trained_further(records):
            records.set(name, signature, None)
        else:
            self._take(name, signature, records)

    def _merge_evaluations(self, signature: str, records: Records) -> None:
        file, theirs = self.path / EVALUATIONS, self._storage.read(EVALUATIONS)
        add_lines(file, theirs)
        version = version_of(file)
        more = set(complete_lines(file.read_bytes()).splitlines()) - set(theirs.splitlines())
        records.set(EVALUATIONS, signature, None if more else version)

    def _join_journal(self, name: str, signature: str, records: Records, take: bool = True) -> None:
        """Notes which version of a journal goes further; `take`: the remote's may replace the mirror's."""
        file = self.path / name
        version, theirs = version_of(file), file.with_name(f"{file.name}.remote.tmp")
        self._storage.download(name, theirs)
        further = compare_journals(file, theirs)
        self._diverged.discard(name)
        if further == "theirs" and take:
            theirs.replace(file)
            version = version_of(file)
        elif further in ("theirs", "neither"):
            self._diverged.add(name)
        theirs.unlink(missing_ok=True)
        if name not in self._diverged:
            records.set(name, signature, None if further == "ours" else version)

    def _trained_further(self, records: Records) -> bool:
        """Whether the mirror holds an unpublished checkpoint that is not behind the remote's: of the same run, the one
        with more steps continues the other."""
        file = self.path / CHECKPOINT
        if not file.exists() or version_of(file) == records.here(CHECKPOINT):
            return False
        return _step(lambda: read_state(file)) >= _step(self._remote_state)

    def _remote_state(self) -> dict[str, Any]:
        return state_of(f"{self.url}/{CHECKPOINT}", lambda start, end: self._storage.read(CHECKPOINT, start, end))

    def _take(self, name: str, signature: str, records: Records) -> None:
        self._storage.download(name, self.path / name)
        records.set(name, signature, version_of(self.path / name))

    def _publish(self, name: str, version: str, records: Records) -> None:
        file = self.path / name
        if name != EVALUATIONS and not name.endswith(".journal"):
            self._storage.upload(name, file)
        else:
            there = self._storage.signature(name)
            if there not in (None, records.there(name)):  # another machine has continued it
                if name == EVALUATIONS:
                    self._merge_evaluations(there, records)
                else:  # which this machine may be writing, too
                    self._join_journal(name, there, records, take=False)
            version = version_of(file)
            if name in self._diverged or version == records.here(name):
                return
            self._storage.write(name, complete_lines(file.read_bytes()))
        records.set(name, self._storage.signature(name), version)

    def _files(self) -> dict[str, str]:
        """Versions of the mirror's files by name."""
        files = {
            file.relative_to(self.path).as_posix(): file for file in sorted(self.path.rglob("*")) if file.is_file()
        }
        return {name: version_of(file) for name, file in files.items() if is_shared(name)}

    def _forget(self, records: Records, why: str) -> None:
        """Removes the mirror of a run that is no more. Raises RunError where it holds what was never published."""
        unpublished = [name for name, version in self._files().items() if version != records.here(name)]
        if unpublished:
            raise RunError(
                f"at {self.url} {why}, and its mirror {self.path} holds what was not published: "
                f"{', '.join(unpublished[:3])}. Remove that folder to go on"
            )
        shutil.rmtree(self.path, ignore_errors=True)
        records.clear()

    @contextmanager
    def _records(self) -> Iterator[Records]:
        """What is known of the files, for one process and thread at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            records = Records(self.path.with_suffix(".json"), self.url)
            if not self.path.is_dir():  # removed by hand, or never there
                records.clear()
            yield records


def _step(read: Callable[[], dict[str, Any]]) -> int:
    """The step that a checkpoint was written at; -1 where it tells none."""
    try:
        return int(read()["step"])
    except (CheckpointError, KeyError):
        return -1


def _lock_of(name: str) -> str | None:
    """The lock under which a file is written and published."""
    if name.endswith(".journal"):
        return name
    return TRAINING_LOCK if name in TRAINING else None
