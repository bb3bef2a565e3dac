"""REST under /api/v1: what there is, read from the views that everyone shares, and what can be started."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse
from starlette.background import BackgroundTask

from nas.service import architecture
from nas.service.events import Hub
from nas.service.paths import inside
from nas.service.reach import reachable, space_summary
from nas.service.requests import ExportSettings, PreflightSettings, ResumeSettings, SearchSettings
from nas.service.service import Service
from nas.service.state import run_summaries, run_summary, study_summary, trial_row
from nas.service.study_view import StudyView

Json = dict[str, Any]
RunId = Annotated[str, Path(description="Path of the run from the root, with ~ for each slash.", max_length=400)]
StudyName = Annotated[str, Path(max_length=100)]
JobId = Annotated[str, Path(max_length=100)]
Number = Annotated[int, Path(ge=0, le=10_000_000, description="Number of a trial.")]

ERRORS: dict[int | str, Any] = {
    404: {"description": "There is no such run, study, trial, job or file; the detail names those there are."},
    409: {"description": "Something else is doing this already."},
    422: {"description": "The request is not valid; the detail says what is."},
}
router = APIRouter(prefix="/api/v1", responses=ERRORS)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


def _view(run: RunId, study: StudyName, service: Annotated[Service, Depends(_service)]) -> StudyView:
    return service.library.study(run, study)


S = Annotated[Service, Depends(_service)]
View = Annotated[StudyView, Depends(_view)]


@router.get("/runs", tags=["read"])
def list_runs(service: S) -> list[Json]:
    """Every run under the root, with its training and a summary of each of its studies."""
    return run_summaries(service.library)


@router.get("/runs/{run}", tags=["read"])
def get_run(run: RunId, service: S) -> Json:
    """One run: space, data, training and studies."""
    return run_summary(service.library, run)


@router.get("/runs/{run}/space", tags=["read"])
def get_space(run: RunId, service: S) -> Json:
    """The run's space: genes, size, and MACs and parameters of a random sample."""
    return space_summary(service.library.run(run))


@router.get("/runs/{run}/training", tags=["read"])
def get_training(run: RunId, service: S, since: Annotated[int, Query(ge=-1, le=2**53)] = -1) -> Json:
    """Records of the training after step `since`: of steps, of epochs, and of rollbacks."""
    view = service.library.training(run)
    step, total = view.progress
    found: Json = {"state": view.state, "step": step, "total_steps": total, "generation": view.generation}
    for name in ("steps", "epochs", "rollbacks"):
        found[name] = [record for record in getattr(view, name) if record["step"] > since]
    return found


@router.post("/runs/{run}/preflight", tags=["start"])
def preflight(run: RunId, settings: PreflightSettings, service: S) -> Json:
    """Whether limits can be met, the nearest reachable values where not, and between which values limits make sense."""
    profiles = settings.opened_profiles(service.library.root)
    return reachable(service.library, run, settings.parsed_limits(), profiles)


@router.get("/runs/{run}/studies", tags=["read"])
def list_studies(run: RunId, service: S) -> list[Json]:
    """A summary of each of the run's studies."""
    return [study_summary(view) for view in service.library.studies(run)]


@router.post("/runs/{run}/studies", status_code=202, tags=["start"])
def start_search(run: RunId, settings: SearchSettings, service: S) -> Json:
    """Starts a search as a job; an existing study of the same settings is continued."""
    return service.jobs.search(run, settings)


@router.get("/runs/{run}/studies/{study}", tags=["read"])
def get_study(view: View) -> Json:
    """A summary of one study."""
    return study_summary(view)


@router.get("/runs/{run}/studies/{study}/trials", tags=["read"])
def list_trials(
    view: View,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    sort: Annotated[str, Query(max_length=100, description="number, seconds, worker, state or a metric")] = "number",
    descending: bool = False,
) -> Json:
    """A page of the study's trials."""
    page = view.page(offset, limit, descending, sort)
    return {"total": len(view.trials), "offset": offset, "trials": [trial_row(view, trial.number) for trial in page]}


@router.get("/runs/{run}/studies/{study}/trials/{number}", tags=["read"])
def get_trial(
    view: View, number: Number, other: Annotated[int | None, Query(ge=0, le=10_000_000, description="a trial")] = None
) -> Json:
    """A trial with its architecture block by block, its neighbours on the front, and how it differs from another."""
    trial, space = view.trial(number), view.run.space
    found = trial_row(view, number)
    found["architecture"] = architecture.describe(space, trial.arch.to_dict())
    found["on_front"] = any(kept.number == number for kept in view.front)
    found["neighbours"] = {side: t.number if t else None for side, t in view.neighbours(trial).items()}
    if other is not None:
        found["difference"] = architecture.difference(space, trial.arch.to_dict(), view.trial(other).arch.to_dict())
    return found


