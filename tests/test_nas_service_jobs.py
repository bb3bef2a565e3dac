"""Searches and exports started through a running service: several at once, across restarts, kills and stops."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import warm_python
from services import ROOT, TOKEN, environment, free_port, serving

from nas.client import Client, ServiceError
from nas.service.jobs import FOLDER
from nas.service.requests import SearchSettings
from nas.status import read_status
from nas.store import read_study

SEARCH: dict[str, Any] = {"strategy": "random", "num_workers": 0, "n_trials": 30, "seed": 3}
LONG = SEARCH | {"n_trials": 700}  # of the space's 1,080: still running when it is looked at


@pytest.fixture
def root(trained_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained_run, tmp_path / "root" / "run")
    return tmp_path / "root"


def until(true: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return value


def trials_of(root: Path, study: str) -> list[Any]:
    """None before the first is recorded. Reading raises where one is missing or doubled."""
    journal = root / "run" / "studies" / f"{study}.journal"
    begun = journal.exists() and b'"op_code":4' in journal.read_bytes()  # a trial's; the study may be half made before
    return read_study(journal).trials if begun else []


def history(root: Path, study: str) -> list[Any]:
    return [(t.number, t.arch.key, t.state, dict(t.metrics)) for t in trials_of(root, study)]


def test_a_search_is_started_followed_exported_downloaded_and_loaded(root: Path, tmp_path: Path) -> None:
    with serving(root, NAS_TOKEN=TOKEN) as url:
        with pytest.raises(ServiceError, match="a token is needed"):
            Client(url).runs()
        client = Client(url, TOKEN)
        assert client.preflight("run", {"macs": 5e6})["feasible"]
        with pytest.raises(ServiceError, match="nearest reachable"):
            client.start("run", **SEARCH, limits={"macs": 1.0})
        job = client.start("run", **SEARCH, study="s", limits={"macs": 5e6})
        until(lambda: trials_of(root, "s"))
        events = list(client.follow("run", "s"))
        assert [t["number"] for event in events for t in event["trials"]] == list(range(30))
        assert client.wait(job["id"])["state"] == "succeeded"
        assert client.study("run", "s")["state"] == "finished"
        assert [t["number"] for t in client.trials("run", "s")] == list(range(30))
        assert all(trial["metrics"]["macs"] <= 5e6 for trial in client.front("run", "s"))
        best = client.study("run", "s")["best"]["number"]
        assert client.wait(client.export("run", "s", best)["id"])["state"] == "succeeded"
        names = {file["name"] for file in client.files("run", "s", best)}
        assert {"certificate.json", "model.safetensors", "config.json", "model.py"} <= names
        folder = client.download("run", "s", best, tmp_path / "model")
        assert TOKEN not in "".join(p.read_text() for p in (root / FOLDER / "jobs").iterdir())
    certificate = json.loads((folder / "certificate.json").read_text())
    assert certificate["macs"] == next(t for t in trials_of(root, "s") if t.number == best).metrics["macs"]
    program = "from model import load; import torch; print(load()(torch.zeros(1, 1, 8, 8)).shape[1])"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "10"


def test_of_many_who_start_one_study_at_once_exactly_one_does(root: Path) -> None:
    with serving(root) as one, serving(root) as two:
        clients = [Client(one), Client(one), Client(one), Client(two), Client(two)]
        ready = threading.Barrier(len(clients))

        def start(client: Client) -> dict[str, Any] | int | None:
            ready.wait()
            try:
                return client.start("run", **SEARCH, study="s")
            except ServiceError as error:
                return error.code

        options = SearchSettings(**SEARCH, study="s").options(root)
        command = [warm_python.python(), "-m", "nas.cli", "search", str(root / "run"), *options]
        cli = subprocess.Popen(command, env=environment(), cwd=ROOT, stderr=subprocess.DEVNULL)
        with ThreadPoolExecutor(len(clients)) as pool:
            answers = list(pool.map(start, clients))
        started = [answer for answer in answers if isinstance(answer, dict)]
        assert all(answer == 409 for answer in answers if not isinstance(answer, dict))
        assert answers.count(409) >= 3  # of each service no more than one goes on to ask for the study itself
        states = [until(lambda job=job: _ended(clients[0], job["id"])) for job in started]
        code = cli.wait(90)
        assert states.count("succeeded") + (code == 0) >= 1
        refused = [clients[0].job(job["id"]) for job in started]
        assert {job["code"] for job in refused} | {code} <= {0, 2}
    assert len(trials_of(root, "s")) == SEARCH["n_trials"]


def _ended(client: Client, job: str) -> str | None:
    state = client.job(job)["state"]
    return None if state == "running" else state


def test_a_service_that_is_killed_touches_no_search_and_the_next_one_sees_and_stops_it(root: Path) -> None:
    port = free_port()
    with serving(root, port=port) as url:
        job = Client(url).start("run", **LONG, study="s")
        until(lambda: len(trials_of(root, "s")) > 3)
    pid = read_status(root / "run" / "studies" / "s.journal")["pid"]  # type: ignore[index]
    os.kill(pid, 0)  # the driver lives
    there = len(trials_of(root, "s"))
    until(lambda: len(trials_of(root, "s")) > there)
    with serving(root, port=port) as url:
        client = Client(url)
        assert client.job(job["id"])["state"] == "running"
        study = client.study("run", "s")
        assert (study["state"], study["workers"]["alive"], study["workers"]["pid"]) == ("searching", 1, pid)
        with pytest.raises(ServiceError, match="is being searched already") as refused:
            client.start("run", **LONG, study="s")
        assert refused.value.code == 409
        client.stop("run", "s")
        until(lambda: client.job(job["id"])["state"] == "stopped")
        until(lambda: client.study("run", "s")["state"] == "interrupted")  # looked at once a second
        kept = len(trials_of(root, "s"))
        assert there < kept < LONG["n_trials"]
        with pytest.raises(ServiceError, match="no search of study 's'"):
            client.stop("run", "s")


def test_a_driver_that_is_killed_is_resumed_to_the_history_it_would_have_had(root: Path) -> None:
    settings = LONG | {"n_trials": 60, "strategy": "evolution"}
    with serving(root) as url:
        client = Client(url)
        whole = client.start("run", **settings, study="whole")
        client.wait(whole["id"])
        (root / "run" / "evaluations.jsonl").unlink()  # or the next study would be told what it is to find out
        job = client.start("run", **settings, study="s")
        until(lambda: read_status(root / "run" / "studies" / "s.journal") and len(trials_of(root, "s")) > 5)
        os.kill(read_status(root / "run" / "studies" / "s.journal")["pid"], signal.SIGKILL)  # type: ignore[index]
        until(lambda: client.job(job["id"])["state"] == "failed")
        study = client.study("run", "s")
        assert study["state"] == "interrupted"
        seen = [t["number"] for event in client.follow("run", "s") for t in event["trials"]]
        assert seen == list(range(study["n_trials"]))
        again = client.resume("run", "s")
        until(lambda: client.study("run", "s")["state"] != "interrupted")
        more = [t["number"] for event in client.follow("run", "s", len(seen)) for t in event["trials"]]
        assert seen + more == list(range(60))
        assert client.wait(again["id"])["state"] == "succeeded"
    assert history(root, "s") == history(root, "whole")


def test_of_many_who_resume_one_study_at_once_exactly_one_writes_it(root: Path) -> None:
    from nas.service.jobs import BusyError
    from nas.service.requests import ResumeSettings
    from nas.service.service import Service

    services = [Service.open(root), Service.open(root)]
    first = services[0].jobs.search("run", SearchSettings(**SEARCH, study="s"))
    until(lambda: services[0].jobs.get(first["id"])["state"] == "succeeded")
    ready = threading.Barrier(4)

    def resume(number: int) -> str | None:
        ready.wait()
        try:
            settings = ResumeSettings(n_trials=60, num_workers=0)
            return str(services[number % 2].jobs.resume("run", "s", settings)["id"])
        except BusyError:
            return None

    with ThreadPoolExecutor(4) as pool:
        started = [job for job in pool.map(resume, range(4)) if job]
    assert 1 <= len(started) <= 2  # of each service no more than one goes on to ask for the study itself
    for job in started:
        until(lambda job=job: services[0].jobs.get(job)["state"] != "running")
    assert "succeeded" in [services[0].jobs.get(job)["state"] for job in started]
    assert len(trials_of(root, "s")) == 60


def test_records_that_are_none_are_left_out(root: Path) -> None:
    from nas.service.service import Service

    jobs = Service.open(root).jobs
    made = jobs.search("run", SearchSettings(**SEARCH | {"n_trials": 1}, study="s"))
    until(lambda: jobs.get(made["id"])["state"] == "succeeded")
    folder = root / FOLDER / "jobs"
    record = json.loads((folder / f"{made['id']}.json").read_text())
    (folder / "half.json").write_text(json.dumps(record)[:100])
    (folder / "copy.json").write_text(json.dumps(record))
    (folder / "odd.json").write_text(json.dumps(record | {"id": "odd", "started": "yesterday", "argv": None}))
    (folder / "folder.json").mkdir()
    assert [job["id"] for job in jobs.list()] == [made["id"]]


def test_an_unknown_job_of_a_record_that_is_no_process_any_more_has_failed(root: Path) -> None:
    from nas.service.service import Service

    jobs = Service.open(root).jobs
    job = jobs.search("run", SearchSettings(**SEARCH, study="s"))
    record = root / FOLDER / "jobs" / f"{job['id']}.json"
    until(lambda: jobs.get(job["id"])["state"] == "succeeded")
    (record.with_suffix(".code")).unlink()
    other = Service.open(root).jobs
    until(lambda: other.get(job["id"])["state"] == "failed")  # its process ends after it has left its code
    record.write_text(json.dumps(json.loads(record.read_text()) | {"pid": os.getpid()}))  # its number is another's now
    assert other.get(job["id"])["state"] == "failed"
    assert other.stop(job["id"])["state"] == "failed"  # and this process was sent nothing
