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

# One thread each: as fast for networks this small, and tests do not slow one another down where they run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")


LONG = ("ray_train", "launch", "faults", "interrupt", "finetune", "ray_tune", "remote_s3", "export_formats")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of long tests first: begun last, one of them would run alone at the end."""
    items.sort(key=lambda item: not item.path.stem.endswith(LONG))


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one Ray for the whole session, to which this process is connected; its home is a temporary one."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            "local",
            num_cpus=16,
            resources={"pi": 1},
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the digits space, trained for three epochs by the command itself. Not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [sys.executable, "-m", "nas.cli", "train", "--space", "digits", "--data", "digits", "-o", str(folder)]
    root = Path(__file__).parent.parent
    subprocess.run([*command, "--epochs", "3", "--batch-size", "64"], check=True, cwd=root, env=os.environ.copy())
    return folder


@pytest.fixture(scope="session")
def exported(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The largest subnet of `trained_run`, exported. Not to be written to."""
    from nas.export import export_subnet
    from nas.run import Run

    folder = tmp_path_factory.mktemp("exported") / "model"
    export_subnet(trained_run, Run.open(trained_run).space.largest(), folder)
    return folder


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
def run_copy(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of `trained_run`, to be written to."""
    return Path(shutil.copytree(trained_run, tmp_path / "run"))


@pytest.fixture
def nas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
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
