"""A run folder: what was trained on what, with where its files are. Reading one needs neither torch nor ray."""

from __future__ import annotations

import fcntl
import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data_options import DataOptions
from nas.file_lock import is_held, locked
from nas.json_file import write_json
from nas.study_names import MOST_NAME_BYTES, is_study_name
from search_spaces.network import NetworkSpace
from supernet.header import read_state
from supernet.recipe import TrainConfig

if TYPE_CHECKING:
    from nas.remote import Mirror

FORMAT = "nas-run-1"

_LOOK_SECONDS = 0.05  # for which `is_training` may at most hold the lock


class RunError(ValueError):
    """The folder is not a run, or not one that this can be done with; the message names it."""


@dataclass(frozen=True)
class Run:
    """An opened run folder, or the mirror of a remote one; `str` names it as its user does.

    path: the folder on this machine. What changes files in it does so within `publishing`, or `writing`.
    """

    path: Path
    mirror: Mirror | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.mirror.url if self.mirror else str(self.path)

    @classmethod
    def create(
        cls,
        path: str | Path,
        space: NetworkSpace,
        data: DataOptions,
        recipe: TrainConfig,
        classes: list[str],
        init_from: dict[str, Any] | None = None,
    ) -> Run:
        """Makes the folder and writes `run.json`. Raises RunError when the folder holds anything already.

        init_from: what `supernet.initial.initialise` says of the model that the weights start from.
        """
        require_new(path)
        run = cls._at(path)
        run.path.mkdir(parents=True, exist_ok=True)
        description = {
            "format": FORMAT,
            "space": space.to_dict(),
            "data": asdict(data),
            "classes": classes,
            "recipe": asdict(recipe),
            "init_from": init_from,
            "versions": versions(),
        }
        with run.publishing():
            write_json(run.path / "run.json", description)
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Opens a folder, or a URL such as `s3://bucket/run`: anything that fsspec serves, see `nas.remote`.

        Raises RunError naming the folder when it is missing or no run, RemoteError when a URL cannot be read.
        """
        run = cls._at(path)
        if run.mirror:
            run.mirror.pull()
        if not run.path.is_dir():
            raise RunError(f"there is no run folder {run}; make one with `nas train … -o {run}`")
        run.description  # noqa: B018 - read now, so that a bad folder is named here
        return run

    @classmethod
    def _at(cls, path: str | Path) -> Run:
        if not is_url(path):
            return cls(Path(path))
        from nas.remote import Mirror

        mirror = Mirror(str(path))
        return cls(mirror.path, mirror)

    @contextmanager
    def publishing(self, lock: Path | None = None) -> Iterator[None]:
        """Files that the block changes in `path` are published where the run is remote; nothing happens elsewhere.

        lock: what no other machine may write meanwhile, a study's journal or `path / "training"`; with one, changes are
        published during the block, too. See `nas.remote.Mirror.publishing`.
        """
        if self.mirror is None:
            yield
            return
        with self.mirror.publishing(lock.relative_to(self.path).as_posix() if lock else None):
            yield

    def fetch(self, name: str) -> Path:
        """The file `name` of the run, which need not exist; of a remote run its newest version."""
        return self.mirror.fetch(name) if self.mirror else self.path / name

    @cached_property
    def description(self) -> dict[str, Any]:
        """The contents of `run.json`."""
        file = self.path / "run.json"
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self} is not a run folder: it has no run.json") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{file} cannot be read: {error}") from None
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            raise RunError(f"{file} is not the description of a run of this version ({FORMAT})")
        try:
            NetworkSpace.from_dict(description["space"])
            DataOptions(**description["data"])
            TrainConfig(**description["recipe"])
            _require_form(description)
        except KeyError as error:
            raise RunError(f"{file} lacks {error}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{file} was changed: {error}") from None
        return description

    def with_description(self, **changed: Any) -> Run:
        """The same run with other values in its `description`, which is not written."""
        run = Run(self.path, self.mirror)
        vars(run)["description"] = self.description | changed
        return run

    def write_description(self) -> None:
        """Makes `description` the run's; within `publishing`, or `writing`."""
        write_json(self.path / "run.json", self.description)

    @cached_property
    def space(self) -> NetworkSpace:
        """The space that the supernet covers."""
        return NetworkSpace.from_dict(self.description["space"])

    @property
    def data(self) -> DataOptions:
        """How to read the images again."""
        return DataOptions(**self.description["data"])

    @property
    def recipe(self) -> TrainConfig:
        """How the supernet is trained."""
        return TrainConfig(**self.description["recipe"])

    @property
    def init_from(self) -> dict[str, Any] | None:
        """What `supernet.initial.initialise` says of the model that the weights started from; None without one."""
        return self.description.get("init_from")

    @property
    def checkpoint(self) -> Path:
        """The training state, written by `supernet.checkpoint`; of a remote run its newest version."""
        return self.fetch("checkpoint.safetensors")

    def checkpoint_state(self) -> dict[str, Any]:
        """What the checkpoint says of itself, from its head: without torch, and without downloading a remote run's.

        Raises `supernet.header.CheckpointError` where there is none that can be read.
        """
        return self.mirror.checkpoint_state() if self.mirror else read_state(self.checkpoint)

    @property
    def metrics(self) -> Path:
        """Training metrics, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """The evaluation cache that the run's studies share."""
        return self.path / "evaluations.jsonl"

    def study(self, name: str) -> Path:
        """The journal of a study. Raises RunError for a name that is no plain file name, or without room for it.

        And for a study of a remote run that two machines have continued differently.
        """
        check_study_name(name)
        if self.mirror:
            self.mirror.require_one_history(f"studies/{name}.journal")
        return self._studies() / f"{name}.journal"

    def study_names(self) -> list[str]:
        """The studies made so far, by name; a file of another name, such as a copy, is none. Nor is a link to nothing.

        Raises RunError where a file stands in place of their folder.
        """
        names = (file.name.removesuffix(".journal") for file in self._studies().glob("*.journal") if file.exists())
        return sorted(filter(is_study_name, names))

    def _studies(self) -> Path:
        folder = self.path / "studies"
        require_empty(folder, None)
        return folder


