"""What a checkpoint says of itself, read from the head of its file: without torch, and without its tensors."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

FORMAT = "nas-checkpoint-2"

_MOST_HEADER = 100_000_000  # bytes, of the safetensors format


class CheckpointError(RuntimeError):
    """A file is missing, damaged, or not one of ours; the message names it."""


def previous(path: Path) -> Path:
    """Where the checkpoint before the last is kept."""
    return path.with_name(path.name + ".previous")


def read_state(path: Path) -> dict[str, Any]:
    """The state that `supernet.checkpoint.load` would give, of the same file, but for damage inside the tensors.

    Raises CheckpointError naming the file when neither the checkpoint nor the one before it can be read.
    """
    try:
        return _read(path)
    except CheckpointError:
        if not previous(path).exists():
            raise
        return _read(previous(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _MOST_HEADER:
                raise ValueError("it has no safetensors header")
            header = json.loads(file.read(size))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
            end = 8 + size + max(ends, default=0)
            if os.fstat(file.fileno()).st_size != end:
                raise ValueError(f"it should have {end} bytes")
        metadata = header.get("__metadata__", {})
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is not a checkpoint of this version ({FORMAT})")
        state: dict[str, Any] = json.loads(metadata["state"])
        return state
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error})") from None
