"""New search: a form that says what can be reached, and does not start what cannot work."""

from __future__ import annotations

from typing import Any

from nicegui import ui
from pydantic import ValidationError

from nas import strategies
from nas.quantities import LATENCY, parse_quantity, show_quantity
from nas.run import Run
from nas.searching import SCORES
from nas.service import state
from nas.service.pages import charts
from nas.service.pages.layout import call, empty, frame, guarded, link, missing, panel
from nas.service.requests import SearchSettings
from nas.service.service import Service
from nas.service.study_view import StudyView
from search_spaces.limits import bounds

_WAIT_SECONDS = 15.0  # for a study to appear, before the page goes on to the runs
_COSTS = ("macs", "params", "peak_memory", "weight_bytes")
_WITH_LOWEST = ("macs", "params")
_OBJECTIVES = ("top1", *_COSTS)


def register(service: Service) -> None:
    """The page `/new?run=RUN`; `&clone=STUDY` fills the form with a study's settings."""

    @ui.page("/new")
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
            ranges = (await call(state.reachable, opened, {}))["range"]
            profiles = await call(_profiles, service, opened)
            _Form(service, chosen, opened, ranges, profiles, list(runs), view).build()


def _profiles(service: Service, run: Run) -> dict[str, str]:
    """Device profiles of the run's space beside and in the run, by path from the root."""
    from nas.profiles import Profile, ProfileError

    found = {}
    root = service.library.root
    for file in [*root.glob("*.json"), *run.path.glob("*.json"), *run.path.glob("profiles/*.json")]:
        try:
            found[file.relative_to(root).as_posix()] = Profile.read(file).name
        except (ProfileError, ValueError):
            continue
    return found


