"""`nas launch`, `jobs`, `logs` and `stop` on clusters of two nodes: a launched search is the search."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray_clusters
import warm_python

from nas.launching import check_visible
from nas.run import RunError
from nas.searching import open_study, search_run
from workers.ray_jobs import Jobs

ROOT = Path(__file__).parent.parent
Nas = Callable[..., tuple[int, str, str]]
TOKEN = "0123456789abcdef" * 2
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


def test_missing_data_are_named(run_copy: Path, tmp_path: Path) -> None:
    check_visible(str(run_copy))
    check_visible("s3://bucket/run")
    description = json.loads((run_copy / "run.json").read_text())
    description["data"]["spec"] = f"folder:{tmp_path / 'photos'}"
    (run_copy / "run.json").write_text(json.dumps(description))
    with pytest.raises(RunError, match=f"has no {tmp_path / 'photos'}, the run's data set"):
        check_visible(str(run_copy))


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-macs", "10k"], "macs ≤ 10k (nearest reachable: 312.6k)"),
        (["--max-macs", "lots"], "'lots' is not a quantity"),
        (["--n-trials", "0"], "greater than or equal to 1"),
        (["--n-trails", "9"], "No such option"),
        (["--strategy", "magic"], "unknown strategy 'magic'; valid: "),
        (["--objective", "accuracy"], "unknown metric 'accuracy'; valid: top1, macs, params"),
        (["--study-name", "../x"], "study name '../x' is not valid"),
        (["--score", "calibrated"], "nas trust"),
        (["--address", "head:6379"], "address is 'head:6379'; valid: http://host:port"),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_what_the_search_would_refuse_is_refused_here(
    nas: Nas, trained_run: Path, options: list[str], message: str
) -> None:
    """Before any server is asked: there is none at this address."""
    code, out, err = nas("launch", trained_run, "--address", "http://127.0.0.1:1", *options)
    assert (code, out) == (2, "")
    assert message in err


def test_an_address_without_a_jobs_server_is_named(nas: Nas, trained_run: Path) -> None:
    for arguments in (["launch", trained_run], ["jobs"], ["logs", "x"], ["logs", "x", "-f"], ["stop", "x"]):
        code, out, err = nas(*arguments, "--address", "http://127.0.0.1:1")
        assert (code, out) == (1, "")
        assert err.startswith("error: no Ray jobs server answers at http://127.0.0.1:1: ")
