"""TensorBoard's curves are an extra: they end with a disk that is full, and the training does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rich.console import Console

from nas.progress import TrainingProgress, _EventFile

RECORD = {"step": 10, "epoch": 1, "lr": 0.1, "loss_max": 2.3, "images_per_s": 100.0}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_curves_on_a_full_disk_neither_fail_nor_block(tmp_path, monkeypatch):
    """The queue before tensorboardX's thread holds ten values, and the thread would have died of the first."""
    monkeypatch.setattr(_EventFile, "open", classmethod(lambda cls, path: cls("/dev/full")))
    with TrainingProgress(Console(file=sys.stderr), tmp_path / "curves") as progress:
        progress.start(0, 1000)
        for step in range(10, 1000, 10):
            progress.record(RECORD | {"step": step})


def test_curves_hold_what_was_recorded(tmp_path):
    with TrainingProgress(Console(file=sys.stderr), tmp_path / "curves") as progress:
        progress.start(0, 10)
        progress.record(RECORD)
    (file,) = (tmp_path / "curves").iterdir()
    for name in ("lr", "loss_max", "images_per_s"):
        assert name.encode() in file.read_bytes()
