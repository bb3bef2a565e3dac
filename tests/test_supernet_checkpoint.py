"""A checkpoint is whole or the one before is: truncation, foreign files and a full disk lose nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from supernet import checkpoint
from supernet.header import read_state


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.safetensors"


def write(path, value):
    checkpoint.save(path, {"a": torch.full((100,), float(value)), "b": torch.tensor(value)}, {"step": value})


def test_what_is_saved_is_loaded(path):
    tensors = {"float": torch.randn(3, 4), "bytes": torch.arange(9, dtype=torch.uint8), "empty": torch.zeros(0)}
    checkpoint.save(path, tensors | {"transposed": torch.randn(3, 4).T}, {"nested": {"x": [1, None]}})
    loaded, state = checkpoint.load(path)
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert loaded["transposed"].shape == (4, 3)
    assert state == {"nested": {"x": [1, None]}}


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 300, -1], ids=lambda n: f"{n} bytes")
def test_a_truncated_file_falls_back_to_the_previous_one(path, keep, caplog):
    write(path, 1)
    write(path, 2)
    path.write_bytes(path.read_bytes()[:keep])
    assert checkpoint.load(path)[1] == {"step": 1}
    assert str(path) in caplog.text
    assert "damaged" in caplog.text


def test_a_flipped_bit_is_noticed(path):
    write(path, 1)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(checkpoint.CheckpointError, match="its contents do not match their checksum"):
        checkpoint.load(path)


def test_a_bit_flipped_anywhere_in_the_head_is_noticed_or_changes_nothing(path, caplog):
    """By who reads the tensors as by who reads the state alone."""
    write(path, 1)
    write(path, 2)
    whole = path.read_bytes()
    caplog.set_level("CRITICAL")
    used = set()
    for position in range(8 + int.from_bytes(whole[:8], "little")):
        for bit in (0, 1, 6):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(bytes(damaged))
            tensors, state = checkpoint.load(path)
            used.add(state["step"])
            assert state in ({"step": 1}, {"step": 2})
            assert torch.equal(tensors["a"], torch.full((100,), float(state["step"])))
            assert tensors["b"] == state["step"]
            assert read_state(path) in ({"step": 1}, {"step": 2})
    assert used == {1, 2}  # a letter of the checksum's own name may go


def test_a_checkpoint_of_before_heads_had_a_checksum_is_read(path):
    write(path, 1)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in ("a", "b")}
    del metadata["head_crc32"]
    save_file(tensors, path, metadata)
    assert checkpoint.load(path)[1] == read_state(path) == {"step": 1}


def test_a_write_interrupted_between_its_two_renames_leaves_the_previous_one(path):
    write(path, 1)
    path.rename(checkpoint.previous(path))
    assert checkpoint.exists(path)
    assert checkpoint.load(path)[1] == {"step": 1}


@pytest.mark.parametrize("make", ["missing", "empty", "text", "folder", "foreign"])
def test_what_is_no_checkpoint_is_named(path, make):
    {
        "missing": lambda: None,
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("these are no weights"),
        "folder": lambda: path.mkdir(),
        "foreign": lambda: save_file({"x": torch.ones(2)}, path),
    }[make]()
    with pytest.raises(checkpoint.CheckpointError, match=r"checkpoint\.safetensors"):
        checkpoint.load(path)


_FILL_THE_DISK = """
import resource, sys, torch
from pathlib import Path
from supernet import checkpoint
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))   # stands for a full disk: the write fails half way
try:
    checkpoint.save(path, {"a": torch.ones(100_000)}, {"step": 2})
except OSError as error:
    print(error)
"""


def test_a_full_disk_keeps_the_last_checkpoint_and_leaves_no_litter(path):
    write(path, 1)
    done = subprocess.run([sys.executable, "-c", _FILL_THE_DISK, str(path)], capture_output=True, text=True, check=True)
    assert f"cannot write {path}" in done.stdout
    assert "the last complete checkpoint is kept" in done.stdout
    assert checkpoint.load(path)[1] == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096  # the limit was the child's alone


def test_only_names_that_the_next_write_takes_again_are_there_while_one_is_written(path):
    """So a killed write leaves nothing for good, and nothing that a bucket would be given."""
    seen, done = set(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.update(entry.name for entry in path.parent.iterdir())

    watching = threading.Thread(target=watch)
    watching.start()
    for _ in range(5):
        checkpoint.save(path, {"a": torch.zeros(5_000_000)}, {})
    done.set()
    watching.join()
    assert f"{path.name}.tmp" in seen
    assert seen <= {path.name, f"{path.name}.tmp", checkpoint.previous(path).name}


def test_the_hash_tells_weights_apart():
    weights = {"a": torch.zeros(4), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.zeros(4)}
    assert checkpoint.weights_hash(weights) == checkpoint.weights_hash(same)
    for other in ({"a": torch.zeros(4)}, weights | {"a": torch.zeros(2, 2)}, weights | {"b": torch.tensor([1.0, 2.0])}):
        assert checkpoint.weights_hash(weights) != checkpoint.weights_hash(other)
