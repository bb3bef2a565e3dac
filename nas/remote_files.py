"""What is known of the files of a remote run's mirror, and how two versions of one are compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from nas.json_file import write_json

PRIVATE = (".lock", ".writer", ".tmp", ".previous", ".status.json")  # neither pulled nor published

Comparison = Literal["same", "ours", "theirs", "neither"]


class Records:
    """For each file its signature there and its version here, of when both were the same, kept in a file of JSON.

    A version of None: what is here goes further, and is yet to be published. mirror: tells this mirror from any other.
    """

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
        """Forgets everything, for a mirror that begins anew."""
        self.mirror, self.files = uuid4().hex, {}
        self._save()

    def there(self, name: str) -> str | None:
        """The remote's signature of a file, or None."""
        return self.files.get(name, [None, None])[0]

    def here(self, name: str) -> str | None:
        """The mirror's version of a file, or None."""
        return self.files.get(name, [None, None])[1]

    def set(self, name: str, there: str | None, here: str | None) -> None:
        """Notes both, at once and durably."""
        self.files[name] = [there, here]
        self._save()

    def _save(self) -> None:
        write_json(self._path, {"url": self._url, "mirror": self.mirror, "files": self.files})


def is_shared(name: str) -> bool:
    """Whether a file belongs to the run, and not to this machine alone."""
    return not name.endswith(PRIVATE) and not name.startswith("ray_train/")


def version_of(file: Path) -> str:
    """What changes whenever a file of this machine does."""
    status = file.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def complete_lines(data: bytes) -> bytes:
    """The complete lines: a killed writer may have left half of one."""
    return data[: data.rfind(b"\n") + 1]


def compare_journals(ours: Path, theirs: Path) -> Comparison:
    """Which of two journals of a study goes further.

    Where neither file is the beginning of the other, the trials decide: two machines that continued a study from the
    same trial have written other times and workers, and, as the seed decides the trials, the same trials.
    """
    mine, others = complete_lines(ours.read_bytes()), complete_lines(theirs.read_bytes())
    if mine == others:
        return "same"
    if mine.startswith(others):
        return "ours"
    if others.startswith(mine):
        return "theirs"
    trials, other_trials = _history(ours), _history(theirs)
    if trials == other_trials[: len(trials)] != []:
        return "theirs"
    return "ours" if trials[: len(other_trials)] == other_trials != [] else "neither"


def _history(journal: Path) -> list[Any]:
    """What decides a study and what came of it; empty where it cannot be read."""
    from nas.store import StudyError, read_study  # slow to import, and rarely needed

    try:
        study = read_study(journal)
    except StudyError:
        return []
    return [asdict(study.identity), *((t.number, t.arch.key, t.state, dict(t.metrics)) for t in study.trials)]
