"""Search: a study, live: its front, its progress, its trials, its workers."""

from __future__ import annotations

from typing import Any

from nicegui import events, ui

from nas.service.looks import Look
from nas.service.pages import architecture, charts
from nas.service.pages.controls import Controls
from nas.service.pages.front import FrontChart
from nas.service.pages.front_steps import FrontSteps
from nas.service.pages.layout import ANSWER_SECONDS, Tiles, chart, duration, empty, frame, link, missing, panel
from nas.service.pages.trials import TrialsTable
from nas.service.service import Service
from nas.service.study_view import StudyView
from search_spaces.limits import limits_text

_REFRESH_SECONDS = 1.0
_DRAWING_SECONDS = 20.0  # after which a browser is asked once more whether it has drawn
_TILES = ("Evaluations", "Best feasible", "Front", "Hypervolume", "Workers", "Speed", "Time left")


def register(service: Service) -> None:
    """The page `/search/RUN/STUDY`; `?trial=N` opens an architecture."""

    @ui.page("/search/{run_id}/{study}", response_timeout=ANSWER_SECONDS)
    async def page(run_id: str, study: str, trial: int | None = None) -> None:
        look = service.looks.of(run_id, study)
        try:
            view = await look.refresh()
        except LookupError as error:
            missing(error)
            return
        with frame(study, "Runs", [("Runs", "/"), (run_id, link("training", run_id))]):
            _SearchPage(service, run_id, look, view).build(trial)


class _SearchPage:
    """What one browser shows of a study. `_draw` brings it up to date and sends differences.

    What is the same for all browsers comes from `look`, which reads and computes it once for them.
    """

    def __init__(self, service: Service, run_id: str, look: Look, view: StudyView) -> None:
        self._service, self._run_id, self._look, self._view = service, run_id, look, view
        self._generation, self._drawn = view.generation, -1
        self._now: tuple[str, int] | None = None
        self._worker_rows: list[dict[str, Any]] = []

    def build(self, trial: int | None) -> None:
        """All elements; then a timer."""
        self._controls = Controls(self._service, self._run_id, self._view)
        self._settings()
        self._tiles = Tiles(_TILES)
        with panel() as self._waiting:
            empty(
                "scatter_plot",
                "No evaluations yet",
                "The first points appear a few seconds after the search has begun.",
            )
        with ui.element("div").classes("w-full").style("display: contents") as self._charts:
            with panel() as self._front_box:
                self._front_panel()
            with ui.element("div").classes("two"):
                with panel("Hypervolume", "share of the box between the worst allowed values and the ideal"):
                    self._volume = chart(self._volume_options(), "hypervolume over evaluations")
                with panel("Best so far", "the first objective, among feasible trials"):
                    self._best = chart(self._best_options(), "best value over evaluations")
            with panel("Trials", "Choose a number to see the architecture."):
                self._table = TrialsTable(self._view, self._open)
            with panel("Workers"):
                self._workers = _workers_table()
        self._draw()
        ui.timer(_REFRESH_SECONDS, self._refresh, immediate=False)
        if trial is not None:
            ui.timer(0.1, lambda: self._open(trial), once=True)

    def _settings(self) -> None:
        identity = self._view.identity
        with ui.row().classes("items-center gap-x-5 gap-y-1 soft small"):
            if identity:
                limits = limits_text(self._view.limits)
                ui.label(f"{identity.strategy}, seed {identity.seed}, lookahead {identity.lookahead}")
                ui.label(" and ".join(f"{way} {name}" for name, way in self._view.objectives.items()))
                ui.label(limits or "no limits")
                ui.label(f"{identity.context.get('score', 'inherited')} scores")
            ui.link("Space", link("space", self._run_id))

    def _front_panel(self) -> None:
        metrics = self._view.metrics or ["top1", "macs"]
        objectives = list(self._view.objectives) or metrics
        default_x = next(
            (m for m in [*objectives[1:], "macs", *metrics] if m in metrics and m != objectives[0]), objectives[0]
        )
        with ui.row().classes("w-full items-center gap-3"):
            ui.html("<h2 class='heading'>Pareto front</h2>", sanitize=False)
            ui.space()
            names = {metric: charts.label(metric) for metric in metrics}
            self._y = ui.select(names, value=objectives[0], label="vertical", on_change=self._replot)
            self._x = ui.select(names, value=default_x, label="horizontal", on_change=self._replot)
            for select in (self._y, self._x):
                select.props("outlined dense options-dense").style("min-width: 150px")
        self._front = self._new_front()
        self._front_chart = chart(
            self._front.options(), "trials and Pareto front", tall=True, on_point_click=self._clicked
        )
        self._steps = FrontSteps(self._front_chart, self._front, self._open)
        self._legend = ui.label().classes("soft small number")

    def _new_front(self) -> FrontChart:
        view = self._view
        return FrontChart(self._x.value, self._y.value, view.objectives, view.limits, view.trials)

    def _replot(self) -> None:
        self._front = self._new_front()
        self._front_chart.options.clear()
        self._front_chart.options.update(self._front.options())
        self._front_chart.update()
        self._steps.show(self._front)

    def _volume_options(self) -> charts.Options:
        points = charts.thinned(self._view.hypervolumes)
        return charts.lines(
            "evaluations", "hypervolume", [charts.line("hypervolume", points, charts.FRONT, step="end")]
        )

    def _best_options(self) -> charts.Options:
        first = next(iter(self._view.objectives), "top1")
        unit = charts.Unit(first, max((v for v in self._view.best_so_far[-1:] if v is not None), default=0.0))
        points = [[n, unit(v)] for n, v in charts.thinned(self._view.best_so_far)]
        return charts.lines("evaluations", unit.label, [charts.line("best", points, "var(--series-2)", step="end")])

    async def _refresh(self) -> None:
        try:
            view = await self._look.refresh()
            if self._look.summary["n_trials"] != self._drawn:
                # The answer comes once the charts are there and what was told before is drawn: a slow browser is told
                # less often, and never more than it can draw.
                await self._front_chart.run_chart_method("getWidth", timeout=_DRAWING_SECONDS)
                view = await self._look.refresh()
        except (LookupError, TimeoutError):  # the study's file was taken away, and the page stays; or it draws still
            return
        if self._front_chart.is_deleted:
            return
        if view is not self._view or view.generation != self._generation:
            ui.navigate.reload()
            return
        self._draw()

    def _draw(self) -> None:
        summary = self._look.summary
        number = summary["n_trials"]
        now = (summary["state"], number)
        if now == self._now and now[0] != "searching":
            return
        if self._drawn == 0 and number:  # what to plot is known from the first trial on
            ui.navigate.reload()  # and nothing is shown before: who has seen the state may leave the page
            return
        self._now = now
        self._tiles.set(_values(summary))
        self._controls.show(summary["state"])
        self._waiting.set_visibility(not number)
        self._charts.set_visibility(bool(number))
        self._show_workers(summary["workers"])
        if number == self._drawn:
            return
        if self._drawn > 0:
            if series := self._front.add(self._view.trials):
                self._front_chart.run_chart_method("setOption", {"series": series})
                self._steps.show(self._front)
            for element, make in ((self._volume, self._volume_options), (self._best, self._best_options)):
                options = self._look.once(make.__name__, make)
                element.run_chart_method("setOption", {"series": options["series"]})
        self._table.refresh()
        over, failed = summary["n_infeasible"], summary["n_failed"]
        self._legend.text = (
            f"{number:,} evaluated: {number - over - failed:,} feasible, {over:,} over a limit, {failed:,} failed"
        )
        self._drawn = number

    def _show_workers(self, workers: dict[str, Any]) -> None:
        rows = [
            {
                "worker": row["worker"],
                "trials": row["trials"],
                "seconds": f"{row['seconds'] / max(1, row['trials']):.2f} s",
            }
            for row in workers["by_worker"][:50]
        ]
        if rows != self._worker_rows:
            self._worker_rows = rows
            self._workers.update_rows(rows)

    def _clicked(self, event: events.EChartPointClickEventArguments) -> None:
        if isinstance(event.data, list) and len(event.data) == 3:
            self._open(int(event.data[2]))

    def _open(self, number: int) -> None:
        with self._front_box:
            architecture.show(self._service, self._run_id, self._view, number)


