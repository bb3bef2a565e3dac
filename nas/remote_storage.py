"""A folder on remote storage, through fsspec: whole files by name, and errors that name the URL."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from nas.run import RunError

# file systems with folders and a rename that replaces; elsewhere a put is atomic itself and a folder only a name
_RENAMING = {"file", "local", "sftp", "ssh"}
_EXTRAS = {"s3": "s3", "s3a": "s3"}
# what tells one version of a file from another, the first that there is: by contents, by count, by time
_VERSION = ("ETag", "etag", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "modified", "created")


class RemoteError(RuntimeError):
    """The storage did not do what was asked: unreachable, no such bucket, no permission. Names the URL."""


class Storage:
    """The files below one URL, by their names relative to it, with `/` between folders.

    A write replaces the whole file atomically. Raises RunError for a protocol that is unknown or lacks its package;
    every method raises RemoteError.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._fs, root = _filesystem(self.url)
        self._root = root.rstrip("/")
        protocols = self._fs.protocol
        self._renames = bool(_RENAMING & set((protocols,) if isinstance(protocols, str) else protocols))

    @property
    def identity(self) -> str:
        """Equal for two spellings of the same URL."""
        return str(self._fs.unstrip_protocol(self._root))

    def list(self, depth: int | None = None) -> dict[str, str]:
        """Signatures of all files by name, down to `depth` folders. Empty where the folder is missing."""
        with self._reaching("list"):
            self._fs.invalidate_cache()
            found = self._fs.find(self._root, maxdepth=depth, detail=True)
        return {name.removeprefix(self._root + "/"): _signature(info) for name, info in found.items()}

    def require_container(self) -> None:
        """Raises RemoteError where the bucket does not exist: to a listing it looks like one that is empty."""
        container = self._root.partition("/")[0]
        with self._reaching("open"):
            if container and not self._renames and not self._fs.exists(container):
                raise FileNotFoundError(f"there is no bucket {container!r}")

    def signature(self, name: str) -> str | None:
        """What changes whenever the file does; None where there is none."""
        with self._reaching("read", name):
            self._fs.invalidate_cache()
            try:
                return _signature(self._fs.info(self._at(name)))
            except FileNotFoundError:
                return None

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of a file from `start` up to `end`; none where there is no file."""
        with self._reaching("read", name):
            try:
                return bytes(self._fs.cat_file(self._at(name), start=start, end=end))
            except FileNotFoundError:
                return b""

    def download(self, name: str, file: Path) -> None:
        """Replaces `file` atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(file.name + ".tmp")
        with self._reaching("read", name):
            try:
                self._fs.get_file(self._at(name), str(temporary))
                os.replace(temporary, file)
            finally:
                temporary.unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file by `data`."""
        with self._replacing(name) as path:
            self._fs.pipe_file(path, data)

    def upload(self, name: str, file: Path) -> None:
        """Replaces a file by the contents of `file`."""
        with self._replacing(name) as path:
            self._fs.put_file(str(file), path)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a new file; False where there is one already."""
        if self._renames:  # which cannot do both at once
            if self.signature(name) is not None:
                return False
            self.write(name, data)
            return True
        with self._reaching("write", name):
            try:
                self._fs.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
        return True

    def remove(self, name: str) -> None:
        """Removes a file, where it is there."""
        with self._reaching("write", name), contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _replacing(self, name: str) -> Iterator[str]:
        """Where to write so that readers see the old file or the new one."""
        path = self._at(name)
        with self._reaching("write", name):
            if not self._renames:
                yield path
                return
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            yield path + ".tmp"
            self._fs.mv(path + ".tmp", path)

    @contextmanager
    def _reaching(self, verb: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the package of the protocol raises
            place = f"{self.url}/{name}" if name else self.url
            raise RemoteError(f"cannot {verb} {place}: {type(error).__name__}: {error}") from error


def _filesystem(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0]
    try:
        return url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f": pip install 'nas-service[{extra}]'" if extra else f" ({error})"
        raise RunError(f"{url} cannot be opened: {protocol}:// needs a package that is not installed{advice}") from None
    except ValueError as error:
        known = ", ".join(
            name for name in ("file", "s3", "gs", "abfs", "memory") if name in fsspec.available_protocols()
        )
        raise RunError(
            f"{url} cannot be opened: {error}; valid: a folder, or a URL of {known} or another protocol of fsspec"
        ) from None


def _signature(info: Mapping[str, Any]) -> str:
    version = next((info[name] for name in _VERSION if info.get(name)), "")
    if isinstance(version, datetime):  # some file systems give a listing's as a number and a single file's as a date
        version = version.timestamp()
    return f"{info['size']} {version}"
