"""New search: a form that says what can be reached, and does not start what cannot work."""

from __future__ import annotations

from collections.abc import Mapping

from nicegui import ui

from nas.profiles import Profile
from nas.run import Run
from nas.service import reach
from nas.service.pages.layout import ANSWER_SECONDS, call, empty, frame, guarded, link, missing, panel
from nas.service.pages.search_fields import SearchFields
from nas.service.requests import SearchSettings
from nas.service.service import Service
from nas.service.state import study_names
from nas.service.study_view import StudyView

_WAIT_SECONDS = 15.0  # for a study to appear, before the page says that it takes long


def register(service: Service) -> None:
    """The page `/new?run=RUN`; `&clone=STUDY` fills the form with a study's settings."""

    @ui.page("/new", response_timeout=ANSWER_SECONDS)
    async def page(run: str | None = None, clone: str | None = None) -> None:
        try:
            runs = await call(service.library.runs)
            chosen = run or next(iter(runs), None)
            opened = await call(service.library.run, chosen) if chosen else None
            view = await call(service.library.study, chosen, clone) if clone and chosen else None
        except LookupError as error:
            missing(error)
            return
        with frame("New search", "New search", [("Runs", "/")]):
            if opened is None or chosen is None:
                with panel():
                    empty(
                        "hub", "No run to search", "Train a supernet first: nas train --space digits --data digits -o …"
                    )
                return
            ranges = (await call(reach.reachable, service.library, chosen, {}))["range"]
            profiles = await call(_profiles, service, opened)
            await _Page(service, chosen, opened, list(runs)).build(ranges, profiles, view)


def _profiles(service: Service, run: Run) -> dict[str, Profile]:
    """Device profiles of the run's space in the root and in the run, each once, by path from the root."""
    from nas.profiles import ProfileError, require_space

    root = service.library.root
    found: dict[str, Profile] = {}
    for file in [*root.glob("*.json"), *run.path.glob("*.json"), *run.path.glob("profiles/*.json")]:
        try:
            profile = Profile.read(file)
            require_space(profile, run.space)
            known = profile.device_text and profile.identity in {other.identity for other in found.values()}
        except (ProfileError, LookupError, TypeError):
            continue
        if not known:  # else a copy that a search has kept
            found[file.relative_to(root).as_posix()] = profile
    return found


class _Page:
    """The form, what a search of its settings would be refused for, and its start."""

    def __init__(self, service: Service, run_id: str, run: Run, runs: list[str]) -> None:
        self._service, self._run_id, self._run, self._runs = service, run_id, run, runs
        self._checks = 0

    async def build(
        self, ranges: Mapping[str, list[float]], profiles: Mapping[str, Profile], clone: StudyView | None
    ) -> None:
        """All fields, then a first check."""
        name, taken = f"{clone.name}-2" if clone else "search-1", study_names(self._run)
        while name in taken:
            stem, _, number = name.rpartition("-")
            name = f"{stem}-{int(number) + 1}"
        self._fields = SearchFields(self._check, self._latency_range, ranges, profiles, clone)
        self._fields.build(self._choose_run, name)
        with panel() as box:
            box.props("aria-live=polite")
            self._verdict = ui.label("Checking…").classes("note-box").mark("verdict")
            with ui.row().classes("w-full items-center gap-3"):
                self._start = ui.button("Start search", icon="play_arrow", on_click=guarded(self._started))
                self._start.props("unelevated color=primary disable").mark("start")
                place = "as a job of the Ray cluster" if self._service.jobs.address else "on this machine"
                ui.label(f"It runs {place} and goes on without this page.").classes("soft small")
        ui.timer(0.05, self._fields.show_devices, once=True)

    def _choose_run(self) -> None:
        run = ui.select(
            self._runs, value=self._run_id, label="Run", on_change=lambda e: ui.navigate.to(link("new", run=e.value))
        )
        run.props("outlined dense").classes("w-full")

    async def _latency_range(self, profile: Profile) -> list[float]:
        found = await call(reach.reachable, self._service.library, self._run_id, {}, [profile])
        return found["range"]["latency_ms"]

    async def _check(self) -> None:
        """The same checks as the command's, before anything is started; the last change decides."""
        self._checks += 1
        mine = self._checks
        self._start.props("disable")
        try:
            settings = self._fields.settings()
            await call(settings.check, self._run, self._service.library.root)
            kind, text = "good", "These limits can be met. Ready to start."
        except (ValueError, OSError) as error:
            kind, text = "bad", str(error)
        if mine != self._checks:
            return
        self._verdict.text = text
        self._verdict.classes(replace=f"note-box {kind}")
        if kind == "good":
            self._start.props(remove="disable")

    async def _started(self) -> None:
        settings = self._fields.settings()
        self._start.props("loading")
        try:
            job = await call(self._service.jobs.search, self._run_id, settings)
        except BaseException:
            self._start.props(remove="loading")
            raise
        self._verdict.text = "Starting: workers load the supernet…"
        self._verdict.classes(replace="note-box")
        self._follow(settings, job["id"])

    def _follow(self, settings: SearchSettings, job_id: str) -> None:
        """Goes on to the study's page once it exists."""
        waited = 0.0

        async def look() -> None:
            nonlocal waited
            waited += 0.5
            if settings.study in await call(study_names, self._run):
                timer.deactivate()
                ui.navigate.to(link("search", self._run_id, settings.study))
                return
            now = await call(self._service.jobs.get, job_id)
            if now["state"] in ("failed", "stopped"):
                timer.deactivate()
                self._start.props(remove="loading")
                log = await call(self._service.jobs.log, job_id)
                self._verdict.text = f"It did not start.\n{log[-1500:]}"
                self._verdict.classes(replace="note-box bad")
            elif waited > _WAIT_SECONDS:
                self._verdict.text = (
                    f"Still starting, after {waited:.0f} s: the page goes on as soon as the study exists."
                )

        timer = ui.timer(0.5, look)
