"""A service that starts its searches on a Ray cluster: they are stopped and resumed, and so is one that began here.

Their names are in several scripts.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import devices
import ray_clusters
from services import ROOT, serving

from nas.client import Client
from nas.run import Run
from nas.searching import search_run
from nas.store import read_study

TOKEN = "0123456789abcdef" * 2
RUN, STUDY = "Lauf 1 日本", "Größe-α"


def test_a_search_on_a_cluster_is_stopped_and_resumed(trained_run: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_run, tmp_path / "root" / RUN)
    settings = {"n_trials": 80, "strategy": "random", "seed": 5, "limits": {"macs": 3e6}}
    local = Run.open(tmp_path / "root" / RUN)
    profiles = [devices.profile(local.space, name) for name in ("slow", "fast")]
    beyond_any_option = {"latency_ms_slow": (None, 1e3), "peak_memory": (1.0, 1e9)}
    search_run(
        local, n_trials=4, num_workers=0, strategy="random", study_name="local", limits=beyond_any_option,
        profiles=[profiles[0], replace(profiles[1], device=profiles[1].device | {"threads": 2})],
    )  # fmt: skip
    with ray_clusters.started_cluster(TOKEN) as variables:
        variables |= {"PYTHONPATH": str(ROOT)}
        address = variables["RAY_API_SERVER_ADDRESS"]
        with serving(tmp_path / "root", "--address", address, **variables) as url:
            client = Client(url)
            job = client.start(RUN, study=STUDY, num_workers=1, **settings)
            assert job["ray_id"].startswith(f"nas-{STUDY}-")
            _until(lambda: _n_trials(client) > 3)
            assert client.study(RUN, STUDY)["state"] == "searching"
            client.stop(RUN, STUDY)
            assert client.job(job["id"])["state"] == "stopped"
            done = _n_trials(client)
            assert 3 < done < 80
            again = client.resume(RUN, STUDY, num_workers=2)
            assert client.wait(again["id"])["state"] == "succeeded"
            moved = client.resume(RUN, "local", n_trials=8, num_workers=1)
            assert moved["ray_id"].startswith("nas-local-")
            assert client.wait(moved["id"])["state"] == "succeeded"
        with serving(tmp_path / "root", "--address", address, **variables) as url:
            assert [job["state"] for job in Client(url).jobs()] == ["succeeded", "succeeded", "stopped"]
    assert len(read_study(local.study(STUDY)).trials) == 80
    workers = [trial.worker for trial in read_study(local.study("local")).trials]
    assert len(workers) == 8
    assert set(workers[:4]).isdisjoint(workers[4:])


def _n_trials(client: Client) -> int:
    return next((int(study["n_trials"]) for study in client.studies(RUN) if study["study"] == STUDY), 0)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
