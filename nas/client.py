"""`Client`: the service's API in Python, with the standard library alone."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

_SECONDS = 30.0  # for one answer
_QUIET_SECONDS = 60.0  # after which a connection that says nothing, not even that it is there, is lost
_PAUSE_SECONDS = 1.0  # before a lost connection is made again
_MOST_TRIALS = 1000  # in one page


class ServiceError(RuntimeError):
    """The service refused, or did not answer.

    code: the HTTP status, or None where there was no answer. The message is the service's own.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class Client:
    """Calls a service of `nas serve`.

    url: such as http://127.0.0.1:8390. token: where the service asks for one. Every method raises ServiceError.
    Runs are named by their path from the service's root, with `~` for each slash, as `runs` gives them as `id`.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def runs(self) -> list[dict[str, Any]]:
        """Every run with its training and its studies."""
        found: list[dict[str, Any]] = self._json("GET", "/runs")
        return found

    def studies(self, run: str) -> list[dict[str, Any]]:
        """A summary of each study of a run."""
        found: list[dict[str, Any]] = self._json("GET", f"/runs/{_quoted(run)}/studies")
        return found

    def study(self, run: str, study: str = "default") -> dict[str, Any]:
        """A summary of one study: state, progress, best, limits, workers."""
        return self._object("GET", _place(run, study))

    def trials(self, run: str, study: str = "default") -> Iterator[dict[str, Any]]:
        """Every trial in order of number, read a page at a time."""
        offset, total = 0, 1
        while offset < total:
            query = urlencode({"offset": offset, "limit": _MOST_TRIALS})
            page = self._object("GET", f"{_place(run, study)}/trials?{query}")
            yield from page["trials"]
            offset, total = offset + _MOST_TRIALS, page["total"]

    def trial(self, run: str, study: str, number: int) -> dict[str, Any]:
        """A trial with its architecture, block by block, and its neighbours on the front."""
        return self._object("GET", f"{_place(run, study)}/trials/{number}")

    def front(self, run: str, study: str = "default") -> list[dict[str, Any]]:
        """The feasible trials that no other dominates."""
        trials: list[dict[str, Any]] = self._object("GET", f"{_place(run, study)}/front")["trials"]
        return trials

    def preflight(self, run: str, limits: Mapping[str, Any], profiles: Sequence[str] = ()) -> dict[str, Any]:
        """Whether `limits` can be met, and the range of each metric. limits, profiles: as of `start`."""
        return self._object(
            "POST", f"/runs/{_quoted(run)}/preflight", {"limits": dict(limits), "profiles": [*profiles]}
        )

    def start(self, run: str, **settings: Any) -> dict[str, Any]:
        """Starts a search; the job.

        settings: of `nas.service.requests.SearchSettings`, such as `study="a", n_trials=200, limits={"macs": 40e6}`;
        a limit is an upper one, or [lowest, highest] with None for an open end. profiles: device profiles, by paths
        from the service's root, each with a latency that can be limited.
        """
        return self._object("POST", f"/runs/{_quoted(run)}/studies", settings)

    def resume(self, run: str, study: str = "default", **settings: Any) -> dict[str, Any]:
        """Continues a study with the settings that it records, where new searches run; the job."""
        return self._object("POST", f"{_place(run, study)}/resume", settings)

    def stop(self, run: str, study: str = "default") -> dict[str, Any]:
        """Stops a search that the service started; the job."""
        return self._object("POST", f"{_place(run, study)}/stop")

    def export(self, run: str, study: str, trial: int, formats: list[str] | None = None) -> dict[str, Any]:
        """Starts the export of a trial; the job. `wait` for it, then `download`."""
        settings = {"trial": trial} | ({"formats": formats} if formats else {})
        return self._object("POST", f"{_place(run, study)}/export", settings)

    def jobs(self) -> list[dict[str, Any]]:
        """What was started from the service, the newest first."""
        found: list[dict[str, Any]] = self._json("GET", "/jobs")
        return found

    def job(self, job: str) -> dict[str, Any]:
        """A job and its state."""
        return self._object("GET", f"/jobs/{_quoted(job)}")

    def wait(self, job: str, seconds: float = 600.0) -> dict[str, Any]:
        """The job once it has ended. Raises ServiceError for one that failed, with what it printed last.

        And TimeoutError where it still runs after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while (found := self.job(job))["state"] == "running":
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} still runs after {seconds:g} s")
            time.sleep(0.3)
        if found["state"] == "failed":
            with self._open("GET", f"/jobs/{_quoted(job)}/log") as answer:
                raise ServiceError(f"job {job} failed: {answer.read().decode(errors='replace').strip()[-1000:]}")
        return found

    def files(self, run: str, study: str, trial: int) -> list[dict[str, Any]]:
        """The files of an exported trial: `name` and `bytes`."""
        found: list[dict[str, Any]] = self._json("GET", f"{_place(run, study)}/trials/{trial}/files")
        return found

    def download(self, run: str, study: str, trial: int, out: str | Path) -> Path:
        """The exported trial as a folder `out`, which must not exist yet."""
        folder = Path(out)
        folder.mkdir(parents=True)
        for file in self.files(run, study, trial):
            target = (folder / file["name"]).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise ServiceError(f"the service names a file outside of the folder: {file['name']!r}")
            target.parent.mkdir(parents=True, exist_ok=True)
            place = f"{_place(run, study)}/trials/{trial}/files/{quote(file['name'])}"
            with self._open("GET", place) as answer, open(target, "wb") as copy:
                shutil.copyfileobj(answer, copy)
        return folder

    def follow(self, run: str, study: str = "default", since: int = 0) -> Iterator[dict[str, Any]]:
        """What happens to a study, as it happens, until its search has ended: see `nas.service.events.Hub.follow`.

        since: the first trial that is wanted. A connection that is lost is made again from where it was, as soon as a
        service answers.
        """
        ended = begun = False
        while not ended:
            try:
                with self._open("GET", f"{_place(run, study)}/events?since={since}", timeout=_QUIET_SECONDS) as answer:
                    begun = True
                    for event in _events(answer):
                        yield event
                        since = event["since"] + len(event["trials"])
                        summary = event["summary"]
                        ended = since >= summary["n_trials"] and summary["state"] != "searching"
                        if ended:
                            break
            except (OSError, HTTPException, ServiceError) as error:
                if isinstance(error, ServiceError) and (error.code is not None or not begun):
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _object(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        found: dict[str, Any] = self._json(method, path, body)
        return found

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        with self._open(method, path, body) as answer:
            return json.load(answer)

    def _open(self, method: str, path: str, body: Any = None, timeout: float = _SECONDS) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if data is not None else {})
        request = urllib.request.Request(f"{self.url}/api/v1{path}", data, headers, method=method)
        try:
            answer: HTTPResponse = urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            raise ServiceError(_reason(error), error.code) from None
        except urllib.error.URLError as error:
            raise ServiceError(f"no service answers at {self.url}: {error.reason}") from error
        return answer


def _place(run: str, study: str) -> str:
    return f"/runs/{_quoted(run)}/studies/{_quoted(study)}"


def _quoted(name: str) -> str:
    return quote(name, safe="~")


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _events(answer: HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))
