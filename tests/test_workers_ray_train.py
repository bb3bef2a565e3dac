"""Two Ray Train workers train what one process trains, survive a death and stop when asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm_python
from sklearn.datasets import load_digits

from nas import distributed
from nas.distributed import _work, train_on_ray
from nas.run import Run
from nas.training import Interrupted, train
from search_spaces.network import NetworkSpace, Stage
from supernet import checkpoint
from workers import ray_train

TINY = NetworkSpace("tiny", (Stage((1, 2), (4, 8), (1, 3)), Stage((1,), (8,), (3,))), 1, 1, 8, 10)
RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 360, "lr": 0.05, "dropout": 0.0}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = load_digits()
    file = tmp_path_factory.mktemp("images") / "digits.npz"
    np.savez(file, images=(digits.images * 15).astype(np.uint8), labels=digits.target)
    return file


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(TINY, f"npz:{images}", tmp_path_factory.mktemp("alone") / "run", device="cpu", **RECIPE)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, ray_address: str) -> None:
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")


def assert_equal(run: Run, alone: Run) -> None:
    """Equal weights but for rounding, and one record of every step."""
    tensors, state = checkpoint.load(run.checkpoint)
    expected, expected_state = checkpoint.load(alone.checkpoint)
    assert state["step"] == expected_state["step"]
    for name, tensor in checkpoint.select(expected, "model").items():
        torch.testing.assert_close(
            tensors[f"model.{name}"], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert steps(run) == steps(alone)


def steps(run: Run) -> list[int]:
    return [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]


class Dying:
    """A channel that notes every start; its owner, rank 1, is killed when it has asked four times, once."""

    def __init__(self, channel: ray_train.Channel, folder: Path) -> None:
        self._channel, self._folder, self._asked = channel, folder, 0

    def send(self, message: Any) -> None:
        if message[0] == "start":
            with (self._folder / "starts").open("a") as file:
                file.write(json.dumps(message[1]) + "\n")
        self._channel.send(message)

    def should_stop(self) -> bool:
        self._asked += 1
        if os.environ["RANK"] == "1" and self._asked == 4 and not (self._folder / "died").exists():
            (self._folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._channel.should_stop()


def work_until_killed(out: str, data: str, teacher: None, channel: ray_train.Channel, device: str) -> str | None:
    return _work(out, data, teacher, Dying(channel, Path(out)), device)  # type: ignore[arg-type]


def test_two_workers_train_what_one_process_trains_though_stopped_and_killed(
    alone: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked to stop before the workers are there, so stopped at the first step. Resumed on data that were moved, with a
    worker that dies in the second epoch, so that all go on from the end of the first."""
    before, moved = (shutil.copy(images, tmp_path / name) for name in ("before.npz", "moved.npz"))
    started, records = [], []
    settings: dict[str, Any] = {"num_workers": 2, "device": "cpu", "on_start": lambda *at: started.append(at)}
    with pytest.raises(Interrupted, match=r"continue with: nas train -o .* --resume --num-workers 2$"):
        train_on_ray(TINY, f"npz:{before}", tmp_path / "run", **settings, **RECIPE, should_stop=lambda: True)
    before.unlink()
    monkeypatch.setattr(distributed, "_work", work_until_killed)
    settings |= {"resume": True, "on_record": records.append}
    run = train_on_ray(None, f"npz:{moved}", tmp_path / "run", **settings)
    assert Run.open(run.path).data.spec == f"npz:{moved}"
    assert started == [(0, 6), (1, 6)]
    assert (run.path / "died").exists()
    assert [json.loads(line) for line in (run.path / "starts").read_text().splitlines()] == [[1, 6], [3, 6]]
    assert records[-1] == json.loads(run.metrics.read_text().splitlines()[-1])
    assert_equal(run, alone)
    assert not (run.path / "ray_train").exists()


def test_workers_that_wait_for_gpus_that_ray_lacks_end_with_the_first_request_to_stop(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"num_workers": 2, "device": "cuda", "should_stop": lambda: True}
    hint = r"^stopped before any worker had started; continue with: nas train -o .*/run --resume --num-workers 2$"
    with pytest.raises(Interrupted, match=hint):
        train_on_ray(TINY, "digits", tmp_path / "run", **settings, **RECIPE)
    with pytest.raises(Interrupted, match=hint):
        train_on_ray(None, None, tmp_path / "run", **settings, resume=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--device", "cuda", "--num-workers", "99"], "device 'cuda' takes a GPU for each worker: 99 are wanted"),
        (["--address", "127.0.0.1:1", "--num-workers", "1"], "no Ray cluster answers at '127.0.0.1:1'"),
    ],
    ids=["too few GPUs", "no cluster"],
)
def test_a_ray_that_cannot_train_it_is_refused_before_the_folder_is_made(
    options: list[str], says: str, tmp_path: Path
) -> None:
    command = [warm_python.python(), "-m", "nas.cli", "train", "--space", "digits", "--data", "digits", "-o", "run"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"error: {says}")
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_training_itself_is_raised_and_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a batch of 361 images is not divisible by 2 ranks"):
        train_on_ray(TINY, "digits", tmp_path / "run", num_workers=2, device="cpu", batch_size=361)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="the number of workers is 0"):
        train_on_ray(TINY, "digits", tmp_path / "run", num_workers=0)
    (tmp_path / "gone").mkdir()
    work = partial(_work, str(tmp_path / "gone"), "digits", None)
    with pytest.raises(ValueError, match="gone is not a run folder"):
        ray_train.run_on_ray(work, 2, tmp_path, device="cpu", fatal=(ValueError,))