def _workers_table() -> ui.table:
    columns = (("worker", "Worker", "left"), ("trials", "Trials", "right"), ("seconds", "Mean evaluation", "right"))
    named = [{"name": name, "label": label, "field": name, "align": align} for name, label, align in columns]
    table = ui.table(columns=named, rows=[], row_key="worker", pagination=10)
    return table.props("flat dense").classes("w-full")


def _values(summary: dict[str, Any]) -> dict[str, tuple[str, str]]:
    first = next(iter(summary["objectives"]), "top1")
    best, workers, asked = summary["best"], summary["workers"], summary["n_asked"]
    live, speed = summary["state"] == "searching", summary["trials_per_second"]
    alive = workers["alive"] is not None
    cost = next((name for name in ("macs", "params") if best and name in best["metrics"]), None)
    return {
        "Evaluations": (
            f"{summary['n_trials']:,}",
            "all there are" if summary["state"] == "exhausted" else f"of {asked:,}" if asked else "",
        ),
        "Best feasible": (
            charts.show(first, best["metrics"].get(first)) if best else "–",
            f"#{best['number']}, {charts.show(cost, best['metrics'][cost])} {charts.label(cost)}"
            if best and cost else "",
        ),
        "Front": (str(summary["front"]), "undominated trials"),
        "Hypervolume": ("–" if summary["hypervolume"] is None else f"{summary['hypervolume']:.4f}", "1 is the ideal"),
        "Workers": (
            str(workers["alive"]) if alive else "–",
            f"{workers['busy']} busy, {workers['restarted']} restarted" if alive
            else "" if live else "no driver runs",
        ),
        "Speed": (_rate(speed), "evaluations" if live else "when it ran"),
        "Time left": (duration(summary["seconds_left"]) if live else "–", ""),
    }  # fmt: skip


def _rate(speed: float | None) -> str:
    if not speed:
        return "–"
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s"
