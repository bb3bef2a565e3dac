"""The form's fields: what to search, its limits and how, read into `SearchSettings`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui
from pydantic import ValidationError

from nas import strategies
from nas.profiles import Profile, contexts_of
from nas.quantities import LATENCY
from nas.searching import SCORES
from nas.service.pages import charts
from nas.service.pages.fields import FieldError, whole
from nas.service.pages.layout import panel
from nas.service.pages.limit_fields import COSTS, LimitFields
from nas.service.requests import SearchSettings
from nas.service.study_view import StudyView

_OBJECTIVES = ("top1", *COSTS)


class SearchFields:
    """Every field of the form but the run's.

    check: called whenever a field changes. latency_range: between which values the latency of a profile can be.
    ranges: of the other metrics. profiles: those that can be chosen, by path. clone: a study whose settings to begin
    with.
    """

    def __init__(
        self,
        check: Callable[[], Awaitable[None]],
        latency_range: Callable[[Profile], Awaitable[list[float]]],
        ranges: Mapping[str, list[float]],
        profiles: Mapping[str, Profile],
        clone: StudyView | None,
    ) -> None:
        self._check, self._latency_range, self._ranges, self._profiles = check, latency_range, ranges, profiles
        self._clone = clone
        self._old = clone.identity if clone else None
        self._fields: dict[str, Any] = {}  # by name of the setting
        self._latencies = self._cloned_latencies()  # name of the latency by path of the profile
        self._choices = 0  # of profiles, counted

    def _cloned_latencies(self) -> dict[str, str]:
        wanted = contexts_of(self._old.context) if self._old else {}
        paths = {profile.identity: path for path, profile in self._profiles.items()}
        return {paths[identity]: metric for metric, identity in wanted.items() if identity in paths}

    def build(self, choose_run: Callable[[], None], study_name: str) -> None:
        """All fields. choose_run: makes the first one."""
        with panel("What to search"), ui.element("div").classes("form"):
            choose_run()
            self._what(study_name)
        with panel("Limits", "Empty is no limit. Write 20M, 1.5G or 250000."):
            with ui.element("div").classes("form"):
                limits = self._clone.limits if self._clone else {}
                self._limits = LimitFields(self._ranges, limits, self._watched)
                self._limits.begin_latencies({p: limits[m] for p, m in self._latencies.items() if m in limits})
            self._say_missing()
        with panel("How to search"), ui.element("div").classes("form"):
            self._how()

    def _what(self, study_name: str) -> None:
        old = list(self._old.objectives) if self._old else ["top1", "macs"]
        self._add("study", ui.input("Study name", value=study_name))
        options = {path: f"{p.name}: {p.device_text}" for path, p in self._profiles.items()}
        profiles = ui.select(options, multiple=True, label="Device profiles", value=list(self._latencies))
        self._add("profiles", profiles, "latencies to limit" if options else "none here; nas profile makes one")
        profiles.on_value_change(self.show_devices)
        profiles.set_enabled(bool(options))
        known = [*_OBJECTIVES, *self._latencies.values()]
        objectives = ui.select(_labels(known), multiple=True, label="Objectives", value=[m for m in old if m in known])
        self._add("objectives", objectives, "the first matters most")

    def _how(self) -> None:
        old, names = self._old, list(strategies.STRATEGIES)
        strategy = old.strategy if old and old.strategy in names else strategies.DEFAULT_STRATEGY
        score = old.context.get("score", SCORES[0]) if old else SCORES[0]
        asked = (self._clone and self._clone.n_asked) or 100
        self._add("strategy", ui.select(names, value=strategy, label="Strategy"))
        self._add("n_trials", ui.number("Evaluations", value=asked, min=1, precision=0))
        self._add("num_workers", ui.number("Workers (0: in the driver)", value=1, min=0, precision=0), "Ray actors")
        self._add("num_gpus", ui.number("GPUs a worker", value=0, min=0, step=0.25))
        self._add("seed", ui.number("Seed", value=old.seed if old else 0, min=0, precision=0))
        lookahead = ui.number("Lookahead", value=old.lookahead if old else 8, min=1, precision=0)
        self._add("lookahead", lookahead, "about 1.5 times the workers")
        self._add("score", ui.select(list(SCORES), label="Score", value=score if score in SCORES else SCORES[0]))

    def _add(self, name: str, field: Any, hint: str | None = None) -> None:
        if hint:
            field.props["hint"] = hint
        self._fields[name] = self._watched(field)

    def _watched(self, field: Any) -> Any:
        field.props("outlined dense debounce=250").classes("w-full")
        field.on_value_change(self._check)
        return field

    def _say_missing(self) -> None:
        wanted = contexts_of(self._old.context) if self._old and self._clone else {}
        if lost := [charts.label(metric) for metric in wanted if metric not in self._latencies.values()]:
            text = f"The study was searched with a device profile that is not here: without {', '.join(lost)}."
            ui.label(text).classes("note-box warn")

    async def show_devices(self) -> None:
        """A latency for each profile that is chosen: to be limited, and as an objective; the last choice decides."""
        self._choices += 1
        mine = self._choices
        chosen = {path: self._profiles[path] for path in self._fields["profiles"].value or []}
        named = {path: f"{LATENCY}_{p.name}" if len(chosen) > 1 else LATENCY for path, p in chosen.items()}
        ranges = {path: await self._latency_range(profile) for path, profile in chosen.items()}
        if mine != self._choices:
            return
        renamed = {metric: named.get(path) for path, metric in self._latencies.items()}
        self._latencies = named
        self._limits.show_latencies(named, ranges)
        objectives = self._fields["objectives"]
        kept = [new for metric in objectives.value or [] if (new := renamed.get(metric, metric))]
        objectives.set_options(_labels([*_OBJECTIVES, *named.values()]), value=kept)
        await self._check()

    def settings(self) -> SearchSettings:
        """Raises FieldError naming the field that makes no sense, which is then marked."""
        for field in (*self._fields.values(), *self._limits):
            field.error = None
        try:
            return self._settings()
        except FieldError as error:
            error.field.error = error.text
            raise

    def _settings(self) -> SearchSettings:
        given = {name: field.value for name, field in self._fields.items()} | {"limits": self._limits.values()}
        given |= {name: whole(self._fields[name]) for name in ("n_trials", "num_workers", "seed", "lookahead")}
        given |= {name: given[name] or [] for name in ("profiles", "objectives")}
        given["num_gpus"] = given["num_gpus"] or None
        try:
            return SearchSettings(**given)
        except ValidationError as error:
            first = error.errors()[0]
            name, reason = str(first["loc"][0]), first["msg"].removeprefix("Value error, ")
            raise (FieldError(self._fields[name], reason) if name in self._fields else ValueError(reason)) from None


def _labels(metrics: list[str]) -> dict[str, str]:
    return {metric: charts.label(metric) for metric in metrics}
