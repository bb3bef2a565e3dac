"""Runs: every run and study under the root, to find, open and compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from nas.quantities import show_quantity
from nas.service import state
from nas.service.pages import charts
from nas.service.pages.layout import ANSWER_SECONDS, ago, call, chip, chip_look, duration, empty, frame, link, panel
from nas.service.service import Service
from search_spaces.limits import limits_text

_REFRESH_SECONDS = 2.0

_CELLS = {
    "study": """<q-td :props="props"><a class="study-link" :href="props.row.href">{{ props.row.study }}</a>
        <div class="soft small">{{ props.row.run }}</div></q-td>""",
    "state": """<q-td :props="props"><span :class="'chip ' + props.row.state.kind">
        <q-icon :name="props.row.state.icon" aria-hidden="true" />{{ props.row.state.text }}</span></q-td>""",
    "progress": """<q-td :props="props" style="min-width: 110px">{{ props.row.progress }}
        <div class="bar"><div :style="{ width: props.row.share + '%' }"></div></div></q-td>""",
}
_COLUMNS = (
    ("study", "Study", "left"), ("state", "State", "left"), ("progress", "Evaluations", "left"),
    ("best", "Best feasible", "right"), ("limits", "Limits", "left"), ("strategy", "Strategy", "left"),
    ("workers", "Workers", "right"), ("left", "Time left", "right"), ("age", "Changed", "right"),
)  # fmt: skip


def register(service: Service) -> None:
    """The page `/`."""

    @ui.page("/", response_timeout=ANSWER_SECONDS)
    async def page() -> None:
        summaries = await call(state.run_summaries, service.library)
        with frame("Runs", "Runs"):
            if not summaries:
                with panel():
                    empty(
                        "hub", "No runs yet",
                        f"Train a supernet below {service.library.root}: nas train --space digits --data digits -o …",
                    )  # fmt: skip
                return
            await _page(service, summaries)


async def _page(service: Service, summaries: list[dict[str, Any]]) -> None:
    with ui.row().classes("w-full items-center gap-3"):
        words = ui.input(placeholder="Filter by name, space, strategy or state").props(
            'outlined dense clearable debounce=200 aria-label="filter"'
        )
        words.classes("grow").style("max-width: 420px")
        with words.add_slot("prepend"):
            ui.icon("search").props("size=xs aria-hidden=true")
        ui.space()
        comparing = ui.button("Compare", icon="stacked_line_chart").props("unelevated color=primary disable")
    shown: dict[str, Any] = {"runs": summaries, "cards": None}

    with panel("Studies", "Tick two or more to compare them.") as box:
        table = _table(_rows(summaries))
        nothing = ui.element("div").classes("w-full")
        with nothing:
            empty("insights", "No studies", "Start one with “New search”, or clear the filter.")
    box.mark("studies")
    heading = ui.html("<h2 class='heading'>Supernets</h2>", sanitize=False)
    cards = ui.element("div").classes("cards")

    def compare() -> None:
        ui.navigate.to("/compare?" + "&".join(link("", study=row["id"])[2:] for row in table.selected))

    def ticked() -> None:
        comparing.set_enabled(len(table.selected) > 1)
        comparing.text = f"Compare {len(table.selected)}" if table.selected else "Compare"

    def draw() -> None:
        wanted = (words.value or "").lower().split()
        rows = [row for row in _rows(shown["runs"]) if all(word in row["words"] for word in wanted)]
        if rows != table.rows:
            table.update_rows(rows, clear_selection=False)
        table.set_visibility(bool(rows))
        nothing.set_visibility(not rows)
        holding = {row["run"] for row in rows}
        runs = [r for r in shown["runs"] if r["id"] in holding or all(word in _words(r) for word in wanted)]
        heading.set_visibility(bool(runs))
        if runs != shown["cards"]:
            shown["cards"] = runs
            cards.clear()
            with cards:
                for summary in runs:
                    _card(summary)

    async def refresh() -> None:
        shown["runs"] = await call(state.run_summaries, service.library)
        draw()

    comparing.on_click(compare)
    table.on_select(ticked)
    words.on_value_change(draw)
    draw()
    ui.timer(_REFRESH_SECONDS, refresh, immediate=False)


def _table(rows: list[dict[str, Any]]) -> ui.table:
    columns = [
        {"name": name, "label": label, "field": name, "align": align, "sortable": name not in ("state", "limits")}
        for name, label, align in _COLUMNS
    ]
    table = ui.table(columns=columns, rows=rows, row_key="id", selection="multiple", pagination=25)
    table.props("flat hide-selected-banner").classes("w-full")
    for name, template in _CELLS.items():
        table.add_slot(f"body-cell-{name}", template)
    return table


def _rows(summaries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [_row(run, study) for run in summaries for study in run["studies"]]


def _row(run: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    best, first = study["best"], next(iter(study["objectives"]), "top1")
    asked, done, workers = study["n_asked"], study["n_trials"], study["workers"]
    live, exhausted = study["state"] == "searching", study["state"] == "exhausted"
    return {
        "id": f"{run['id']}/{study['study']}",
        "run": run["id"],
        "study": study["study"],
        "href": link("search", run["id"], study["study"]),
        "state": chip_look(study["state"]),
        "progress": f"{done:,}: all there are" if exhausted else f"{done:,} of {asked:,}" if asked else f"{done:,}",
        "share": 100 if exhausted else round(100 * min(1.0, done / asked)) if asked else 0,
        "best": charts.show(first, best["metrics"].get(first)) if best else "–",
        "limits": limits_text(study["limits"]) or "none",
        "strategy": study["strategy"] or "–",
        "workers": str(workers["alive"]) if live and workers["alive"] is not None else "–",
        "left": duration(study["seconds_left"]) if live else "–",
        "age": ago(study["age_seconds"]),
        "words": f"{_words(run)} {study['study']} {study['strategy']} {study['state']}".lower(),
    }


def _words(run: dict[str, Any]) -> str:
    return f"{run['id']} {run['space']} {run['data']} {run['training']['state']}".lower()


def _card(run: dict[str, Any]) -> None:
    training = run["training"]
    with panel():
        with ui.row().classes("w-full items-start justify-between no-wrap gap-2"):
            ui.label(run["id"]).classes("heading").style("overflow-wrap: anywhere")
            chip(training["state"])
        ui.label(
            f"{run['space']} on {run['data']}, {run['classes']} classes: {show_quantity(run['space_size'])} subnets"
        ).classes("soft small")
        if training["state"] == "training" and training["total_steps"]:
            share = training["step"] / training["total_steps"]
            left = f", {duration(training['seconds_left'])} left" if training["seconds_left"] is not None else ""
            ui.label(f"{share:.0%} of {training['total_steps']:,} steps{left}").classes("soft small number")
            ui.html(f"<div class='bar'><div style='width:{share:.0%}'></div></div>", sanitize=False)
        with ui.row().classes("gap-4"):
            ui.link("Training", link("training", run["id"]))
            ui.link("Space", link("space", run["id"]))
            if training["step"]:
                ui.link("New search", link("new", run=run["id"]))
