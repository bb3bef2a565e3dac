"""Two Ray Train workers train what one process trains, survive a death and stop when asked."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.distributed import _work, train_on_ray
from nas.run import Run
from nas.training import Interrupted, train
from search_spaces.network import NetworkSpace, Stage
from supernet import checkpoint
from workers import ray_train

TINY = NetworkSpace("tiny", (Stage((1, 2), (4, 8), (1, 3)), Stage((1,), (8,), (3,))), 1, 1, 8, 10)
RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 360, "lr": 0.05, "dropout": 0.0}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(TINY, "digits", tmp_path_factory.mktemp("alone") / "run", device="cpu", **RECIPE)


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


def test_two_workers_train_what_one_process_trains_and_can_be_stopped(alone: Run, tmp_path: Path) -> None:
    """Asked to stop before the workers are there, so stopped at the first step; resumed to the end."""
    started, records = [], []
    settings: dict[str, Any] = {"num_workers": 2, "device": "cpu"}
    with pytest.raises(Interrupted, match=r"continue with: nas train -o .* --resume"):
        train_on_ray(
            TINY, "digits", tmp_path / "run", **settings, **RECIPE,
            on_start=lambda *at: started.append(at), should_stop=lambda: True,
        )  # fmt: skip
    run = train_on_ray(None, None, tmp_path / "run", **settings, resume=True, on_record=records.append)
    assert started == [(0, 6)]
    assert records[-1] == json.loads(run.metrics.read_text().splitlines()[-1])
    assert_equal(run, alone)
    assert not (run.path / "ray_train").exists()


class Dying:
    """A channel whose owner, rank 1, is killed when it has asked four times, once."""

    def __init__(self, channel: ray_train.Channel, marker: Path) -> None:
        self.send, self.marker, self.asked = channel.send, marker, 0

    def should_stop(self) -> bool:
        self.asked += 1
        if os.environ["RANK"] == "1" and self.asked == 4 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def work_until_killed(out: str, channel: ray_train.Channel, device: str) -> str | None:
    return _work(out, Dying(channel, Path(out) / "died"), device)  # type: ignore[arg-type]


def test_a_dead_worker_is_replaced_and_training_goes_on_from_the_checkpoint(alone: Run, tmp_path: Path) -> None:
    from nas.training import make_run
    from supernet.distributed import Ranks

    run, starts = make_run(TINY, "digits", tmp_path / "run", Ranks(0, 2), **RECIPE), []

    def note(message: tuple[str, Any]) -> None:
        if message[0] == "start":
            starts.append(message[1])

    ray_train.run_on_ray(partial(work_until_killed, str(run.path)), 2, run.path, device="cpu", on_message=note)
    assert (run.path / "died").exists()
    assert starts == [(0, 6), (3, 6)]
    assert_equal(run, alone)


def test_an_error_of_the_training_itself_is_raised_and_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a batch of 361 images is not divisible by 2 ranks"):
        train_on_ray(TINY, "digits", tmp_path / "run", num_workers=2, device="cpu", batch_size=361)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="the number of workers is 0"):
        train_on_ray(TINY, "digits", tmp_path / "run", num_workers=0)
    (tmp_path / "gone").mkdir()
    work = partial(_work, str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="gone is not a run folder"):
        ray_train.run_on_ray(work, 2, tmp_path, device="cpu", fatal=(ValueError,))