@router.get("/runs/{run}/studies/{study}/front", tags=["read"])
def get_front(view: View) -> Json:
    """The feasible trials that no other dominates, and how the search came there."""
    return {
        "objectives": view.objectives,
        "limits": view.limits,
        "reference": view.reference,
        "trials": [trial_row(view, trial.number) for trial in list(view.front)],
    }


@router.get("/runs/{run}/studies/{study}/points", tags=["read"])
def get_points(view: View, since: Annotated[int, Query(ge=0, le=10_000_000)] = 0) -> Json:
    """Every trial from `since` on as columns: metrics, which are feasible, hypervolume and the best so far."""
    trials = view.trials[since:]
    return {
        "since": since,
        "generation": view.generation,
        "feasible": [trial.feasible for trial in trials],
        "metrics": {name: [trial.metrics.get(name) for trial in trials] for name in view.metrics},
        "hypervolumes": [round(volume, 6) for volume in view.hypervolumes[since:]],
        "best_so_far": view.best_so_far[since:],
        "front": [trial.number for trial in view.front],
    }


@router.get(
    "/runs/{run}/studies/{study}/events",
    tags=["read"],
    response_class=StreamingResponse,
    responses={200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}}},
)
def follow_study(
    request: Request, view: View, run: RunId, study: StudyName, since: Annotated[int, Query(ge=0, le=10_000_000)] = 0
) -> StreamingResponse:
    """Progress as differences: the trials from `since` on, then each new one within a second of its evaluation."""
    last = request.headers.get("last-event-id", "")
    since = int(last) if last.isdecimal() and len(last) < 9 else since
    events = _hub(request).follow(run, study, since)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


@router.post("/runs/{run}/studies/{study}/resume", status_code=202, tags=["start"])
def resume_search(run: RunId, study: StudyName, settings: ResumeSettings, service: S) -> Json:
    """Continues a study with the settings that it records."""
    return service.jobs.resume(run, study, settings)


@router.post("/runs/{run}/studies/{study}/stop", tags=["start"])
def stop_search(run: RunId, study: StudyName, service: S) -> Json:
    """Stops the job that searches the study; what it has evaluated is kept."""
    return service.jobs.stop_study(run, study)


@router.post("/runs/{run}/studies/{study}/export", status_code=202, tags=["start"])
def export_trial(run: RunId, study: StudyName, settings: ExportSettings, service: S) -> Json:
    """Exports a trial as a standalone model, with a certificate, as a job."""
    return service.jobs.export(run, study, settings)


@router.get("/runs/{run}/studies/{study}/trials/{number}/files", tags=["files"])
def list_files(run: RunId, study: StudyName, number: Number, service: S) -> list[Json]:
    """The files of the exported trial."""
    return service.jobs.exports(run, study, number)


@router.get(
    "/runs/{run}/studies/{study}/trials/{number}/files/{name:path}", tags=["files"], response_class=FileResponse
)
def get_file(run: RunId, study: StudyName, number: Number, name: str, service: S) -> FileResponse:
    """One file of the exported trial."""
    folder = service.jobs.export_folder(run, study, number)
    file = inside(folder, name)
    if not file.is_file():
        raise FileNotFoundError(f"there is no {name!r}")
    return FileResponse(file, filename=file.name, media_type="application/octet-stream")


@router.get("/runs/{run}/studies/{study}/trials/{number}/archive", tags=["files"], response_class=FileResponse)
def get_archive(run: RunId, study: StudyName, number: Number, service: S) -> FileResponse:
    """The exported trial, all files in one zip."""
    files = service.jobs.exports(run, study, number)
    if not files:
        raise FileNotFoundError(f"trial {number} is not exported; POST to …/export first")
    folder = service.jobs.export_folder(run, study, number)
    handle, name = tempfile.mkstemp(suffix=".zip")
    os.close(handle)
    try:
        with zipfile.ZipFile(name, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.write(inside(folder, file["name"]), f"trial-{number}/{file['name']}")
    except BaseException:  # an export writes it anew
        FilePath(name).unlink()
        raise
    done = BackgroundTask(FilePath(name).unlink)
    return FileResponse(name, filename=f"{study}-trial-{number}.zip", media_type="application/zip", background=done)


@router.get("/jobs", tags=["jobs"])
def list_jobs(service: S) -> list[Json]:
    """What was started from here, the newest first."""
    return service.jobs.list()


@router.get("/jobs/{job}", tags=["jobs"])
def get_job(job: JobId, service: S) -> Json:
    """One job and its state."""
    return service.jobs.get(job)


@router.get("/jobs/{job}/log", tags=["jobs"], response_class=PlainTextResponse)
def get_log(job: JobId, service: S) -> PlainTextResponse:
    """The end of what the job has printed."""
    return PlainTextResponse(service.jobs.log(job))


@router.post("/jobs/{job}/stop", tags=["jobs"])
def stop_job(job: JobId, service: S) -> Json:
    """Asks a job to end; what it has evaluated is kept."""
    return service.jobs.stop(job)