class _Form:
    """The form's fields, read into `SearchSettings` and checked whenever one changes."""

    def __init__(
        self, service: Service, run_id: str, run: Run, ranges: dict[str, list[float]], profiles: dict[str, str],
        runs: list[str], clone: StudyView | None,
    ) -> None:  # fmt: skip
        self._service, self._run_id, self._run, self._ranges = service, run_id, run, ranges
        self._profiles, self._runs, self._clone = profiles, runs, clone
        self._limits: dict[tuple[str, int], ui.input] = {}
        self._checks = 0

    def build(self) -> None:
        """All fields, then a first check."""
        with panel("What to search"), ui.element("div").classes("form"):
            self._what()
        with panel("Limits", "Empty is no limit. Write 20M, 1.5G or 250000."), ui.element("div").classes("form"):
            self._limit_fields()
        with panel("How to search"), ui.element("div").classes("form"):
            self._how()
        with panel() as box:
            box.props("aria-live=polite")
            self._verdict = ui.label("Checking…").classes("note-box").mark("verdict")
            with ui.row().classes("w-full items-center gap-3"):
                self._start = ui.button("Start search", icon="play_arrow", on_click=guarded(self._started))
                self._start.props("unelevated color=primary disable").mark("start")
                place = "as a job of the Ray cluster" if self._service.jobs.address else "on this machine"
                ui.label(f"It runs {place} and goes on without this page.").classes("soft small")
        ui.timer(0.05, self._check, once=True)

    def _what(self) -> None:
        old = self._clone.identity if self._clone else None
        run = ui.select(
            self._runs, value=self._run_id, label="Run", on_change=lambda e: ui.navigate.to(link("new", run=e.value))
        )
        self._study = ui.input("Study name", value=f"{self._clone.name}-2" if self._clone else self._free_name())
        self._objectives = ui.select(
            {name: charts.label(name) for name in _OBJECTIVES}, multiple=True, label="Objectives",
            value=list(old.objectives) if old else ["top1", "macs"],
        )  # fmt: skip
        self._profile = ui.select(
            self._profiles, multiple=True, label="Device profiles",
            value=[],
        )  # fmt: skip
        if not self._profiles:
            self._profile.disable()
            self._profile.props('hint="none here; nas profile makes one"')
        self._objectives.props('hint="the first matters most"')
        for field in (self._study, self._objectives, self._profile):
            self._watch(field)
        run.props("outlined dense")

    def _free_name(self) -> str:
        taken = state.study_names(self._run)
        return next(name for n in range(1, len(taken) + 2) if (name := f"search-{n}") not in taken)

    def _limit_fields(self) -> None:
        old = self._clone.limits if self._clone else {}
        for name in _COSTS:
            low, high = self._ranges[name]
            before = bounds(old[name]) if name in old else (float("-inf"), float("inf"))
            reach = f"reachable: {charts.show(name, low)} to {charts.show(name, high)}"
            for end in (1, 0) if name in _WITH_LOWEST else (1,):
                word = "at most" if end else "at least"
                value = show_quantity(before[end]) if abs(before[end]) != float("inf") else ""
                field = ui.input(f"{charts.label(name)}, {word}", value=value).props(f'hint="{reach}"')
                self._limits[name, end] = self._watch(field)
        self._limits[LATENCY, 1] = self._watch(ui.input("latency in ms, at most"))
        self._limits[LATENCY, 1].props('hint="needs one device profile"').bind_enabled_from(
            self._profile, "value", lambda chosen: len(chosen or []) == 1
        )

    def _how(self) -> None:
        old = self._clone.identity if self._clone else None
        names = list(strategies.STRATEGIES)
        self._strategy = ui.select(names, value=old.strategy if old else strategies.DEFAULT_STRATEGY, label="Strategy")
        self._trials = ui.number("Evaluations", value=(self._clone and self._clone.n_asked) or 100, min=1, precision=0)
        self._workers = ui.number("Workers (0: in the driver)", value=1, min=0, precision=0)
        self._gpus = ui.number("GPUs a worker", value=0, min=0, step=0.25)
        self._seed = ui.number("Seed", value=old.seed if old else 0, min=0, precision=0)
        self._lookahead = ui.number("Lookahead", value=old.lookahead if old else 8, min=1, precision=0)
        self._score = ui.select(
            list(SCORES), label="Score", value=old.context.get("score", SCORES[0]) if old else SCORES[0]
        )
        self._workers.props('hint="Ray actors"')
        self._lookahead.props('hint="about 1.5 times the workers"')
        for field in (
            self._strategy, self._trials, self._workers, self._gpus, self._seed, self._lookahead, self._score,
        ):  # fmt: skip
            self._watch(field)

    def _watch(self, field: Any) -> Any:
        field.props("outlined dense debounce=250").classes("w-full")
        field.on_value_change(self._check)
        return field

    def _settings(self) -> SearchSettings:
        """Raises ValueError naming the field that is none."""
        limits: dict[str, Any] = {}
        for (name, end), field in self._limits.items():
            if text := (field.value or "").strip():
                if name == LATENCY and not field.enabled:
                    continue
                limits.setdefault(name, [None, None])[end] = parse_quantity(text)
        numbers = {
            "n_trials": self._trials.value, "num_workers": self._workers.value, "seed": self._seed.value,
            "lookahead": self._lookahead.value,
        }  # fmt: skip
        if empty_ones := [name for name, value in numbers.items() if value is None]:
            raise ValueError(f"{empty_ones[0]} is empty; write a number")
        return SearchSettings(
            study=self._study.value or "", strategy=self._strategy.value, objectives=self._objectives.value or [],
            limits=limits, profiles=self._profile.value or [], score=self._score.value,
            num_gpus=self._gpus.value or None, **{name: int(value) for name, value in numbers.items()},
        )  # fmt: skip

    async def _check(self) -> None:
        """The same checks as the command's, before anything is started; the last change decides."""
        self._checks += 1
        mine = self._checks
        self._start.props("disable")
        try:
            settings = self._settings()
            await call(settings.check, self._run, self._service.library.root)
            kind, text = "good", "These limits can be met. Ready to start."
        except ValidationError as error:
            first = error.errors()[0]
            kind, text = "bad", f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        except (ValueError, OSError) as error:
            kind, text = "bad", str(error)
        if mine != self._checks:
            return
        self._verdict.text = text
        self._verdict.classes(replace=f"note-box {kind}")
        if kind == "good":
            self._start.props(remove="disable")

    async def _started(self) -> None:
        settings = self._settings()
        self._start.props("loading")
        try:
            job = await call(self._service.jobs.search, self._run_id, settings)
        finally:
            self._start.props(remove="loading")
        self._verdict.text = "Starting: workers load the supernet…"
        self._verdict.classes(replace="note-box")
        self._start.props("loading")
        waited = 0.0

        async def follow() -> None:
            nonlocal waited
            waited += 0.5
            names = await call(state.study_names, self._run)
            if settings.study in names:
                timer.deactivate()
                ui.navigate.to(link("search", self._run_id, settings.study))
                return
            now = await call(self._service.jobs.get, job["id"])
            if now["state"] in ("failed", "stopped"):
                timer.deactivate()
                self._start.props(remove="loading")
                log = await call(self._service.jobs.log, job["id"])
                self._verdict.text = f"It did not start.\n{log[-1500:]}"
                self._verdict.classes(replace="note-box bad")
            elif waited > _WAIT_SECONDS:
                self._verdict.text = (
                    f"Still starting, after {waited:.0f} s: the page goes on as soon as the study exists."
                )

        timer = ui.timer(0.5, follow)
