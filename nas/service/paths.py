"""Names from requests as files: nothing outside a folder can be named, by whatever spelling or link."""

from __future__ import annotations

from pathlib import Path


def inside(folder: Path, name: str) -> Path:
    """The existing file or folder `name`, relative to `folder`.

    Raises FileNotFoundError for what does not exist, and for what would leave the folder in any way: an absolute name,
    `..`, a link to elsewhere. It does not say which, so that nobody learns what exists there.
    """
    refusal = FileNotFoundError(f"there is no {name!r}")
    if not name or "\0" in name or "\\" in name or len(name) > 1000:
        raise refusal
    try:
        place = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError):
        raise refusal from None
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not place.is_relative_to(folder.resolve()):
        raise refusal
    return place
