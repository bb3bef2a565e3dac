"""What a checkpoint says of itself, read from the head of its file: without torch, and without its tensors."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
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


def head_checksum(state: str, shapes: Mapping[str, Sequence[int]]) -> str:
    """CRC-32 of what a head says: its state as JSON, and names and shapes of the tensors."""
    return str(zlib.crc32(json.dumps([state, sorted((name, list(shape)) for name, shape in shapes.items())]).encode()))


def checked_state(metadata: Mapping[str, str], shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The state that a head holds. Raises KeyError or ValueError where it is not as it was written."""
    checksum = head_checksum(metadata["state"], shapes)
    if metadata.get("head_crc32", checksum) != checksum:  # earlier versions wrote none
        raise ValueError("its head does not match its checksum")
    state: dict[str, Any] = json.loads(metadata["state"])
    return state


def state_of(name: str, read: Callable[[int, int], bytes], size: int | None = None) -> dict[str, Any]:
    """The state in the head of a checkpoint, wherever it lies.

    name: what errors call it. read: its bytes from a position up to another. size: of the whole in bytes, where known.
    Raises CheckpointError for what is no checkpoint, or does not have the size that its head implies.
    """
    try:
        (length,) = struct.unpack("<Q", read(0, 8))
        if length > _MOST_HEADER:
            raise ValueError("it has no safetensors header")
        header = json.loads(read(8, 8 + length))
        parts = {key: part for key, part in header.items() if key != "__metadata__"}
        ends = [part["data_offsets"][1] for part in parts.values()]
        end = 8 + length + max(ends, default=0)
        if size not in (None, end):
            raise ValueError(f"it should have {end} bytes")
        metadata = header.get("__metadata__", {})
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"{name} is not a checkpoint of this version ({FORMAT})")
        shapes = {key: part["shape"] for key, part in parts.items()}
        return checked_state(metadata, shapes)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{name} is damaged or not a checkpoint ({error})") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return state_of(
                str(path),
                lambda start, end: os.pread(file.fileno(), end - start, start),
                os.fstat(file.fileno()).st_size,
            )
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error})") from None
