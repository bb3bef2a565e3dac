"""Searches and exports started from the service: processes of our own entry point, or jobs of a Ray cluster.

Each process has a session of its own, so that nothing that happens to the service reaches it, and is recorded on disk,
so that the next service sees it. Arguments come from checked settings as a list; no shell reads them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pydantic import TypeAdapter

from nas.json_file import write_json
from nas.run import Run
from nas.service.requests import ExportSettings, ResumeSettings, SearchSettings
from nas.service.state import Library

if TYPE_CHECKING:
    from workers.ray_jobs import Jobs as RayJobs

FOLDER = ".nas-service"  # in the root: records of jobs, their output, exported models
KINDS = ("search", "resume", "export")

Rows = list[dict[str, Any]]

_LOG_BYTES = 20_000  # of a job's output that are shown
_LOST_SECONDS = 5.0  # for which a cluster that did not answer is not asked again
_RAY_CODES = {"succeeded": 0, "failed": 1, "stopped": 130}  # by how a Ray job ended


class BusyError(RuntimeError):
    """Something else is doing this already; the message says what."""


@dataclass(frozen=True)
class Job:
    """One start.

    kind: one of `KINDS`. argv: what was run. pid, born: of the process, with its start time in clock ticks since the
    machine started, which tells it from a later one of the same number. ray_id: of a Ray job instead.
    """

    id: str
    kind: str
    run: str
    study: str
    argv: list[str]
    started: float
    pid: int | None = None
    born: int | None = None
    ray_id: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


_RECORD = TypeAdapter(Job)


class Jobs:
    """What was started under a library's root, here or by a service before this one.

    address: of a Ray jobs server, on which searches then run; exports always run here.
    """

    def __init__(self, library: Library, address: str | None = None) -> None:
        self.library, self.address = library, address
        self.folder = library.root / FOLDER
        self._lock = threading.Lock()
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lost_until = float("-inf")

    def list(self) -> Rows:
        """Every job with its `state`, the newest first."""
        jobs = [job for file in self.folder.glob("jobs/*.json") if (job := _read(file))]
        return [self._described(job) for job in sorted(jobs, key=lambda job: -job.started)]

    def get(self, job_id: str) -> dict[str, Any]:
        """A job with its `state`: "running", "succeeded", "failed", "stopped", or "unknown" where no cluster answers.

        Raises LookupError.
        """
        return self._described(self._job(job_id))

    def log(self, job_id: str) -> str:
        """The end of what the job has printed. Raises LookupError."""
        job = self._job(job_id)
        if job.ray_id:
            return self._ray().logs(job.ray_id)[-_LOG_BYTES:]
        try:
            with open(self._file(job.id, "log"), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def search(self, run_id: str, settings: SearchSettings) -> dict[str, Any]:
        """Starts `nas search`. Raises BusyError while something writes the study; ValueError for what cannot work.

        InfeasibleLimitsError, a ValueError, names the nearest reachable values.
        """
        run = self.library.run(run_id)
        settings.check(run, self.library.root)
        options = settings.options(self.library.root)
        with self._lock:
            self._require_free(run, run_id, settings.study)
            return self._start("search", run_id, settings.study, [str(run.path), *options], settings.model_dump())

    def resume(self, run_id: str, study: str, settings: ResumeSettings) -> dict[str, Any]:
        """Starts `nas resume` of a study, whoever began it, where new searches run.

        Raises BusyError while something writes it; ValueError for what cannot work.
        """
        view = self.library.study(run_id, study)
        options = [f"--study-name={study}", *settings.options()]
        with self._lock:
            self._require_free(view.run, run_id, study)
            settings.check(view)
            return self._start("resume", run_id, study, [str(view.run.path), *options], settings.model_dump())

    def export(self, run_id: str, study: str, settings: ExportSettings) -> dict[str, Any]:
        """Starts `nas export` of a trial into `exports/RUN/STUDY/trial-N` of the service's folder.

        Raises IndexError for an unknown trial, BusyError while the same one is being exported.
        """
        view = self.library.study(run_id, study)
        view.trial(settings.trial)
        out = self.export_folder(run_id, study, settings.trial)
        options = [f"--study-name={study}", *settings.options(), f"--out={out}", "--force"]
        with self._lock:
            for job in self.list():
                same = (job["kind"], job["run"], job["study"]) == ("export", run_id, study)
                if same and job["settings"].get("trial") == settings.trial and job["state"] == "running":
                    raise BusyError(f"trial {settings.trial} is being exported already, by job {job['id']}")
            return self._start("export", run_id, study, [str(view.run.path), *options], settings.model_dump())

    def export_folder(self, run_id: str, study: str, trial: int) -> Path:
        """Where a trial is exported to. Raises UnknownError for an unknown run or study."""
        self.library.study(run_id, study)
        return self.folder / "exports" / run_id / study / f"trial-{trial}"

    def exports(self, run_id: str, study: str, trial: int) -> Rows:
        """The files of an exported trial by `name`, a path relative to its folder, with their `bytes`."""
        folder = self.export_folder(run_id, study, trial)
        files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]
        return [
            {"name": p.relative_to(folder).as_posix(), "bytes": p.stat().st_size}
            for p in files
            if "__pycache__" not in p.parts
        ]

    def stop(self, job_id: str) -> dict[str, Any]:
        """Asks a job to end as Ctrl-C does: what is evaluated is kept. Nothing is done to one that has ended."""
        job = self._job(job_id)
        if job.ray_id:
            self._ray().stop(job.ray_id)
        elif job.pid and self._state(job) == "running":
            self._file(job.id, "stopped").touch()
            os.kill(job.pid, signal.SIGINT)
        return self.get(job_id)

    def stop_study(self, run_id: str, study: str) -> dict[str, Any]:
        """Stops the job that searches a study. Raises LookupError where none of ours does."""
        self.library.study(run_id, study)
        for job in self.list():
            if (job["run"], job["study"]) == (run_id, study) and job["kind"] != "export" and job["state"] == "running":
                return self.stop(job["id"])
        raise LookupError(f"no search of study {study!r} that was started from here is running")

    def _start(
        self, command: str, run_id: str, study: str, arguments: Sequence[str], settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        job_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid4().hex[:6]}"
        argv = [sys.executable, "-m", "nas.cli", command, *arguments]
        job = Job(job_id, command, run_id, study, argv, time.time(), settings=dict(settings))
        try:
            (self.folder / "jobs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"nothing can be started, for there is no room for its record: {error}") from error
        if self.address and command != "export":
            job = Job(**{**asdict(job), "ray_id": self._launch(command, arguments, study)})
        else:
            process = self._spawn(argv, job_id)
            job = Job(**{**asdict(job), "pid": process.pid, "born": _born(process.pid)})
        write_json(self._file(job_id, "json"), asdict(job))
        return self._described(job)

    def _launch(self, command: str, arguments: Sequence[str], study: str) -> str:
        from nas.launching import launch

        try:
            return launch(command, arguments[0], arguments[1:], study, self.address).id
        except RuntimeError as error:  # other versions there, or whatever the cluster says
            raise ConnectionError(str(error)) from error

    def _spawn(self, argv: Sequence[str], job_id: str) -> subprocess.Popen[bytes]:
        # The shell-free wrapper leaves the exit code on disk, for a service that was not the parent.
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
        environment.pop("NAS_TOKEN", None)
        done = self._file(job_id, "code")
        wrapper = [sys.executable, "-m", "nas.service.child", str(done), *argv]
        with open(self._file(job_id, "log"), "wb") as log:
            process = subprocess.Popen(
                wrapper, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=environment, cwd=self.library.root,
            )  # fmt: skip
        self._children[process.pid] = process
        return process

    def _require_free(self, run: Run, run_id: str, study: str) -> None:
        """The study's own lock decides in the end; this says so before anything is started."""
        from nas.journal import is_written

        if is_written(run.study(study)):
            raise BusyError(f"study {study!r} of {run_id!r} is being searched already")
        for job in self.list():
            if (job["run"], job["study"]) == (run_id, study) and job["kind"] != "export" and job["state"] == "running":
                raise BusyError(f"study {study!r} of {run_id!r} is being searched already, by job {job['id']}")

    def _described(self, job: Job) -> dict[str, Any]:
        state = self._state(job)
        return asdict(job) | {"state": state, "code": self._code(job)}

    def _state(self, job: Job) -> str:
        code = self._code(job)
        if code is None and job.ray_id:
            return self._ray_state(job, job.ray_id)
        if code is None:
            return "running" if self._alive(job) else "failed"
        if code == 0:
            return "succeeded"
        return "stopped" if code == 130 or self._file(job.id, "stopped").exists() else "failed"

    def _ray_state(self, job: Job, ray_id: str) -> str:
        if time.monotonic() < self._lost_until:
            return "unknown"
        try:
            status = self._ray().get(ray_id).status
        except ValueError:  # the cluster is another one now
            return "unknown"
        except (ConnectionError, PermissionError):
            self._lost_until = time.monotonic() + _LOST_SECONDS
            return "unknown"
        if status in _RAY_CODES:  # for good: the cluster is not asked again
            self._file(job.id, "code").write_text(str(_RAY_CODES[status]))
        return "running" if status == "pending" else status

    def _alive(self, job: Job) -> bool:
        child = self._children.get(job.pid or 0)
        if child is not None:
            return child.poll() is None
        return job.pid is not None and job.born is not None and _born(job.pid) == job.born

    def _code(self, job: Job) -> int | None:
        try:
            return int(self._file(job.id, "code").read_text())
        except (OSError, ValueError):
            return None

    def _job(self, job_id: str) -> Job:
        for file in self.folder.glob("jobs/*.json"):
            if file.stem == job_id and (job := _read(file)):
                return job
        raise LookupError(f"there is no job {job_id!r}")

    def _file(self, job_id: str, suffix: str) -> Path:
        return self.folder / "jobs" / f"{job_id}.{suffix}"

    def _ray(self) -> RayJobs:
        from workers.ray_jobs import Jobs as RayJobs

        return RayJobs(self.address)


def _read(file: Path) -> Job | None:
    """None for what is no record, or one under another name."""
    try:
        job = _RECORD.validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None
    return job if job.id == file.stem else None


def _born(pid: int) -> int | None:
    """When a process started, in clock ticks; None of one that has ended, also where nobody has asked for its code."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])
