"""Export of a trial: the command, a button that does it, the files and the certificate."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from nas.service.pages.layout import call, chip, guarded, link, panel
from nas.service.requests import ExportSettings
from nas.service.service import Service
from nas.service.study_view import StudyView
from nas.trial import Trial

_FORMATS = {"safetensors": "PyTorch", "onnx": "ONNX", "pt2": "torch.export"}
_ASK_SECONDS = 0.7


def export_panel(service: Service, run_id: str, view: StudyView, trial: Trial, command: str) -> None:
    """command: what does the same in a terminal."""

    def copy() -> None:
        ui.clipboard.write(command)
        ui.notify("Copied", type="positive", timeout=1200)

    with panel("Export", "A standalone model with weights, and a certificate of what was measured on it."):
        with ui.row().classes("w-full items-center gap-2 no-wrap"):
            ui.label(command).classes("command").mark("command")
            ui.button(icon="content_copy", on_click=copy).props('flat round dense aria-label="copy the command"')
        with ui.row().classes("w-full items-center gap-3"):
            formats = ui.select(_FORMATS, value=["safetensors"], multiple=True, label="Formats")
            formats.props("outlined dense options-dense use-chips").style("min-width: 220px")
            button = ui.button("Export", icon="download").props("unelevated color=primary").mark("export")
            progress = ui.element("div")
        files = ui.element("div").classes("w-full")

    async def show_files() -> None:
        found = await call(service.jobs.exports, run_id, view.name, trial.number)
        files.clear()
        if found:
            with files:
                _files(run_id, view.name, trial.number, found)

    async def start() -> None:
        wanted = [name for name in _FORMATS if name == "safetensors" or name in (formats.value or [])]
        settings = ExportSettings(trial=trial.number, formats=wanted)
        job = await call(service.jobs.export, run_id, view.name, settings)
        button.props("loading")
        with files:
            timer = ui.timer(_ASK_SECONDS, guarded(lambda: ask(job["id"], timer)))

    async def ask(job_id: str, timer: ui.timer) -> None:
        timer.deactivate()  # until it is known that the job runs still
        job = await call(service.jobs.get, job_id)
        if job["state"] == "running":
            timer.activate()
            return
        button.props(remove="loading")
        progress.clear()
        with progress:
            chip(job["state"], "exported" if job["state"] == "succeeded" else f"export {job['state']}")
        await show_files()
        if job["state"] != "succeeded":
            log = await call(service.jobs.log, job_id)
            with files:
                ui.label(log[-2000:] or "It printed nothing.").classes("note-box bad")

    button.on_click(guarded(start))
    ui.timer(0.05, guarded(show_files), once=True)


def _files(run_id: str, study: str, number: int, found: list[dict[str, Any]]) -> None:
    place = ("api", "v1", "runs", run_id, "studies", study, "trials", str(number))
    order = sorted(found, key=lambda file: (file["name"] != "certificate.json", file["name"]))
    with ui.element("div").classes("pair").style("grid-template-columns: 1fr auto"):
        for file in order:
            target = link(*place, "files") + "/" + link(*file["name"].split("/"))[1:]
            text = file["name"] + (" (what was measured)" if file["name"] == "certificate.json" else "")
            ui.link(text, target).props("download")
            ui.label(_bytes(file["bytes"])).classes("soft number")
    ui.link("All files as a zip", link(*place, "archive")).props("download").classes("study-link").mark("archive")


def _bytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
