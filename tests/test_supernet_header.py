"""The state of a checkpoint, read without its tensors: what `load` gives, or a clear error."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

from supernet import checkpoint, header

STATE = {"step": 7, "weights_hash": "é" * 64, "nested": {"a": [1, None, 0.5]}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "c.safetensors"
    checkpoint.save(file, {"a": torch.arange(5.0), "b": torch.ones(2, 3, dtype=torch.int64)}, STATE)
    return file


def test_it_is_the_state_that_load_gives(path: Path) -> None:
    assert header.read_state(path) == checkpoint.load(path)[1] == STATE
    checkpoint.save(path, {}, {"step": 8})
    assert header.read_state(path) == checkpoint.load(path)[1] == {"step": 8}


def test_the_checkpoint_before_stands_in_for_a_truncated_one(path: Path) -> None:
    checkpoint.save(path, {"a": torch.zeros(3)}, {"step": 8})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert header.read_state(path) == STATE
    path.unlink()
    assert header.read_state(path) == checkpoint.load(path)[1] == STATE


def framed(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is something else",
        framed(b"[]"),
        framed(b'{"__metadata__": {"format": "other"}}'),
        framed(b'{"__metadata__": {"format": "nas-checkpoint-2"}}'),
        framed(b'{"__metadata__": {"format": "nas-checkpoint-2", "state": "{"}}'),
        framed(json.dumps({"x": {"data_offsets": []}}).encode()),
        framed(b"\xff\xfe"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "c.safetensors"
    file.write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"c\.safetensors is (not a checkpoint|damaged)"):
        header.read_state(file)


def test_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.CheckpointError, match=r"no checkpoint .*none\.safetensors"):
        header.read_state(tmp_path / "none.safetensors")
