"""Compare: studies overlaid, and strategies at equal evaluations."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import Query
from nicegui import ui

from nas import compare as comparing
from nas import pareto
from nas.service import theme
from nas.service.pages import charts
from nas.service.pages.charts import Options, Unit
from nas.service.pages.layout import ANSWER_SECONDS, call, chart, empty, frame, link, missing, panel
from nas.service.service import Service
from nas.service.state import study_names
from nas.service.study_view import StudyView
from nas.store import StoredStudy
from nas.studies import NamedStudy, group_studies
from search_spaces.limits import limits_text

_MOST = 12  # studies in one picture
_SYMBOLS = ("circle", "rect", "diamond", "triangle", "roundRect", "pin", "arrow")


def register(service: Service) -> None:
    """The page `/compare?study=RUN/STUDY&study=…`."""

    @ui.page("/compare", response_timeout=ANSWER_SECONDS)
    async def page(study: Annotated[list[str] | None, Query()] = None) -> None:
        names = list(dict.fromkeys(study or []))[:_MOST]
        try:
            views = {name: await call(service.library.study, *name.rpartition("/")[::2]) for name in names}
        except LookupError as error:
            missing(error)
            return
        known = await call(_names, service)
        with frame("Compare", "Compare", [("Runs", "/")]):
            with panel():
                _choose(known, names)
            if views:
                await _page(views)
            else:
                with panel():
                    empty(
                        "stacked_line_chart",
                        "Nothing chosen yet",
                        "Choose two or more studies above, or tick them under Runs.",
                    )


def _names(service: Service) -> list[str]:
    return [f"{run_id}/{name}" for run_id, run in service.library.runs().items() for name in study_names(run)]


def _choose(known: list[str], chosen: list[str]) -> None:
    def go() -> None:
        ui.navigate.to("/compare?" + "&".join(link("", study=name)[2:] for name in select.value or []))

    with ui.row().classes("w-full items-center gap-3 no-wrap"):
        select = ui.select(known, value=chosen, multiple=True, label="Studies", with_input=True)
        select.props("outlined dense use-chips").classes("grow").style("min-width: 0")
        ui.button("Compare", on_click=go).props("unelevated color=primary")


async def _page(views: dict[str, StudyView]) -> None:
    objectives = next(iter(views.values())).objectives
    names = list(objectives)
    with panel("Fronts", "Feasible, undominated trials of each study"):
        if len(names) > 1:
            chart(overlay(views, names[1], names[0]), "fronts of the studies", tall=True)
        else:
            empty(
                "scatter_plot",
                "One objective",
                "A front needs two objectives; the curves below tell the studies apart.",
            )
    try:
        compared = await call(_compared, views)
    except ValueError as error:
        with panel("At equal evaluations"):
            ui.label(f"These studies have no common measure: {error}").classes("note-box warn")
    else:
        with ui.element("div").classes("two"):
            for measure in compared.measures:
                first = measure != "hypervolume"
                heading = f"Best feasible {charts.label(compared.first)}" if first else "Hypervolume"
                with panel(heading, "median over seeds, at equal evaluations"):
                    chart(curves(compared, measure), heading)
    with panel("Studies"):
        _table(views)


def _table(views: dict[str, StudyView]) -> None:
    columns = ["study", "strategy", "seed", "evaluations", "best", "front", "hypervolume", "limits"]
    rows = []
    for name, view in views.items():
        identity = view.identity
        first = next(iter(view.objectives), "top1")
        rows.append({
            "study": name, "strategy": identity.strategy if identity else "–",
            "seed": identity.seed if identity else "–",
            "evaluations": f"{len(view.trials):,}",
            "best": charts.show(first, view.best.metrics[first]) if view.best else "–", "front": len(view.front),
            "hypervolume": f"{view.hypervolumes[-1]:.4f}" if view.hypervolumes else "–",
            "limits": limits_text(view.limits) or "none",
            "href": link("search", *name.rpartition("/")[::2]),
        })  # fmt: skip
    described = [{"name": c, "label": c.capitalize(), "field": c, "align": "left", "sortable": True} for c in columns]
    table = ui.table(columns=described, rows=rows, row_key="study").props("flat").classes("w-full")
    table.add_slot(
        "body-cell-study",
        '<q-td :props="props"><a class="study-link" :href="props.row.href">{{ props.value }}</a></q-td>',
    )


def overlay(views: dict[str, StudyView], x: str, y: str) -> Options:
    """The front of each study in the plane of two metrics."""
    fronts = {}
    for name, view in views.items():
        directions = {metric: charts.better(metric, view.objectives) for metric in (y, x)}
        fronts[name] = pareto.front([t for t in view.trials if {x, y} <= t.metrics.keys()], directions)
    everything = [trial for front in fronts.values() for trial in front]
    across, up = (Unit(metric, charts.costliest_first(everything, metric)) for metric in (x, y))
    options = charts.base(across.label, up.label)
    options["tooltip"] |= {"trigger": "item"}
    for i, (name, front) in enumerate(fronts.items()):
        color = theme.SERIES[i % len(theme.SERIES)]
        points = sorted([across(t.metrics[x]), up(t.metrics[y]), t.number] for t in front)
        options["series"].append(
            charts.line(name, points, color, showSymbol=True, symbol=_SYMBOLS[i % len(_SYMBOLS)], symbolSize=8)
        )
    return options


def curves(compared: comparing.Comparison, measure: str) -> Options:
    """The median of each group over evaluations, on a logarithmic axis."""
    first = measure != "hypervolume"
    unit = Unit(compared.first) if first else None
    series = []
    for i, name in enumerate(compared.groups):
        spread = compared.spread(name, measure)
        color = theme.SERIES[i % len(theme.SERIES)]
        series.append(charts.line(name, _points(compared.evaluations, spread.median, unit), color))
        for side, edge in (("low", spread.low), ("high", spread.high)):
            if edge is not None:
                points = _points(compared.evaluations, edge, unit)
                thin = {"width": 1, "color": color, "type": "dashed", "opacity": 0.6}
                series.append(charts.line(name, points, color, id=f"{name} {side}", lineStyle=thin, showSymbol=False))
    options = charts.lines("evaluations", unit.label if unit else "share of the box", series)
    options["xAxis"] |= {"type": "log"}
    return options


def _points(at: Any, values: Any, unit: Unit | None) -> list[list[float]]:
    return [[int(n), unit(float(v)) if unit else float(f"{v:.6g}")] for n, v in zip(at, values) if not math.isnan(v)]


def _compared(views: dict[str, StudyView]) -> comparing.Comparison:
    named = []
    for name, view in views.items():
        if view.identity is None:
            raise ValueError(f"{name} has no trials yet")
        named.append(NamedStudy(name, StoredStudy(view.identity, view.run.space, list(view.trials), view.n_asked)))
    return comparing.compare(group_studies(named), next(iter(views.values())).objectives)
