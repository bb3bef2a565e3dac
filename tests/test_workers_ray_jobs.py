"""Where the jobs server is, and what answers there instead; jobs themselves are in test_nas_launch.py."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from workers import ray_connect, ray_jobs
from workers.ray_jobs import DEFAULT_ADDRESS, Jobs, jobs_address


@pytest.mark.parametrize(
    ("given", "server", "cluster", "address"),
    [
        ("http://head:8265/", "http://other:1", None, "http://head:8265"),
        (None, "https://head", "http://other:1", "https://head"),
        (None, None, "http://head:8265", "http://head:8265"),
        (None, None, "10.0.0.5:6379", DEFAULT_ADDRESS),
        (None, None, None, DEFAULT_ADDRESS),
    ],
)
def test_the_address_comes_from_the_option_or_rays_own_variables(
    monkeypatch: pytest.MonkeyPatch, given: str | None, server: str | None, cluster: str | None, address: str
) -> None:
    for name, value in (("RAY_API_SERVER_ADDRESS", server), ("RAY_ADDRESS", cluster)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert jobs_address(given) == address


@pytest.mark.parametrize(
    "address", ["head:8265", "ray://head:10001", "http://", "http://head:99999", "http://head:x", "auto"]
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=f"address is '{address.rstrip('/')}'; valid: http://host:port"):
        jobs_address(address)


class NotRay(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), NotRay) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_another_web_server_is_no_jobs_server(web_server: str) -> None:
    with pytest.raises(ConnectionError, match=f"no Ray jobs server answers at http://{web_server}: .*404"):
        Jobs(f"http://{web_server}")


def test_a_server_that_never_answers_is_given_up(silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "_ANSWER_SECONDS", 0.2)
    with pytest.raises(ConnectionError, match=f"no Ray jobs server answers at http://{silent_server}: .*timed out"):
        Jobs(f"http://{silent_server}")


def test_neither_is_a_ray_cluster(web_server: str, silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_connect, "_CONNECT_SECONDS", 0.2)
    for address in (web_server, silent_server):
        with pytest.raises(ConnectionError, match=f"no Ray cluster answers at '{address}'"):
            ray_connect.connect(address, 1, 0)
