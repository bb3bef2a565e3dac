"""One file that holds a training run: tensors as safetensors, everything else as JSON in its header.

A write goes to a temporary file, is flushed to disk and then takes the place of the last one, which stays beside it
as `*.previous`. So at any moment, through a crash or a full disk, there is a complete checkpoint to read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from supernet.header import FORMAT, CheckpointError, checked_state, head_checksum, previous

__all__ = ["FORMAT", "CheckpointError", "exists", "load", "previous", "save", "select", "weights_hash"]

log = logging.getLogger(__name__)


def save(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replaces the checkpoint at `path` atomically. Raises OSError when the disk is full; the old one then stands.

    tensors: by name, from any device. state: JSON-serialisable.
    """
    flat = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text, shapes = json.dumps(state), {name: t.shape for name, t in flat.items()}
    metadata = {
        "format": FORMAT, "state": text, "crc32": str(_crc32(flat)), "head_crc32": head_checksum(text, shapes),
    }  # fmt: skip
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:  # not by `save_file`, which begins under a random name that a kill leaves
            file.write(serialize(flat, metadata))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.replace(path, previous(path))
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {path} ({error}); the last complete checkpoint is kept") from error


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state of the checkpoint at `path`, or of the one before where that is damaged.

    Raises CheckpointError naming the file when neither can be read.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        if not previous(path).exists():
            raise
        log.warning("%s; using %s", error, previous(path))
        return _read(previous(path))


def exists(path: Path) -> bool:
    """Whether there is anything to resume from."""
    return path.exists() or previous(path).exists()


def select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix.`, without it."""
    return {name.removeprefix(prefix + "."): t for name, t in tensors.items() if name.startswith(prefix + ".")}


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, as 64 hex digits: the identity of a set of weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path} is not a checkpoint of this version ({FORMAT})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({error})") from None
    if metadata.get("crc32") != str(_crc32(tensors)):
        raise CheckpointError(f"{path} is damaged (its contents do not match their checksum)")
    try:
        return tensors, checked_state(metadata, {name: t.shape for name, t in tensors.items()})
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error})") from None


def _crc32(tensors: Mapping[str, Tensor]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(_bytes(tensors[name]), value)
    return value


def _bytes(tensor: Tensor) -> Any:
    return tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b""
