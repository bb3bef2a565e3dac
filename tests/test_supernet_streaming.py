"""Folders too large for memory: same splits as in memory, and batches that depend on seed, epoch and step alone."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trainings import assert_same_run, train_all

import nas.training
from supernet import datasets, folders, streaming
from supernet.batches import train_batches
from supernet.data import DataError, ImageData, fingerprint, prepare
from supernet.distributed import Ranks
from supernet.evaluate import count_correct, recalibrate
from supernet.model import Supernet
from supernet.recipe import TrainConfig
from supernet.streaming import ImageFiles
from supernet.train import Trainer

CLASSES, PER_CLASS, SIZE, BATCH = 3, 30, 16, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes and shapes; no two are alike."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        (root / f"class{label}").mkdir()
        for number in range(PER_CLASS):
            pixels = rng.integers(0, 256, (20 + number % 5, 24 + label, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class{label}" / f"{number:03}.png")
    return root


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, bound: int = 0, **options: bool) -> ImageData:
    monkeypatch.setattr(folders, "MEMORY_BOUND", bound)
    return prepare(datasets.load(f"folder:{folder}", image_size=SIZE, **options), seed=1)


@pytest.fixture
def streamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ImageData:
    return load(folder, monkeypatch)


def batches(data: ImageData, epoch: int = 0, start: int = 0, rows: torch.Tensor | None = None) -> list:
    return list(train_batches(data, BATCH, 5, epoch, start, rows))


def assert_same(found: list, expected: list) -> None:
    assert [step for step, *_ in found] == [step for step, *_ in expected]
    for (_, images, labels), (_, expected_images, expected_labels) in zip(found, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


def test_a_folder_is_streamed_where_its_images_would_exceed_the_bound(folder, monkeypatch):
    total = CLASSES * PER_CLASS * 3 * SIZE**2
    assert folders.MEMORY_BOUND == 2 * 2**30
    assert isinstance(load(folder, monkeypatch, total).train.images, torch.Tensor)
    assert isinstance(load(folder, monkeypatch, total - 1).train.images, ImageFiles)


def test_classes_splits_and_decoded_images_are_those_of_the_in_memory_reader(folder, streamed, monkeypatch):
    memory = load(folder, monkeypatch, 2**40)
    assert (streamed.classes, streamed.flip, streamed.image_size, streamed.in_channels) == (
        memory.classes, memory.flip, memory.image_size, memory.in_channels,
    )  # fmt: skip
    for name in ("train", "calibration", "validation", "test"):
        found, expected = getattr(streamed, name), getattr(memory, name)
        assert torch.equal(found.labels, expected.labels)
        decoded = found.images.decoded() if name in ("train", "test") else found.images
        assert torch.equal(decoded, expected.images)
    assert torch.equal(torch.cat(list(streamed.test.images.split(7))), memory.test.images)
    assert streamed.mean == pytest.approx(memory.mean, abs=0.02)


def test_the_images_of_a_batch_are_those_of_the_in_memory_batch(folder, streamed, monkeypatch):
    monkeypatch.setattr(streaming._Augmented, "transform", property(lambda self: lambda image: torch.zeros(3, 1, 1)))
    memory = load(folder, monkeypatch, 2**40)
    for (_, _, labels), (_, _, expected) in zip(batches(streamed), batches(memory), strict=True):
        assert torch.equal(labels, expected)


def test_batches_do_not_depend_on_the_number_of_processes(streamed, monkeypatch):
    monkeypatch.setattr(streaming, "loader_processes", lambda: 0)
    alone = batches(streamed)
    before = torch.get_rng_state()
    assert_same(batches(streamed), alone)
    monkeypatch.setattr(streaming, "loader_processes", lambda: 2)
    assert_same(batches(streamed), alone)
    assert torch.equal(torch.get_rng_state(), before), "dropout's generator must not be drawn from"
    assert len(alone) == len(streamed.train) // BATCH
    assert alone[0][1].shape == (BATCH, 3, SIZE, SIZE)


def test_batches_of_processes_are_not_in_shared_memory(streamed, monkeypatch):
    """Of which torch keeps references, between which the heap of the training process would grow."""
    monkeypatch.setattr(streaming, "loader_processes", lambda: 1)
    order = torch.arange(len(streamed.train))
    (batch,) = streamed.train.images.batches([order[:BATCH]], order, int, False)
    assert batch.shape == (BATCH, 3, SIZE, SIZE)
    assert not batch.is_shared()


def test_batches_depend_on_the_epoch_and_not_on_where_it_is_entered(streamed):
    first, second = batches(streamed), batches(streamed, epoch=1)
    assert_same(batches(streamed, start=3), first[3:])
    assert not torch.equal(first[0][1], second[0][1])
    assert len({images.sum().item() for _, batch, _ in first for images in batch}) == len(first) * BATCH


def test_the_ranks_batches_make_up_the_batch(streamed):
    shares = [batches(streamed, rows=Ranks(rank, 2).rows(BATCH, 1)) for rank in range(2)]
    joined = [(a[0], torch.cat([a[1], b[1]]), torch.cat([a[2], b[2]])) for a, b in zip(*shares, strict=True)]
    assert_same(joined, batches(streamed))


def test_a_run_stopped_inside_an_epoch_resumes_bit_for_bit(streamed, tmp_path):
    def trainer() -> Trainer:
        from search_spaces.network import NetworkSpace, Stage

        torch.manual_seed(0)
        space = NetworkSpace("tiny", (Stage((1,), (4, 8), (1, 3)),), 0, 3, SIZE, CLASSES)
        return Trainer(Supernet(space), streamed, TrainConfig(epochs=1, batch_size=BATCH), "cpu")

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_all(trainer(), whole)
    assert not train_all(trainer(), parts, stop_at=3)
    second = trainer()
    second.restore(parts / "checkpoint.safetensors")
    assert train_all(second, parts)
    assert_same_run(parts, whole)
    subnet = second.supernet.export(second.supernet.space.smallest())
    recalibrate(subnet, streamed.calibration.images, streamed.mean, streamed.std)
    assert 0 <= count_correct(subnet, streamed.test, streamed.mean, streamed.std) <= len(streamed.test)


def test_the_fingerprint_tells_folders_of_other_files_apart(folder, streamed, monkeypatch, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint(load(copy, monkeypatch)) == fingerprint(streamed)
    train = load(copy, monkeypatch).train.images
    path = train.path(0)
    path.write_bytes(path.read_bytes() + b"\0")
    assert fingerprint(load(copy, monkeypatch)) != fingerprint(streamed)


def test_a_file_that_cannot_be_decoded_is_named_or_left_out(folder, monkeypatch, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    broken = load(copy, monkeypatch).train.images.path(0)
    broken.write_bytes(broken.read_bytes()[:60])
    monkeypatch.setattr(streaming, "loader_processes", lambda: 1)
    with pytest.raises(DataError, match=f"cannot read image {broken}"):
        batches(load(copy, monkeypatch))
    memory = load(copy, monkeypatch, 2**40, skip_corrupt=True)
    data = load(copy, monkeypatch, skip_corrupt=True)
    assert data.skipped == memory.skipped == 1
    assert torch.equal(data.train.labels, memory.train.labels)


def test_a_test_picture_that_cannot_be_decoded_is_named_before_anything_is_trained(folder, monkeypatch, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    broken = load(copy, monkeypatch).test.images.path(3)
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=f"cannot read image {broken}"):
        nas.training.train("resnet_cifar", f"folder:{copy}", tmp_path / "run", image_size=SIZE, device="cpu")
    assert not (tmp_path / "run").exists()


PEAK = """
import resource, sys
from supernet import data, datasets, folders, streaming
from supernet.batches import train_batches
folders.MEMORY_BOUND = 0
streaming.loader_processes = lambda: 1
data.MOST_CALIBRATION = data.MOST_VALIDATION = 20  # these two are in memory, and reach their bounds far below it
images = data.prepare(datasets.load(f"folder:{sys.argv[1]}", image_size=128, skip_corrupt=True), seed=0)
for step, batch, labels in train_batches(images, 8, 0, 0):
    pass
