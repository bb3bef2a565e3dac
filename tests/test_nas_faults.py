"""A real search on a Ray cluster whose workers, machines and driver are killed, and two searches over one supernet."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm_python
from ray.cluster_utils import Cluster

from benchmarks import fault_injection
from benchmarks.fault_injection import Search, inject, kill_machine, raylet, start_cluster
from nas.run import Run
from nas.store import read_study

N_TRIALS = 240  # one worker takes longer than a second machine to join


@pytest.fixture(autouse=True)
def ray_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(fault_injection, "PYTHON", warm_python.python())


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head on which no worker fits."""
    cluster = start_cluster(num_nodes=0)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_whatever_is_killed_the_history_is_the_same_and_nothing_is_evaluated_twice(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(warm_python.RAY_WORKERS)  # those to be killed are found as children of their raylet
    report = inject(trained_run, tmp_path, kills=1, seed=0)
    assert collections.Counter(kill["kind"] for kill in report["kills"]) == {"worker": 1, "machine": 1, "driver": 1}
    assert report["failed_trials"] == 0
    assert report["equal_histories"]
    assert report["each_evaluated_once"]


@pytest.mark.slow
def test_machines_that_join_are_used_and_those_that_leave_are_not_missed(run_copy: Path, cluster: Cluster) -> None:
    search = Search(Run(run_copy), N_TRIALS, ["--num-workers", "2", "--address", cluster.address])
    try:
        search.start()
        while "2 workers of 1 CPU each are wanted, Ray has 0 in all" not in search.log():
            time.sleep(0.1)
        first = cluster.add_node(num_cpus=1)
        search.wait_for(5)
        cluster.add_node(num_cpus=1)
        while len(search.workers()) < 2:
            assert search.process is not None
            assert search.process.poll() is None, search.log()
            time.sleep(0.1)
        kill_machine(raylet(first))  # for good: from here on one worker waits
        search.finish()
    finally:
        search.end()
    assert [state for _, _, state, _ in search.history()] == ["complete"] * N_TRIALS
    assert len(search.workers()) == 2


def test_two_searches_of_one_supernet_share_evaluations(run_copy: Path) -> None:
    """The same proposals at the same time: what one has evaluated the other finds, and nothing enters twice."""
    options = ["--num-workers", "0", "--strategy", "random"]
    first = Search(Run(run_copy), 20, options)
    second = Search(Run(run_copy), 20, [*options, "--study-name", "second"])
    try:
        first.start()
        first.wait_for(5)
        second.start()
        first.finish()
        second.finish()
    finally:
        first.end()
        second.end()
    trials = read_study(Run(run_copy).study("second")).trials
    assert [(t.number, t.arch.key, t.state, dict(t.metrics)) for t in trials] == first.history()
    assert [trial.worker for trial in trials[:5]] == ["cache"] * 5
    assert first.cached() == collections.Counter(trial.arch.key for trial in trials)
