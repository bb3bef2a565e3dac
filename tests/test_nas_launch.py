"""`nas launch`, `jobs`, `logs` and `stop`, and the service's searches, on clusters of two nodes."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import devices
import pytest
import ray_clusters
import warm_python
from services import ROOT, serving

from nas.client import Client
from nas.run import Run
from nas.searching import open_study, search_run
from nas.store import read_study
from workers.ray_jobs import Jobs

Nas = Callable[..., tuple[int, str, str]]
TOKEN = "0123456789abcdef" * 2
RUN, STUDY = "Lauf 1 日本", "Größe-α"  # of the service
SEARCH = ["--n-trials", "80", "--max-macs", "3M", "--seed", "5"]


def command(*arguments: object) -> list[str]:
    return [str(warm_python.folder() / "nas"), *map(str, arguments)]


@pytest.fixture(scope="module")
def token_cluster() -> Iterator[dict[str, str]]:
    with ray_clusters.started_cluster(TOKEN) as environment:
        yield environment | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with ray_clusters.simulated_cluster() as address:
        yield address


def history(run: Path, study_name: str = "default") -> list[Any]:
    return [(t.number, t.arch.key, t.state, dict(t.metrics)) for t in open_study(run, study_name).trials]


@pytest.fixture(scope="module")
def searched(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The history of the same search in one local process."""
    run = Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("searched") / "run"))
    search_run(run, n_trials=80, limits={"macs": 3e6}, seed=5, num_workers=0)
    return history(run)


def client(environment: dict[str, str], cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environment, cwd=cwd, capture_output=True, text=True, check=False)


def status(environment: dict[str, str], job_id: str) -> str:
    jobs = json.loads(client(environment, ROOT, "jobs", "--json").stdout)
    return next(job["status"] for job in jobs if job["id"] == job_id)


def interrupted_follower(environment: dict[str, str], job_id: str) -> None:
    terminal = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from nas import cli; cli.main()"
    )
    arguments, pipe = [warm_python.python(), "-c", terminal, "logs", job_id, "-f"], subprocess.PIPE
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment | {"PYTHONUNBUFFERED": "1"}, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline()  # it follows
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"job {job_id} goes on; stop it with: nas stop {job_id}\n" in err