for part in images.test.images.split(32):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_peak_memory_does_not_depend_on_the_number_of_files(tmp_path):
    """Three times the files, looked through for corrupt ones, trained on and scored: 600 images more are 29 MB."""
    rng, peaks = np.random.default_rng(0), []
    picture = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(picture, "JPEG")
    for count in (300, 900):
        for label in ("a", "b"):
            (tmp_path / str(count) / label).mkdir(parents=True)
            for number in range(count // 2):
                (tmp_path / str(count) / label / f"{number}.jpg").write_bytes(picture.getvalue())
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(tmp_path / str(count))],
            cwd=Path(__file__).parent.parent, check=True, capture_output=True, text=True,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 600 * 3 * 128**2 / 3


KILLED = """
import os, signal, sys, torch
from supernet import streaming
from supernet.streaming import ImageFiles
from pathlib import Path
streaming.loader_processes = lambda: 1
paths = sorted(Path(sys.argv[1]).rglob("*.png"))
files = ImageFiles.of(Path(sys.argv[1]), paths, 96)
steps = torch.arange(90).split(10)  # a batch is 276 kB, more than a pipe holds
batches = files.batches(steps, torch.arange(90), lambda number: number, flip=True)
next(batches)
children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
print(*children, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_loader_processes_end_with_a_training_that_is_killed(folder):
    """The loader has the output's other end, too: reading it ends with the last process."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(done.stdout.split()) == 1
