"""The sheet of one architecture: its picture, its costs, its neighbours, a difference to another, its export."""

from __future__ import annotations

import shlex
from typing import Any

from nicegui import ui

from nas.service import architecture as described
from nas.service import drawing
from nas.service.pages import charts
from nas.service.pages.exporting import export_panel
from nas.service.pages.layout import Tiles, chip, panel, toast
from nas.service.service import Service
from nas.service.study_view import StudyView
from nas.trial import Trial
from search_spaces.network import NetworkSpace


def show(service: Service, run_id: str, view: StudyView, number: int) -> None:
    """Opens the sheet of a trial; an unknown number becomes a toast."""
    with ui.dialog().props("position=right full-height") as dialog:
        sheet = ui.element("div").classes("sheet").props('aria-label="architecture"').mark("sheet")

        def turn_to(other: int) -> None:
            try:
                trial = view.trial(other)
            except IndexError as error:
                toast(error)
                return
            sheet.clear()
            with sheet:
                _sheet(service, run_id, view, trial, turn_to, dialog)

    turn_to(number)
    dialog.on("hide", dialog.delete)
    dialog.open()


def _sheet(service: Service, run_id: str, view: StudyView, trial: Trial, turn_to: Any, dialog: ui.dialog) -> None:
    space = view.run.space
    state = "failed" if trial.state == "failed" else "feasible" if trial.feasible else "over a limit"
    with ui.row().classes("w-full items-center gap-3 no-wrap"):
        ui.label(f"Trial {trial.number}").classes("title")
        chip(state)
        if any(other.number == trial.number for other in view.front):
            chip("finished", "on the front")
        ui.space()
        ui.button(icon="close", on_click=dialog.close).props('flat round dense aria-label="close"')
    if trial.error:
        ui.label(trial.error).classes("note-box bad")
    names = list(trial.metrics)
    tiles = Tiles([charts.label(name) for name in names])
    tiles.set(
        {charts.label(name): (charts.show(name, trial.metrics[name]), _limit_note(trial, name)) for name in names}
    )
    with panel("Architecture", "Height: side of the feature map. Width: channels. Bars: share of the MACs."):
        _picture(space, trial.arch.to_dict())
    _neighbours(view, trial, turn_to)
    _difference(view, trial)
    command = ["nas", "export", str(view.run), "--study-name", view.name, "--trial", str(trial.number)]
    export_panel(service, run_id, view, trial, shlex.join([*command, "-o", f"models/{view.name}-{trial.number}"]))
    with panel("Blocks"):
        _blocks(space, trial.arch.to_dict())


def _limit_note(trial: Trial, name: str) -> str:
    if name not in trial.constraints:
        return ""
    excess = trial.constraints[name]
    return f"{excess:.0%} over its limit" if excess > 0 else f"{-excess:.0%} below its limit"


def _picture(space: NetworkSpace, genes: dict[str, Any], changed: set[int] | None = None) -> None:
    try:
        svg = drawing.picture(space, space.arch_from_dict(genes), changed or ())
    except ValueError as error:
        ui.label(f"It cannot be drawn: {error}").classes("note-box warn")
        return
    with ui.element("div").classes("scroll").props('tabindex=0 aria-label="picture, scrolls sideways"'):
        ui.html(svg, sanitize=False)


def _neighbours(view: StudyView, trial: Trial, turn_to: Any) -> None:
    last = list(view.objectives)[-1]
    found = view.neighbours(trial)
    with panel("Neighbours on the front", f"next by {charts.label(last)}"), ui.row().classes("w-full gap-3"):
        for side, icon in (("lower", "chevron_left"), ("higher", "chevron_right")):
            other = found[side]
            if other is None:
                ui.button(f"none with {side} {charts.label(last)}", icon=icon).props(
                    "outline disable color=grey no-caps"
                )
                continue
            figures = ", ".join(charts.show(name, other.metrics[name]) for name in view.objectives)
            button = ui.button(f"#{other.number}: {figures}", icon=icon).props("outline color=primary no-caps")
            button.on_click(lambda other=other: turn_to(other.number))


def _difference(view: StudyView, trial: Trial) -> None:
    def compare() -> None:
        shown.clear()
        with shown:
            _compared(view, trial, other.value)

    with panel("Difference to another architecture"):
        options = {t.number: f"#{t.number}  " + ", ".join(charts.show(n, t.metrics[n]) for n in view.objectives)
                   for t in view.front if t.number != trial.number}  # fmt: skip
        with ui.row().classes("w-full items-center gap-3"):
            other = ui.number("Trial number", min=0, max=len(view.trials) - 1, precision=0, on_change=compare)
            other.props("outlined dense debounce=300").style("width: 150px")
            if options:
                pick = ui.select(options, label="or one of the front", on_change=lambda e: other.set_value(e.value))
                pick.props("outlined dense options-dense").style("min-width: 240px; flex: 1")
        shown = ui.element("div").classes("w-full").style("display: flex; flex-direction: column; gap: 10px")


def _compared(view: StudyView, trial: Trial, number: float | None) -> None:
    if number is None:
        return
    try:
        other = view.trial(int(number))
        differs = described.difference(view.run.space, trial.arch.to_dict(), other.arch.to_dict())
    except (LookupError, ValueError) as error:
        ui.label(str(error.args[0] if error.args else error)).classes("note-box warn")
        return
    with ui.element("div").classes("pair number"):
        for text in ("", f"#{trial.number}", f"#{other.number}"):
            ui.label(text).classes("head")
        for name in trial.metrics:
            if name in other.metrics:
                for text in (
                    charts.label(name),
                    charts.show(name, trial.metrics[name]),
                    charts.show(name, other.metrics[name]),
                ):
                    ui.label(text)
        for gene, values in differs.items():
            for text in (gene, *(_value(value) for value in values)):
                ui.label(text)
    if not differs:
        ui.label("They are the same architecture.").classes("soft")
    changed = {int(name.rpartition(" ")[2]) - 1 for name in differs if " of block " in name}
    _picture(view.run.space, other.arch.to_dict(), changed)


def _value(value: Any) -> str:
    if value is None:
        return "not there"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _blocks(space: NetworkSpace, genes: dict[str, Any]) -> None:
    try:
        detail = described.describe(space, genes)
    except ValueError as error:
        ui.label(f"It has no blocks: {error}").classes("note-box warn")
        return
    names = ("block", "kind", "channels", "kernel", "pixels", "MACs", "share", "parameters")
    rows = []
    position = 0
    for block in detail["blocks"]:
        position += block["slot"] >= 0
        rows.append({
            "block": position if block["slot"] >= 0 else "head" if "head" in block["kind"] else "stem",
            "kind": block["kind"], "channels": f"{block['in_channels']} → {block['out_channels']}",
            "kernel": f"{block['kernel']}×{block['kernel']}",
            "pixels": f"{block['in_size']} → {block['out_size']}" + (" (pool first)" if block["pool"] else ""),
            "MACs": charts.show("macs", block["macs"]), "share": f"{block['macs'] / detail['macs']:.1%}",
            "parameters": charts.show("params", block["params"]),
        })  # fmt: skip
    columns = [{"name": n, "label": n.capitalize() if n != "MACs" else n, "field": n, "align": "left"} for n in names]
    ui.table(columns=columns, rows=rows, row_key="block").props("flat dense").classes("w-full")
