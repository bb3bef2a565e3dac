"""Ray Tune under one function: who is stopped, who begins again, and what ends a call."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from workers.ray_tune import Halving, RayTuneError, Sample, run_on_tune

pytestmark = pytest.mark.usefixtures("ray_address")

EPOCHS = 4


def work(config, shared, report):
    """Reports `config["score"]` after each epoch, and does what `config` says besides."""
    log = Path(config["log"])
    with log.open("a") as file:
        file.write(f"{config['name']}\n")
    if config.get("raises"):
        raise ValueError("no such thing")
    for epoch in range(1, EPOCHS + 1):
        if epoch == 2 and log.read_text().split().count(config["name"]) <= config.get("dies", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if epoch == 2 and config.get("waits"):
            time.sleep(60)
        report(config["score"] * shared["unit"][0], {"epoch": epoch, "pid": os.getpid()})


class Runner:
    """Calls `run_on_tune` and keeps what it told."""

    def __init__(self, folder):
        self.folder, self.log = folder, folder / "log"
        self.outcomes, self.scores = {}, []

    def __call__(self, *samples, num_workers=1, past=None, **options):
        options = {"on_outcome": lambda outcome: self.outcomes.__setitem__(outcome.index, outcome)} | options
        return run_on_tune(
            work,
            [Sample(group, {"score": score, "log": str(self.log), "name": str(index), **more})
             for index, (group, score, more) in enumerate(samples)],
            {"unit": np.ones(1)}, Halving(EPOCHS, reduction=2, past=past), self.folder / "tune",
            num_workers=num_workers, on_score=lambda *told: self.scores.append(told), **options,
        )  # fmt: skip

    @property
    def reached(self):
        return {index: len(outcome.scores) for index, outcome in sorted(self.outcomes.items())}

    @property
    def starts(self):
        return Counter(self.log.read_text().split())


@pytest.fixture
def run(tmp_path):
    return Runner(tmp_path)


def test_worse_samples_are_stopped_early_within_their_group_alone(run):
    """One worker, so that the order is known: a group's first has nobody to lose to."""
    assert run(("a", 5.0, {}), ("b", 1.0, {}), ("a", 4.0, {}), ("b", 0.5, {}), ("a", 6.0, {}))
    assert run.reached == {0: EPOCHS, 1: EPOCHS, 2: 1, 3: 1, 4: EPOCHS}
    assert run.outcomes[0].scores == (5.0,) * EPOCHS
    assert [run.outcomes[i].value["epoch"] for i in range(5)] == [EPOCHS, EPOCHS, 1, 1, EPOCHS]
    assert run.scores[: EPOCHS + 1] == [*((0, epoch, 5.0) for epoch in range(1, EPOCHS + 1)), (1, 1, 1.0)]
    assert len({outcome.value["pid"] for outcome in run.outcomes.values()}) == 1
    assert set(os.listdir(run.folder)) == {"log"}
    assert not (Path.home() / "ray_results").exists()


def test_samples_of_earlier_calls_compete(run):
    assert run(("a", 5.0, {}), ("b", 5.0, {}), past={"a": [(7.0,) * EPOCHS]})
    assert run.reached == {0: 1, 1: EPOCHS}


def test_a_sample_whose_worker_dies_begins_again(run):
    assert run(("a", 1.0, {"dies": 1}))
    assert run.starts == {"0": 2}
    assert run.outcomes[0].scores == (1.0,) * EPOCHS


def test_what_fails_for_good_is_raised_after_the_others_have_ended(run):
    with pytest.raises(RayTuneError, match=r"2 of 3 samples failed, the first with: ") as failure:
        run(("a", 1.0, {"raises": True}), ("b", 1.0, {"dies": 9}), ("c", 1.0, {}), num_workers=3)
    assert "ValueError: no such thing" in str(failure.value)
    assert run.starts == {"0": 1, "1": 4, "2": 1}
    assert run.reached == {2: EPOCHS}


def test_an_error_of_the_caller_is_raised_as_it_is(run):
    def full(outcome):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(("a", 1.0, {}), ("b", 1.0, {}), ("c", 1.0, {}), on_outcome=full)
    assert run.starts.keys() <= {"0", "1"}


def test_a_request_to_stop_abandons_what_is_under_way(run):
    """Asked while the second sample is in an epoch that it would not end in a minute."""
    waiting = (1, 1, 1.0)
    assert not run(("a", 1.0, {}), ("b", 1.0, {"waits": True}), should_stop=lambda: waiting in run.scores)
    assert run.reached == {0: EPOCHS}
    assert set(os.listdir(run.folder)) == {"log"}
