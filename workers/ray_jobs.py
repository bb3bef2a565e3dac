"""Jobs on a Ray cluster, over HTTP: a command is submitted, followed, listed and stopped from any machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from workers.ray_connect import TOKEN_HINT

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ENDED = ("succeeded", "failed", "stopped")
STOP_SECONDS = 30  # from SIGTERM to SIGKILL; a search that closes its workers takes longer than Ray's three

_SERVER = "RAY_API_SERVER_ADDRESS"  # Ray's variable for the address of its jobs server
_CONNECT_SECONDS = 5.0  # for an address that answers at all
_ANSWER_SECONDS = 10.0  # for one request
_POLL_SECONDS = 0.2

for _name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
    logging.getLogger(f"ray.{_name}").setLevel(logging.WARNING)  # they tell every upload and every closed connection


@dataclass(frozen=True)
class Job:
    """A submitted job.

    status: pending, running, or one of `ENDED`. what: the metadata's, or else the command. metadata: as submitted.
    """

    id: str
    status: str
    what: str
    metadata: Mapping[str, str]
    started: datetime | None
    ended: datetime | None
    message: str

    @property
    def has_ended(self) -> bool:
        """Whether its status is final."""
        return self.status in ENDED

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, times in ISO 8601."""
        times = {"started": self.started, "ended": self.ended}
        return asdict(self) | {name: time and time.isoformat(timespec="seconds") for name, time in times.items()}


class Jobs:
    """The jobs server of a cluster.

    address: such as http://10.0.0.5:8265; by default RAY_API_SERVER_ADDRESS, RAY_ADDRESS where that is http, or
        this machine's. A cluster with Ray's token authentication takes the token where every client of Ray has it:
        RAY_AUTH_MODE=token with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.
    Raises ValueError for a malformed address, ConnectionError when no jobs server answers there, which it says within
    seconds, and PermissionError for a missing or wrong token; so does every method.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = jobs_address(address)
        _check_reachable(self.address)
        try:
            with _as_server(self.address):
                self._client = _Client(self.address)
        except (ConnectionError, PermissionError):
            raise
        except AuthenticationError as error:  # before any request
            raise _refused(self.address, error) from None
        except Exception as error:  # whatever Ray's client makes of the answers of another server
            reason = str(error).partition(". ")[0]
            raise ConnectionError(f"no Ray jobs server answers at {self.address}: {reason}") from error

    def check_versions(self) -> None:
        """Raises RuntimeError where the cluster has another Ray or another minor version of Python than this process.

        A proxy may hide the cluster's Python; then it is not compared.
        """
        answer = self._client._do_request("GET", "/api/version")
        python = re.match(r"Python/(\d+\.\d+)", answer.headers.get("Server", ""))
        here = {"Ray": ray.__version__, "Python": ".".join(platform.python_version_tuple()[:2])}
        there = {"Ray": answer.json()["ray_version"], "Python": python[1] if python else here["Python"]}
        if here != there:
            cluster, client = (" and ".join(f"{name} {v}" for name, v in found.items()) for found in (there, here))
            raise RuntimeError(f"the cluster at {self.address} has {cluster}, this machine {client}: use the same")

    def submit(self, job_id: str, command: str, packages: Sequence[Path], metadata: Mapping[str, str]) -> Job:
        """Starts `command`, a line for the shell, on the cluster's head.

        packages: folders of Python packages that the command and every worker that it starts can import.
        """
        self._client.submit_job(
            submission_id=job_id,
            entrypoint=command,
            runtime_env={
                "py_modules": [str(package) for package in packages],
                "excludes": ["__pycache__"],
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
            },
            metadata=dict(metadata),
        )
        return self.get(job_id)

    def list(self) -> list[Job]:
        """Every job that was submitted, the newest first."""
        found = [details for details in self._client.list_jobs() if details.submission_id]
        return [_job(details) for details in sorted(found, key=lambda d: d.start_time or 0, reverse=True)]

    def get(self, job_id: str) -> Job:
        """Raises ValueError listing the jobs there are for an unknown one."""
        with contextlib.suppress(RuntimeError):  # not found
            details = self._client.get_job_info(job_id)
            if details.submission_id:
                return _job(details)
        known = ", ".join(job.id for job in self.list()) or "none"
        raise ValueError(f"there is no job {job_id!r} at {self.address}; jobs: {known}")

    def logs(self, job_id: str) -> str:
        """What the job has printed so far."""
        self.get(job_id)
        return self._client.get_job_logs(job_id)

    def follow(self, job_id: str) -> Iterator[str]:
        """What the job has printed and prints, piece by piece, until it has ended."""
        self.get(job_id)
        pieces = self._client.tail_job_logs(job_id)

        async def piece() -> str | None:
            return await anext(pieces, None)

        with asyncio.Runner() as runner:
            try:
                while (text := runner.run(piece())) is not None:
                    yield text
            except (aiohttp.ClientError, RuntimeError) as error:
                raise ConnectionError(f"the connection to {self.address} was lost: {error}") from error

    def stop(self, job_id: str) -> Job:
        """Sends a job SIGTERM and waits until it has ended; nothing is done to one that has.

        Raises TimeoutError where it is still there after `STOP_SECONDS`, when Ray kills it, and some more.
        """
        job = self.get(job_id)
        if not job.has_ended:
            self._client.stop_job(job_id)
        deadline = time.monotonic() + STOP_SECONDS + _ANSWER_SECONDS
        while not job.has_ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} is {job.status} still; look at it with `nas logs {job_id}`")
            time.sleep(_POLL_SECONDS)
            job = self.get(job_id)
        return job


def jobs_address(address: str | None = None) -> str:
    """The address as in `Jobs`, checked. Raises ValueError naming the valid form."""
    if address is None:
        cluster = os.environ.get("RAY_ADDRESS", "")
        address = os.environ.get(_SERVER) or (cluster if cluster.startswith(("http://", "https://")) else None)
    address = (address or DEFAULT_ADDRESS).rstrip("/")
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port
        valid = False
    if not valid:
        raise ValueError(f"address is {address!r}; valid: http://host:port, for example http://10.0.0.5:8265")
    return address


def _check_reachable(address: str) -> None:
    """Fails in seconds where Ray's client would wait for the system to give up."""
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    try:
        socket.create_connection((parts.hostname, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"no Ray jobs server answers at {address}: {error}") from error


@contextlib.contextmanager
def _as_server(address: str) -> Iterator[None]:
    """Ray's client prefers this variable to the address that it is given."""
    before = os.environ.get(_SERVER)
    os.environ[_SERVER] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SERVER]
        else:
            os.environ[_SERVER] = before


class _Client(JobSubmissionClient):
    """Ray's client, with a limit to its patience and errors that say what to do."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        try:
            return super()._do_request(method, endpoint, timeout=_ANSWER_SECONDS, **options)
        except requests.RequestException as error:
            raise ConnectionError(f"no Ray jobs server answers at {self._address}: {error}") from error
        except AuthenticationError as error:
            raise _refused(self._address, error) from None


def _refused(address: str, error: AuthenticationError) -> PermissionError:
    reason = error.args[0].partition("\n")[0].partition(". ")[0]
    return PermissionError(f"no access to the cluster at {address}: {reason} ({TOKEN_HINT})")


def _job(details: JobDetails) -> Job:
    metadata = details.metadata or {}
    return Job(
        id=str(details.submission_id),
        status=str(details.status.value).lower(),
        what=metadata.get("what", details.entrypoint),
        metadata=metadata,
        started=_time(details.start_time),
        ended=_time(details.end_time),
        message=details.message or "",
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
