"""Runs on object stores and other remote file systems.

Object stores cannot append, so a remote run is worked on in a mirror: an ordinary run folder of this machine. Opening
the run pulls what is new there; whatever writes it publishes what has changed, each file whole, every few seconds
and at the end. After a kill the mirror is ahead: what it has and the remote lacks is kept, and published the next time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

from nas.cache import add_lines
from nas.remote_lock import RENEW_SECONDS, WriterLock, repeating
from nas.remote_storage import RemoteError, Storage
from nas.run import RunError, write_json
from nas.terminal import call_by_url

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 3.0
PUBLISH_FACTOR = 9.0  # pause after an upload, in times what it took: a tenth of the time at most is spent on them
DESCRIPTION, CHECKPOINT, EVALUATIONS = "run.json", "checkpoint.safetensors", "evaluations.jsonl"
TRAINING = (CHECKPOINT, "last-good.safetensors", "metrics.jsonl")
PULLED = (".json", ".jsonl", ".journal")  # whenever a run is opened; other files when they are asked for
PRIVATE = (".lock", ".writer", ".tmp", ".previous")  # neither pulled nor published


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
                self._storage.list(depth=1)  # a bucket that does not exist is an error of its own
                if DESCRIPTION in records.files:
                    self._forget(records, "there is no run any more")
                return
            there = {name: s for name, s in self._storage.list().items() if _is_shared(name) and name.endswith(PULLED)}
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

    def publish(self) -> None:
        """Uploads what has changed in the mirror. Raises RunError when another machine has taken over the writing."""
        with self._records() as records:
            changed = {name: now for name, now in self._files().items() if now != records.here(name)}
            for name in sorted(changed, key=lambda name: name == CHECKPOINT):
                for lock in self._locks:
                    lock.check()
                # the checkpoint goes last, and only the one that the metrics uploaded just now go with
                if name in self._diverged or (name == CHECKPOINT and _version(self.path / name) != changed[name]):
                    continue
                self._publish(name, changed[name], records)

    @contextmanager
    def publishing(self, lock: str | None = None) -> Iterator[None]:
        """Publishes at the end of the block, however it ends.

        lock: the file that nobody else may write meanwhile; with one, changes are published while the block runs.
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
                f"{name} of {self.url} and of its mirror {self.path} have gone different ways: both continue what they "
                "have in common. Remove the one that you do not want"
            )

    def require_empty(self, advice: str) -> None:
        """Raises RunError where the URL, or a run of this machine that was to be published there, holds anything."""
        with self._records() as records:
            if any(map(_is_shared, self._storage.list(depth=1))):
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

    def _update(self, name: str, signature: str, records: _Records) -> None:
        """Takes the remote's version of a file, unless the mirror's is the same or goes further."""
        file = self.path / name
        if file.exists() and records.there(name) == signature:
            return
        if file.exists() and name == EVALUATIONS:
            add_lines(file, theirs := self._storage.read(name))
            version = _version(file)
            more = set(_records_in(file.read_bytes()).splitlines()) - set(theirs.splitlines())
            records.set(name, signature, None if more else version)
        elif file.exists() and name.endswith(".journal"):
            self._join_journal(name, signature, records)
        elif file.exists() and name in TRAINING and self._trained_further(records):
            records.set(name, signature, None)
        else:
            self._take(name, signature, records)

    def _join_journal(self, name: str, signature: str, records: _Records) -> None:
        version = _version(self.path / name)
        mine = _records_in((self.path / name).read_bytes())
        theirs = _records_in(self._storage.read(name))
        self._diverged.discard(name)
        if mine.startswith(theirs):
            records.set(name, signature, version if mine == theirs else None)
        elif theirs.startswith(mine):
            self._take(name, signature, records)
        else:
            self._diverged.add(name)

    def _trained_further(self, records: _Records) -> bool:
        """Whether the mirror holds an unpublished checkpoint that is not behind the remote's: of the same run, the one
        with more steps continues the other."""
        file = self.path / CHECKPOINT
        if not file.exists() or _version(file) == records.here(CHECKPOINT):
            return False
        data = file.read_bytes()
        ours = _step(lambda start, end: data[start:end])
        return ours >= _step(lambda start, end: self._storage.read(CHECKPOINT, start, end))

    def _take(self, name: str, signature: str, records: _Records) -> None:
        self._storage.download(name, self.path / name)
        records.set(name, signature, _version(self.path / name))

    def _publish(self, name: str, version: str, records: _Records) -> None:
        file = self.path / name
        if name == EVALUATIONS or name.endswith(".journal"):  # which another machine may have continued
            there = self._storage.signature(name)
            if there is not None and there != records.there(name):
                self._update(name, there, records)
                self.require_one_history(name)
            version = _version(file)
            if version == records.here(name):
                return
            self._storage.write(name, _records_in(file.read_bytes()))
        else:
            self._storage.upload(name, file)
        records.set(name, self._storage.signature(name), version)

    def _files(self) -> dict[str, str]:
        """Versions of the mirror's files by name."""
        files = {
            file.relative_to(self.path).as_posix(): file for file in sorted(self.path.rglob("*")) if file.is_file()
        }
        return {name: _version(file) for name, file in files.items() if _is_shared(name)}

    def _forget(self, records: _Records, why: str) -> None:
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
    def _records(self) -> Iterator[_Records]:
        """What is known of the files, for one process and thread at a time."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            records = _Records(self.path.with_suffix(".json"), self.url)
            if not self.path.is_dir():  # removed by hand, or never there
                records.clear()
            yield records


class _Records:
    """For each file its signature there and its version here, at the time when both were the same; None for neither."""

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        self.mirror = uuid4().hex
        self.files: dict[str, list[str | None]] = {}
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            self.mirror, self.files = data["mirror"], data["files"]
        except (OSError, ValueError, KeyError, TypeError):  # everything is compared again
            self._save()

    def clear(self) -> None:
        self.mirror, self.files = uuid4().hex, {}
        self._save()

    def there(self, name: str) -> str | None:
        return self.files.get(name, [None, None])[0]

    def here(self, name: str) -> str | None:
        return self.files.get(name, [None, None])[1]

    def set(self, name: str, there: str | None, here: str | None) -> None:
        self.files[name] = [there, here]
        self._save()

    def _save(self) -> None:
        write_json(self._path, {"url": self._url, "mirror": self.mirror, "files": self.files})


def _is_shared(name: str) -> bool:
    return not name.endswith(PRIVATE) and not name.startswith("ray_train/")


def _version(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _records_in(data: bytes) -> bytes:
    """The complete lines: a killed writer may have left half of one."""
    return data[: data.rfind(b"\n") + 1]


def _step(read: Callable[[int, int], bytes]) -> int:
    """The step that a checkpoint was written at, from its header alone; -1 where there is no checkpoint."""
    try:
        size = int.from_bytes(read(0, 8), "little")
        return int(json.loads(json.loads(read(8, 8 + size))["__metadata__"]["state"])["step"])
    except (ValueError, KeyError, TypeError):
        return -1