def check_study_name(name: str) -> None:
    """Raises RunError for what is no name of a study: a plain file name in letters and digits of any script."""
    if not is_study_name(name):
        raise RunError(
            f"study name {name!r} is not valid: use up to 100 letters, digits, '.', '_' and '-', no '.' first, "
            f"in composed form (NFC) and up to {MOST_NAME_BYTES} bytes of UTF-8"
        )


@contextmanager
def writing(run: Run) -> Iterator[None]:
    """Holds the run's training lock. Raises RunError when another process trains it; the lock ends with its holder."""
    with open(run.path / ".training.lock", "a", encoding="utf-8") as file:
        if not locked(file, fcntl.LOCK_EX):
            time.sleep(_LOOK_SECONDS)
            if not locked(file, fcntl.LOCK_EX):
                raise RunError(f"{run} is being trained by another process")
        with run.publishing(run.path / "training"):
            yield


def is_training(run: Run) -> bool:
    """Whether a process of this machine trains the run now."""
    return is_held(run.path / ".training.lock")


def is_url(path: str | Path) -> bool:
    """Whether a run is meant that fsspec serves; a `Path` is none, for it makes one slash of two."""
    return isinstance(path, str) and "://" in path


def folder_of(path: str | Path) -> Path:
    """The folder of this machine in which the run at `path` is worked on, whether it exists or not."""
    return Run._at(path).path


def _require_form(description: Mapping[str, Any]) -> None:
    """Raises KeyError or ValueError naming what is not as it was written, of what no other type checks."""
    classes, start = description["classes"], description.get("init_from")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes is {classes!r}; valid: a list of names")
    if start is not None and not (isinstance(start, dict) and isinstance(start.get("folder"), str)):
        raise ValueError(f"init_from is {start!r}; valid: null, or an object with a folder")


def require_new(path: str | Path) -> None:
    """Raises RunError unless there is room for a new run."""
    advice = "continue that run with --resume, or name another folder"
    if str(path).startswith("-"):
        raise RunError(f"the folder {path} begins with a '-', as options of commands do; name another one")
    run = Run._at(path)
    if run.mirror:
        run.mirror.require_empty(advice)
    else:
        require_empty(run.path, advice)


def require_empty(path: Path, advice: str | None) -> None:
    """Raises RunError unless `path` is missing or a folder, and an empty one where there is `advice` on what to do."""
    if path.is_symlink() and not path.exists():
        raise RunError(f"{path} is a link to nothing; a folder is needed")
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise RunError(f"{place} is a file; a folder is needed")
    if advice and path.is_dir() and any(path.iterdir()):
        raise RunError(f"the folder {path} is not empty; {advice}")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("nas-service", "torch", "torchvision", "ray", "optuna", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
