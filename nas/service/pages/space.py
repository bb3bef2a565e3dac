"""Space: what a space holds, how large it is, what its members cost, and where studies have looked."""

from __future__ import annotations

from typing import Any

import numpy as np
from nicegui import ui

from nas.quantities import show_quantity
from nas.service import drawing, reach
from nas.service.pages import charts
from nas.service.pages.charts import Options
from nas.service.pages.layout import ANSWER_SECONDS, Tiles, call, chart, empty, frame, link, missing, panel
from nas.service.service import Service
from search_spaces.network import NetworkSpace

_BINS = 36


def register(service: Service) -> None:
    """The page `/space/RUN`."""

    @ui.page("/space/{run_id}", response_timeout=ANSWER_SECONDS)
    async def page(run_id: str) -> None:
        try:
            run = await call(service.library.run, run_id)
        except LookupError as error:
            missing(error)
            return
        summary = await call(reach.space_summary, run)
        looked = await call(_looked, service, run_id)
        with frame(f"Space {run.space.name}", "Runs", [("Runs", "/"), (run_id, link("training", run_id))]):
            _page(run.space, summary, looked)


def _page(space: NetworkSpace, summary: dict[str, Any], looked: list[float]) -> None:
    ranges = summary["range"]
    tiles = Tiles(("Architectures", "MACs", "Parameters", "Image", "Blocks"))
    tiles.set({
        "Architectures": (show_quantity(summary["size"]), "different networks"),
        "MACs": (_range("macs", ranges), "for one image"),
        "Parameters": (_range("params", ranges), "of the exported network"),
        "Image": (f"{space.image_size} px", f"{space.in_channels} channels, {space.num_classes} classes"),
        "Blocks": (f"{sum(s.depths[0] for s in space.stages)} to {space.num_slots}", f"in {len(space.stages)} stages"),
    })  # fmt: skip
    with panel("MACs of its members", f"{len(summary['sample']['macs']):,} architectures drawn at random, and where "
               "studies of this run have looked"):  # fmt: skip
        chart(distribution(summary["sample"]["macs"], looked), "distribution of MACs")
        if not looked:
            ui.label("No study of this run has evaluated anything yet.").classes("soft small")
    with panel("What can be chosen"):
        _choices(space)
    with ui.element("div").classes("two"):
        for name, arch in (("Smallest", space.smallest()), ("Largest", space.largest())):
            with panel(f"{name} member"), ui.element("div").classes("scroll").props('tabindex=0 aria-label="picture"'):
                ui.html(drawing.picture(space, arch), sanitize=False)


def _range(metric: str, ranges: dict[str, list[float]]) -> str:
    return " – ".join(charts.show(metric, value) for value in ranges[metric])


def _choices(space: NetworkSpace) -> None:
    if not space.stages:
        empty("tune", "Nothing to choose", "The space has one architecture.")
    columns = ("Stage", "Depth", "Width", "Kernel", "Expand", "Block")
    rows = [
        {
            "Stage": str(i + 1), "Depth": _list(stage.depths), "Width": _list(stage.widths),
            "Kernel": _list(stage.kernels), "Expand": _list(stage.expands) or "–",
            "Block": stage.block + (f", stride {stage.stride}" if stage.stride > 1 else ""),
        }
        for i, stage in enumerate(space.stages)
    ]  # fmt: skip
    ui.table(columns=[{"name": c, "label": c, "field": c, "align": "left"} for c in columns], rows=rows).props(
        "flat"
    ).classes("w-full")
    pools = (
        f"{space.num_pools} max-pool(s) may stand before any of the blocks in use."
        if space.num_pools
        else "It does not move its pooling."
    )
    sizes = f" Image sizes: {_list(space.resolution_choices)} pixels." if len(space.resolution_choices) > 1 else ""
    ui.label(pools + sizes).classes("soft")


def _list(values: Any) -> str:
    return ", ".join(f"{value:g}" for value in values)


def distribution(sample: list[float], looked: list[float]) -> Options:
    """Shares of a random sample and of what was evaluated over MACs, in equal steps of the logarithm."""
    low, high = min([*sample, *looked]), max([*sample, *looked])
    edges = np.geomspace(low, max(high, low * 1.01), _BINS + 1)
    unit = charts.Unit("macs", high)
    options = charts.base(unit.label, "share (%)", from_zero=True)
    options["xAxis"] |= {"type": "category", "data": [f"{unit(float(v)):.3g}" for v in np.sqrt(edges[1:] * edges[:-1])]}
    options["tooltip"] |= {"trigger": "axis", "axisPointer": {"type": "shadow"}}
    for name, values, color in (
        ("random members", sample, charts.CLOUD),
        ("evaluated by studies", looked, charts.FRONT),
    ):
        if values:
            counts = charts.histogram(np.log(values).tolist(), float(np.log(edges[0])), float(np.log(edges[-1])), _BINS)
            shares = [round(100 * n / len(values), 2) for n in counts]
            options["series"].append({
                "name": name, "type": "bar", "data": shares, "barGap": "-100%", "barCategoryGap": "12%",
                "itemStyle": {"color": color, "opacity": 0.62, "borderRadius": [2, 2, 0, 0]},
            })  # fmt: skip
    return options


def _looked(service: Service, run_id: str) -> list[float]:
    views = service.library.studies(run_id)
    return [t.metrics["macs"] for view in views for t in view.trials if t.metrics.get("macs", 0) > 0]
