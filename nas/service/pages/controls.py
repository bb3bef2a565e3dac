"""What can be done with a study: stop, resume, clone. And what the last start has printed."""

from __future__ import annotations

from nicegui import ui

from nas.service.pages.fields import whole
from nas.service.pages.layout import call, chip, guarded, link
from nas.service.requests import ResumeSettings
from nas.service.service import Service
from nas.service.study_view import StudyView


class Controls:
    """A row with the state and the buttons that make sense in it."""

    def __init__(self, service: Service, run_id: str, view: StudyView) -> None:
        self._service, self._run_id, self._view = service, run_id, view
        self._shown: str | None = None
        with ui.row().classes("w-full items-center gap-2"):
            self._chip = ui.element("div")
            ui.space()
            self._stop = ui.button("Stop", icon="stop", on_click=guarded(self._stopped)).props("outline color=negative")
            self._resume = ui.button("Resume", icon="play_arrow", on_click=self._ask).props("unelevated color=primary")
            clone = link("new", run=run_id, clone=view.name)
            ui.button("Clone with changes", icon="content_copy", on_click=lambda: ui.navigate.to(clone)).props("flat")
            ui.button("Log", icon="notes", on_click=guarded(self._log)).props("flat")

    def show(self, state: str) -> None:
        """Shows the buttons for this state of the study."""
        if state == self._shown:
            return
        self._shown = state
        self._chip.clear()
        with self._chip:
            chip(state)
        self._stop.set_visibility(state == "searching")
        self._resume.set_visibility(state in ("interrupted", "finished", "idle"))
        self._resume.text = "More evaluations" if state == "finished" else "Resume"

    async def _stopped(self) -> None:
        await call(self._service.jobs.stop_study, self._run_id, self._view.name)
        ui.notify("Stopping: what is being evaluated is kept.", type="info")

    def _ask(self) -> None:
        done, asked = len(self._view.trials), self._view.n_asked or 100
        with ui.dialog() as dialog, ui.card().classes("gap-3").style("min-width: min(360px, 90vw)"):
            ui.label(f"Continue {self._view.name}").classes("heading")
            ui.label("The settings stay as the study records them.").classes("soft small")
            total = asked if asked > done else done + 100
            number = ui.number("Evaluations in all", value=total, min=done + 1, precision=0)
            workers = ui.number("Workers (0: in the driver)", value=1, min=0, precision=0)
            for field in (number, workers):
                field.props("outlined dense").classes("w-full")

            async def start() -> None:
                settings = ResumeSettings(n_trials=whole(number), num_workers=whole(workers))
                await call(self._service.jobs.resume, self._run_id, self._view.name, settings)
                dialog.close()
                ui.notify("Resuming: points appear in a few seconds.", type="positive")

            with ui.row().classes("w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).props("flat")
                ui.button("Resume", on_click=guarded(start)).props("unelevated color=primary").mark("resume")
        dialog.on("hide", dialog.delete)
        dialog.open()

    async def _log(self) -> None:
        jobs = await call(self._service.jobs.list)
        mine = [j for j in jobs if (j["run"], j["study"]) == (self._run_id, self._view.name) and j["kind"] != "export"]
        if not mine:
            raise LookupError("This study was not started from here: its log is where it was started.")
        text = await call(self._service.jobs.log, mine[0]["id"])
        with ui.dialog() as dialog, ui.card().style("width: min(900px, 95vw); max-width: none"):
            with ui.row().classes("w-full items-center justify-between"):
                ui.label(f"Log of the last start ({mine[0]['state']})").classes("heading")
                ui.button(icon="close", on_click=dialog.close).props('flat round dense aria-label="close"')
            ui.label(text or "Nothing printed yet.").classes("command w-full").style(
                "white-space: pre-wrap; max-height: 60vh; overflow: auto"
            )
        dialog.on("hide", dialog.delete)
        dialog.open()
