"""Ray on this machine: one for a whole session of tests, and clusters of two nodes for the tests of jobs.

Their head has no CPUs, their worker two.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import warm_python

BIN = Path(sys.executable).parent
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}",
}  # fmt: skip
# each once, in an order of this process's own, and below the ports that the system gives to outgoing connections
_ports = iter(random.Random(os.getpid()).sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise RuntimeError("no port is free")


def start_owned(folder: Path, owner: int) -> None:
    """Starts a Ray that lasts as long as the process `owner`, and writes its address into `folder`/address."""
    # its workers as urgent as the tests that wait for them: behind tests that compute, they would hardly get a core
    environment = {**os.environ, **QUIET, "HOME": str(folder), "RAY_worker_niceness": "0"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, folder / "address", str(owner)], env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    while not (folder / "address").exists():
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)


def _hold(file: Path, owner: int) -> None:
    import ray

    ray.init("local", num_cpus=16, resources={"pi": 1}, include_dashboard=False, logging_level="ERROR")
    file.with_suffix(".tmp").write_text(ray.get_runtime_context().gcs_address)
    file.with_suffix(".tmp").rename(file)
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(owner, 0)
            time.sleep(0.2)
    ray.shutdown()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """With a short path: Ray's sockets lie deep in it, and their names may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="nas", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started_cluster(token: str) -> Iterator[dict[str, str]]:
    """By two `ray start` processes, with token authentication; gives the environment of a client.

    RAY_API_SERVER_ADDRESS in it is the jobs server, RAY_ADDRESS the cluster's own address.
    """
    with temporary_folder() as folder, ExitStack() as stack:
        environment = {**os.environ, **QUIET, "HOME": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
        environment["PATH"] = f"{warm_python.folder()}:{environment['PATH']}"  # which the `python` of a job is found by
        gcs, dashboard = free_port(), free_port()
        head = ["--head", "--port", gcs, "--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard]
        head += ["--ray-client-server-port", free_port(), "--num-cpus", 0, "--temp-dir", folder / "h"]
        worker = ["--address", f"127.0.0.1:{gcs}", "--num-cpus", 2, "--temp-dir", folder / "w"]
        for name, options in (("head", head), ("worker", worker)):
            _start_node(stack, folder / f"{name}.log", options, environment)
        address = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}", "RAY_ADDRESS": f"127.0.0.1:{gcs}"}
        yield environment | address


def _start_node(stack: ExitStack, log: Path, options: list[object], environment: dict[str, str]) -> None:
    for name in ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export"):
        options += [f"--{name}-port", free_port()]
    options += ["--node-manager-port", free_port(), "--object-manager-port", free_port()]
    options += ["--worker-port-list", ",".join(str(free_port()) for _ in range(16))]
    command = [BIN / "ray", "start", "--block", "--object-store-memory", 10**8, *options]
    with log.open("wb") as out:
        process = subprocess.Popen(list(map(str, command)), env=environment, stdout=out, stderr=out)
    stack.callback(_end, process)
    while b"--block" not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # with which `ray start --block` ends its node
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


@contextmanager
def simulated_cluster() -> Iterator[str]:
    """By Ray's own test class, without authentication; gives the address of the jobs server."""
    from ray.cluster_utils import Cluster

    with temporary_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in (QUIET | {"HOME": str(folder), "RAY_AUTH_MODE": "disabled"}).items():
            patch.setenv(name, value)
        dashboard = free_port()
        head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": dashboard, "temp_dir": str(folder)}
        cluster = Cluster(initialize_head=True, head_node_args=head | {"dashboard_agent_listen_port": free_port()})
        try:
            cluster.add_node(num_cpus=2, dashboard_agent_listen_port=free_port())
            # as `ray start` does: a job takes the cluster that is named here, and else any that runs on the machine
            (folder / "ray_current_cluster").write_text(cluster.address)
            yield f"http://127.0.0.1:{dashboard}"
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    _hold(Path(sys.argv[1]), int(sys.argv[2]))
