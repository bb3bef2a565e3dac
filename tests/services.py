"""A service as a process of its own, as `nas serve` starts it, and what calls it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import warm_python

ROOT = Path(__file__).parent.parent
TOKEN = "a-token-for-tests-0123456789"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    fixed = {"PYTHONPATH": paths, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    kept = {name: value for name, value in os.environ.items() if name not in ("NAS_TOKEN", "PYTEST_CURRENT_TEST")}
    return kept | fixed | more


@contextlib.contextmanager
def serving(root: Path, *options: str, port: int | None = None, **env: str) -> Iterator[str]:
    """The URL of a service over `root` until the block ends; a token is given as `NAS_TOKEN=`."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    health = urllib.request.Request(f"{url}/healthz", headers={"Authorization": f"Bearer {env.get('NAS_TOKEN')}"})
    command = [warm_python.python(), "-m", "nas.cli", "serve", str(root), "--port", str(port), *options]
    with open(root / ".serve.log", "ab") as log:
        process = subprocess.Popen(command, env=environment(WARM_CHILDREN="1", **env), stdout=log, stderr=log)
    try:
        while True:
            assert process.poll() is None, (root / ".serve.log").read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(health, timeout=5).close()
                break
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
