"""Fixtures that more than one test file uses."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray_clusters
import trusts
import warm_python
from filelock import FileLock

# One thread each: as fast for networks this small, and tests do not slow one another down where they run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No process a CPU at once for each Ray that a test or command starts: actors with variables, as ours, use none of them.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # once a session: test processes of xdist inherit the variable that it sets
        config.add_cleanup(warm_python.start())


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a third of the time, tests wait for clusters, browsers and other processes."""
    return (os.cpu_count() or 1) + 1


LONG = (
    "docs", "launch", "strategies", "faults", "service_jobs", "ray_train", "interrupt", "finetune", "ray_tune",
    "export_formats", "resume", "service_pages", "nas_loop", "remote_s3", "trust",
    "nas_training", "supernet_train", "supernet_model", "samplers", "mixture", "supernet_distributed", "streaming",
    "service_fuzz", "service_api", "read_cli", "resume_cli", "nas_cli", "nas_pushing", "spaces_cost",
    "supernet_initial", "cli_own",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of long tests first, those that compute between those that wait: begun last, one would run alone then."""
    order = {end: number for number, end in enumerate(LONG)}
    items.sort(key=lambda item: min((n for end, n in order.items() if item.path.stem.endswith(end)), default=len(LONG)))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Gives the folder of a name, which the first test process that asks has filled for all of them."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # one for all processes of the session

    def folder_of(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / f"once-{name}"
        with FileLock(root / f"{name}.lock"):
            if not (folder / "filled").exists():  # nor where the one before failed: each asker then sees the error
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                (folder / "filled").touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def ray_address(once: Callable[..., Path]) -> Iterator[str]:
    """Address of the one Ray of the session, to which this process is connected; its home is a temporary one."""
    import ray

    owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        folder = once("ray", lambda folder: ray_clusters.start_owned(folder, owner))
        patch.setenv("HOME", str(folder))
        address = (folder / "address").read_text()
        ray.init(address, log_to_driver=False, logging_level="ERROR")
        yield address
        ray.shutdown()


@pytest.fixture(scope="session")
def trained_run(once: Callable[..., Path]) -> Path:
    """A run folder of the digits space, trained for three epochs by the command itself. Not to be written to."""

    def train(folder: Path) -> None:
        command = [warm_python.python(), "-m", "nas.cli", "train", "--space", "digits", "--data", "digits"]
        options = ["--epochs", "3", "--batch-size", "64", "-o", str(folder / "run")]
        subprocess.run([*command, *options], check=True, cwd=Path(__file__).parent.parent)

    return once("trained", train) / "run"


@pytest.fixture(scope="session")
def trusted(trained_run: Path, once: Callable[..., Path]) -> Path:
    """A copy of `trained_run` with a few subnets trained alone for an epoch. Not to be written to."""
    from nas.trust import trust_run

    def trust(folder: Path) -> None:
        shutil.copytree(trained_run, folder / "run")
        trust_run(folder / "run", archs=trusts.N, epochs=1, device="cpu")

    return once("trusted", trust) / "run"


@pytest.fixture(scope="session")
def quick_checks() -> Iterator[None]:
    """Exports are checked by a Python that has torch already; by a new one in the tests of formats."""
    from nas.export import isolated

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated, "PYTHON", warm_python.torch_python())
        yield


@pytest.fixture(scope="session")
def exported(quick_checks: None, trained_run: Path, once: Callable[..., Path]) -> Path:
    """The largest subnet of `trained_run`, exported. Not to be written to."""
    from nas.export import export_subnet
    from nas.run import Run

    largest = Run.open(trained_run).space.largest()
    return once("exported", lambda folder: export_subnet(trained_run, largest, folder / "model")) / "model"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which commands find an S3 server, a process of the session's, with one bucket, `bucket`."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (the extra `s3`)")
    pytest.importorskip("moto", reason="moto, an S3 server for tests, is not installed")
    import fsspec

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }  # fmt: skip
    with open(tmp_path_factory.mktemp("s3") / "log", "w") as log:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert server.poll() is None
            time.sleep(0.05)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            fsspec.filesystem("s3").mkdir("bucket")
        yield environment
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where there is no run yet: a shared folder, unless the test asks for another place."""
    place = getattr(request, "param", "file")
    if place == "file":
        return f"file://{tmp_path}/shared/run"
    if place == "memory":
        return f"memory://{tmp_path.name}/run"
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{tmp_path.name}/run"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Continues as another machine: one that has its own mirrors of remote runs."""

    def move(machine: str) -> None:
        monkeypatch.setenv("NAS_CACHE", str(tmp_path / machine))

    move("first")
    return move


@pytest.fixture
def published(url: str, on: Callable[[str], None], trained_run: Path) -> str:
    """The URL of a trained run that no machine has a mirror of."""
    from nas.remote_storage import Storage

    for name in ("run.json", "checkpoint.safetensors", "metrics.jsonl"):
        Storage(url).upload(name, trained_run / name)
    return url


@pytest.fixture
def run_copy(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of `trained_run`, to be written to."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture
def trusted_copy(trusted: Path, tmp_path: Path) -> Path:
    """A copy of `trusted`, to be written to."""
    return Path(shutil.copytree(trusted, tmp_path / "run"))


@pytest.fixture
def nas(
    quick_checks: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process; gives exit code, stdout and stderr."""
    from nas import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
