"""Training: losses and accuracies of the largest, smallest and random subnets, live."""

from __future__ import annotations

import contextlib
from typing import Any

from nicegui import ui

from nas.service.pages import charts
from nas.service.pages.charts import Options
from nas.service.pages.devices import devices
from nas.service.pages.layout import (
    ANSWER_SECONDS,
    Tiles,
    call,
    chart,
    chip,
    duration,
    empty,
    frame,
    link,
    missing,
    panel,
)
from nas.service.service import Service
from nas.service.training_view import TrainingView

_REFRESH_SECONDS = 1.0
_DEVICE_SECONDS = 5.0
_TILES = (
    "Progress",
    "Time left",
    "Images/s",
    "Learning rate",
    "Top-1 of the largest",
    "Top-1 of the smallest",
    "Rollbacks",
)
_SUBNETS = (
    ("max", "largest", "var(--series-0)"), ("random", "random", "var(--cloud)"), ("min", "smallest", "var(--series-1)"),
)  # fmt: skip


def register(service: Service) -> None:
    """The page `/training/RUN`."""

    @ui.page("/training/{run_id}", response_timeout=ANSWER_SECONDS)
    async def page(run_id: str) -> None:
        try:
            view = await call(service.library.training, run_id)
        except LookupError as error:
            missing(error)
            return
        with frame(f"Training of {run_id}", "Runs", [("Runs", "/")]):
            with ui.row().classes("items-center gap-4"):
                state = ui.element("div")
                ui.label(f"{view.run.space.name} on {view.run.data.name}").classes("soft")
                ui.link("Space", link("space", run_id))
                ui.link("New search", link("new", run=run_id))
            _live(service, run_id, view, state)
            await _devices()


def _live(service: Service, run_id: str, view: TrainingView, state: ui.element) -> None:
    tiles = Tiles(_TILES)
    notes = ui.element("div").classes("w-full")
    if not view.steps and not view.epochs:
        with panel() as waiting:
            empty("show_chart", "No records yet", "Losses appear with the first steps of the training.")
    else:
        waiting = None
    figures = _figures(view)
    drawn = {}
    with ui.element("div").classes("two"):
        for name, options in figures.items():
            with panel(name):
                drawn[name] = chart(options, name)
    seen: dict[str, Any] = {}

    def draw() -> None:
        mark = (view.generation, len(view.steps), len(view.epochs), len(view.rollbacks))
        status = view.state
        tiles.set(_values(view, status))
        if seen.get("state") != status:
            seen["state"] = status
            state.clear()
            with state:
                chip(status)
        if seen.get("mark") != mark:
            if "mark" in seen:
                for name, options in _figures(view).items():
                    drawn[name].run_chart_method("setOption", {"series": options["series"]})
                if waiting:
                    waiting.set_visibility(False)
            notes.clear()
            with notes:
                for rollback in view.rollbacks[-3:]:
                    reason = rollback.get("reason", rollback.get("rollback"))
                    ui.label(
                        f"Step {rollback['step']}: went back an epoch at half the learning rate. {reason}"
                    ).classes("note-box warn")
            seen["mark"] = mark

    async def refresh() -> None:
        with contextlib.suppress(LookupError):  # the run was taken away: what is on the page stays
            await call(service.library.training, run_id)
            draw()

    draw()
    ui.timer(_REFRESH_SECONDS, refresh, immediate=False)


async def _devices() -> None:
    """Memory and utilisation of the devices of this machine, where the training may run."""
    found = await call(devices)
    if not found:
        return
    with panel("Devices of the service's machine"):
        tiles = [(Tiles((f"{device.name}: memory", "Utilisation")), f"{device.name}: memory") for device in found]

    def draw(now: list[Any]) -> None:
        for (row, memory), device in zip(tiles, now):
            used, total = device.memory_used / 2**30, device.memory_total / 2**30
            row.set({
                memory: (f"{used:.1f} GiB", f"of {total:.1f} GiB"),
                "Utilisation": (f"{device.busy:.0%}", "now"),
            })  # fmt: skip

    async def refresh() -> None:
        draw(await call(devices))

    draw(found)
    ui.timer(_DEVICE_SECONDS, refresh, immediate=False)


def _values(view: TrainingView, status: str) -> dict[str, tuple[str, str]]:
    step, total = view.progress
    last, epoch = (rows[-1] if rows else {} for rows in (view.steps, view.epochs))
    return {
        "Progress": (f"{step / total:.0%}" if total else "–", f"step {step:,} of {total:,}" if total else ""),
        "Time left": (duration(view.seconds_left) if status == "training" else "–", ""),
        "Images/s": (f"{last['images_per_s']:,.0f}" if "images_per_s" in last else "–", "training"),
        "Learning rate": (
            f"{last['lr']:.3g}" if "lr" in last else "–",
            f"epoch {last['epoch']}" if "epoch" in last else "",
        ),
        "Top-1 of the largest": (charts.show("top1", epoch.get("val_top1_max")), "validation"),
        "Top-1 of the smallest": (charts.show("top1", epoch.get("val_top1_min")), "validation"),
        "Rollbacks": (str(len(view.rollbacks)), "none is well" if not view.rollbacks else "see below"),
    }


def _figures(view: TrainingView) -> dict[str, Options]:
    """Loss, accuracy, learning rate and speed, by heading."""
    losses = [_line(view.steps, f"loss_{key}", name, color) for key, name, color in _SUBNETS]
    known = [point[1] for line in losses for point in line["data"]]
    top1 = [_line(view.epochs, f"val_top1_{key}", name, color, "epoch", 100) for key, name, color in _SUBNETS]
    if view.rollbacks and losses[0]["data"]:
        losses[0]["markLine"] = {
            "symbol": "none", "silent": True, "lineStyle": {"color": charts.OVER, "type": "dashed"},
            "data": [
                {"xAxis": r["step"], "label": {"formatter": "rollback", "color": charts.OVER}} for r in view.rollbacks
            ],
        }  # fmt: skip
    diverged = bool(known) and max(known) > 100 * max(min(known), 1e-3)
    return {
        "Training loss": charts.lines("step", "cross entropy", [x for x in losses if x["data"]], log_y=diverged),
        "Validation accuracy": charts.lines("epoch", "top-1 (%)", [x for x in top1 if x["data"]]),
        "Learning rate": charts.lines(
            "step", "learning rate", [_line(view.steps, "lr", "learning rate", "var(--series-2)")]
        ),
        "Speed": charts.lines("step", "images/s", [_line(view.steps, "images_per_s", "images/s", "var(--series-3)")]),
    }


def _line(rows: list[dict[str, Any]], key: str, name: str, color: str, x: str = "step", factor: float = 1) -> Options:
    points = [[row[x], float(f"{factor * row[key]:.5g}")] for row in rows if key in row and x in row]
    step = max(1, -(-len(points) // charts.MOST_POINTS))
    return charts.line(name, [*points[::step], *(points[-1:] if (len(points) - 1) % step else [])], color)