def test_a_launched_search_is_the_search_though_stopped_half_way(
    token_cluster: dict[str, str], run_copy: Path, searched: list[Any], tmp_path: Path
) -> None:
    """By a client with the token in a variable, then in a file; the run is given by a relative path."""
    launched = client(token_cluster, tmp_path, "launch", "run", *SEARCH, "--num-workers", 1)
    assert launched.returncode == 0, launched.stderr
    job_id = launched.stdout.strip()
    assert job_id.startswith("nas-default-")
    assert launched.stderr == f"next: nas logs {job_id} -f\n"
    interrupted_follower(token_cluster, job_id)
    evaluations = run_copy / "evaluations.jsonl"
    while not evaluations.exists() or len(evaluations.read_bytes().splitlines()) < 5:
        looked = time.monotonic()  # at the file often, at the job seldom: a client takes seconds
        assert status(token_cluster, job_id) in ("pending", "running")
        while time.monotonic() < looked + 10 and (
            not evaluations.exists() or evaluations.read_bytes().count(b"\n") < 5
        ):
            time.sleep(0.1)
    stopped = client(token_cluster, tmp_path, "stop", job_id)
    assert stopped.returncode == 0, stopped.stderr
    again = f"nas launch {run_copy} --n-trials=80 --num-workers=1 --max-macs=3M --seed=5"
    assert stopped.stderr == f"job {job_id}: stopped\nnext: {again} continues the study\n"
    done = len(history(run_copy))
    assert done < 80
    assert history(run_copy) == searched[:done]
    followed = client(token_cluster, tmp_path, "logs", job_id, "-f")
    assert followed.returncode == 1
    assert f"stopped after {done} of 80 trials; the same command continues" in followed.stdout
    assert client(token_cluster, tmp_path, "stop", job_id).stderr == stopped.stderr  # once more changes nothing

    (tmp_path / "token").write_text(TOKEN)
    by_path = {**token_cluster, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    del by_path["RAY_AUTH_TOKEN"]
    second = client(by_path, tmp_path, "launch", "run", *SEARCH, "--num-workers", 2).stdout.strip()
    followed = client(by_path, tmp_path, "logs", second, "-f")
    assert followed.returncode == 0, followed.stderr
    assert "80 trials, 0 failed; macs ≤ 3M" in followed.stdout
    assert followed.stderr == f"next: nas pareto {run_copy}\n"
    assert history(run_copy) == searched

    jobs = json.loads(client(token_cluster, tmp_path, "jobs", "--json").stdout)
    assert [(job["id"], job["status"]) for job in jobs] == [(second, "succeeded"), (job_id, "stopped")]
    assert jobs[1]["what"] == f"nas search {run_copy} --n-trials=80 --num-workers=1 --max-macs=3M --seed=5"
    assert all(job["started"] < job["ended"] for job in jobs)
    unknown = client(token_cluster, tmp_path, "logs", "other")
    assert unknown.returncode == 2
    server = token_cluster["RAY_API_SERVER_ADDRESS"]
    assert f"there is no job 'other' at {server}; jobs: {second}, {job_id}" in unknown.stderr

    # RAY_ADDRESS is the cluster's own address; the evaluations are the job's, so that this takes seconds
    name = ["--study-name", "outside", "--n-trials", 12]
    outside = client(token_cluster, tmp_path, "search", "run", *SEARCH, "--num-workers", 1, *name)
    assert outside.returncode == 0, outside.stderr
    assert history(run_copy, "outside") == searched[:12]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RAY_AUTH_TOKEN": "f" * 32}, "Invalid authentication token"),
        ({"RAY_AUTH_TOKEN": ""}, "couldn't find an authentication token"),
        ({"RAY_AUTH_MODE": "disabled"}, "Missing authentication token"),
    ],
    ids=["wrong", "none", "disabled"],
)
def test_without_the_token_there_is_no_access(
    token_cluster: dict[str, str], tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    refused = client(token_cluster | variables, tmp_path, "jobs")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: no access to the cluster at {token_cluster['RAY_API_SERVER_ADDRESS']}")
    assert message in refused.stderr
    assert "RAY_AUTH_TOKEN_PATH" in refused.stderr


def test_a_driver_with_a_wrong_token_cannot_join(token_cluster: dict[str, str]) -> None:
    join = [sys.executable, "-c", "import sys; from workers.ray_pool import connect; connect(sys.argv[1], 1, 0)"]
    address, wrong = token_cluster["RAY_ADDRESS"], token_cluster | {"RAY_AUTH_TOKEN": "f" * 32}
    refused = subprocess.run([*join, address], env=wrong, capture_output=True, text=True, check=False)
    assert f"ConnectionError: cannot join the Ray cluster at '{address}'" in refused.stderr
    assert "RAY_AUTH_TOKEN_PATH" in refused.stderr


PROBE = """
import ray, nas_probe
ray.init("auto", log_to_driver=False)
head = ray.get_runtime_context().get_node_id()
word, node = ray.get(ray.remote(num_cpus=1)(nas_probe.where).remote())
print(word, "on another node" if node != head else "on the head")
"""


def test_packages_reach_the_workers_of_other_nodes(cluster: str, nas: Nas, tmp_path: Path) -> None:
    package = tmp_path / "nas_probe"
    package.mkdir()
    where = "import ray\ndef where(): return 'imported', ray.get_runtime_context().get_node_id()\n"
    (package / "__init__.py").write_text(where)
    Jobs(cluster).submit("probe", f"python -c {shlex.quote(PROBE)}", [package], {})
    code, out, _ = nas("logs", "probe", "-f", "--address", cluster)
    assert "imported on another node" in out, out
    assert code == 0
    code, out, _ = nas("jobs", "--address", cluster)
    assert (code, "probe" in out, "succeeded" in out) == (0, True, True)


def test_a_job_that_does_not_see_the_run_says_so(cluster: str, nas: Nas, tmp_path: Path) -> None:
    code, out, err = nas("launch", tmp_path / "nowhere", "--study-name", "unseen", "--address", cluster)
    assert code == 0, err
    job_id = out.strip()
    assert job_id.startswith("nas-unseen-")
    code, out, err = nas("logs", job_id, "-f", "--address", cluster)
    assert code == 1
    assert f"has no run folder {tmp_path / 'nowhere'}; a job needs it under the same path" in out
    assert f"error: job {job_id} failed" in err


def test_another_version_of_ray_is_refused_before_anything_is_submitted(
    cluster: str, nas: Nas, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    version, before = ray.__version__, nas("jobs", "--json", "--address", cluster)[1]
    monkeypatch.setattr(ray, "__version__", "2.1.0")
    code, _, err = nas("launch", run_copy, "--address", cluster)
    assert code == 1
    assert f"the cluster at {cluster} has Ray {version} and Python 3." in err
    assert "this machine Ray 2.1.0 and Python 3." in err
    assert nas("jobs", "--json", "--address", cluster)[1] == before


def test_a_service_stops_and_resumes_searches_on_its_cluster(
    token_cluster: dict[str, str], trained_run: Path, tmp_path: Path
) -> None:
    """Those it started there, and one that began on this machine; their names are in several scripts."""
    shutil.copytree(trained_run, tmp_path / "root" / RUN)
    settings = {"n_trials": 80, "strategy": "random", "seed": 5, "limits": {"macs": 3e6}}
    local = Run.open(tmp_path / "root" / RUN)
    profiles = [devices.profile(local.space, name) for name in ("slow", "fast")]
    beyond_any_option = {"latency_ms_slow": (None, 1e3), "peak_memory": (1.0, 1e9)}
    search_run(
        local, n_trials=4, num_workers=0, strategy="random", study_name="local", limits=beyond_any_option,
        profiles=[profiles[0], replace(profiles[1], device=profiles[1].device | {"threads": 2})],
    )  # fmt: skip
    address = token_cluster["RAY_API_SERVER_ADDRESS"]
    with serving(tmp_path / "root", "--address", address, **token_cluster) as url:
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
    with serving(tmp_path / "root", "--address", address, **token_cluster) as url:
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
