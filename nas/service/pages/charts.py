"""Options of the charts: pure functions from a study's or a training's data to what Apache ECharts draws.

Every list of points is bounded, whatever the study's size: `thinned` keeps a line's shape, `Cloud` keeps one point of
those that would hide one another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nas.quantities import LATENCY, show_quantity
from nas.trial import Trial
from search_spaces.limits import Limit, bounds

Options = dict[str, Any]
Point = list[float]

TEXT, MUTED, LINE = "var(--text)", "var(--muted)", "var(--line)"
FRONT, OVER, CLOUD = "var(--front)", "var(--over)", "var(--cloud)"
FONT = "Inter, ui-sans-serif, system-ui, sans-serif"  # named, for what is measured with it has to fit
MOST_POINTS = 240  # of a line

_LABELS = {
    "top1": "top-1 accuracy", "macs": "MACs", "params": "parameters", "peak_memory": "activation memory",
    "weight_bytes": "weights", "seconds": "evaluation", "top1_std": "top-1 deviation",
    "top1_inherited": "inherited top-1",
}  # fmt: skip
_BYTES = ("peak_memory", "weight_bytes")
_SHARES = ("top1", "top1_std", "top1_inherited")


class Unit:
    """How a metric is written on an axis: its values times `factor`, under `label`. largest: of the values shown."""

    def __init__(self, metric: str, largest: float = 0.0) -> None:
        self.metric, self.name = metric, label(metric)
        prefix = ""
        if metric in _SHARES:
            self.factor, prefix = 100.0, "%"
        elif metric.startswith(LATENCY):
            self.factor, prefix = 1.0, "ms"
        else:
            power = next((p for p in (9, 6, 3) if abs(largest) >= 10**p), 0)
            self.factor = 10.0**-power
            prefix = {9: "G", 6: "M", 3: "k", 0: ""}[power] + ("B" if metric in _BYTES else "")
        self.label = f"{self.name} ({prefix})" if prefix else self.name

    def __call__(self, value: float) -> float:
        """The value on the axis, to five digits that count."""
        return float(f"{value * self.factor:.5g}")


def label(metric: str) -> str:
    """A metric's name for people."""
    if metric.startswith(LATENCY):
        device = metric.removeprefix(LATENCY).removeprefix("_")
        return f"latency on {device}" if device else "latency"
    return _LABELS.get(metric, metric)


def show(metric: str, value: float | None) -> str:
    """A metric's value with its unit; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if metric in _SHARES:
        return f"{value:.2%}"
    if metric.startswith(LATENCY):
        return f"{value:.3g} ms"
    return show_quantity(value) + ("B" if metric in _BYTES else "")


def better(metric: str, objectives: Mapping[str, str]) -> str:
    """The direction of a metric: the study's own where it is an objective, else up for accuracies, down for costs."""
    return objectives.get(metric, "maximize" if metric in _SHARES else "minimize")


def thinned(values: Sequence[float | None], most: int = MOST_POINTS) -> list[list[float]]:
    """`[position from 1, value]` of at most `most` values, the first and the last known among them."""
    known = [i for i, value in enumerate(values) if value is not None]
    step = max(1, math.ceil(len(known) / (most - 1)))
    kept = dict.fromkeys([*known[::step], *known[-1:]])
    return [[i + 1, float(f"{values[i]:.6g}")] for i in kept]


def base(x: str, y: str, *, log_y: bool = False, from_zero: bool = False) -> Options:
    """Axes, grid and tooltip that all charts share; series are to be added."""
    axis = {
        "axisLine": {"lineStyle": {"color": LINE}}, "axisTick": {"show": False},
        "axisLabel": {"color": MUTED, "fontSize": 12, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": LINE, "opacity": 0.6}},
        "nameTextStyle": {"color": MUTED, "fontSize": 12}, "scale": not from_zero,
    }  # fmt: skip
    return {
        "animation": False,
        "textStyle": {"fontFamily": FONT, "color": TEXT},
        "grid": {"left": 12, "right": 22, "top": 58, "bottom": 30, "containLabel": True},
        "legend": {
            "top": 0, "right": 6, "icon": "circle", "itemWidth": 10, "itemHeight": 10, "itemGap": 14, "type": "scroll",
            "textStyle": {"color": TEXT, "fontSize": 12}, "inactiveColor": LINE,
        },
        "tooltip": {
            "confine": True, "backgroundColor": "var(--surface)", "borderColor": LINE,
            "textStyle": {"color": TEXT, "fontSize": 12},
        },
        "xAxis": axis | {
            "type": "value", "name": x, "nameLocation": "middle", "nameGap": 28,
            "splitLine": {"show": False},
        },
        "yAxis": axis | {
            "type": "log" if log_y else "value", "name": y, "nameLocation": "end", "nameGap": 18,
            "nameTextStyle": {"color": MUTED, "fontSize": 12, "align": "left", "padding": [0, 0, 0, -24]},
        },
        "series": [],
    }  # fmt: skip


def line(name: str, points: Sequence[Point], color: str, **more: Any) -> Options:
    """A line of a chart of lines."""
    return {
        "id": name, "name": name, "type": "line", "data": list(points), "showSymbol": len(points) < 25, "symbolSize": 5,
        "lineStyle": {"width": 2, "color": color}, "itemStyle": {"color": color}, **more,
    }  # fmt: skip


def lines(x: str, y: str, series: Sequence[Options], **more: Any) -> Options:
    """A chart of lines with a tooltip over all of them."""
    options = base(x, y, **more)
    options["series"] = list(series)
    options["legend"]["show"] = len({one["name"] for one in series}) > 1
    options["tooltip"] |= {"trigger": "axis", "axisPointer": {"lineStyle": {"color": MUTED}}}
    return options


def scatter(name: str, points: Sequence[Point], color: str, dimensions: Sequence[str], **more: Any) -> Options:
    """Points `[x, y, trial]`; the tooltip names all three."""
    return {
        "id": name, "name": name, "type": "scatter", "data": list(points), "symbolSize": 7, "cursor": "pointer",
        "dimensions": [*dimensions, "trial"], "encode": {"x": 0, "y": 1, "tooltip": [2, 0, 1]},
        "itemStyle": {"color": color}, "emphasis": {"disabled": True}, **more,
    }  # fmt: skip


def limit_lines(limits: Mapping[str, Limit], x: Unit, y: Unit) -> list[Options]:
    """The limits on the two metrics as items of an ECharts `markLine`."""
    marks: list[Options] = []
    for unit, axis in ((x, "xAxis"), (y, "yAxis")):
        if unit.metric in limits:
            for value in filter(math.isfinite, bounds(limits[unit.metric])):
                text = f"limit {show(unit.metric, value)}"
                place = "insideEndTop" if axis == "yAxis" else "end"
                marks.append({axis: unit(value), "label": {"formatter": text, "position": place, "color": OVER}})
    return marks


def costliest_first(trials: Sequence[Trial], x: str) -> float:
    """The largest finite value of a metric among complete trials; 0 for none."""
    return max((abs(t.metrics[x]) for t in trials if x in t.metrics and t.state == "complete"), default=0.0)


def histogram(values: Sequence[float], low: float, high: float, bins: int = 40) -> list[int]:
    """Counts in `bins` equal parts from `low` to `high`; what lies outside is counted at the ends."""
    counts = [0] * bins
    span = (high - low) or 1.0
    for value in values:
        counts[min(bins - 1, max(0, int((value - low) / span * bins)))] += 1
    return counts
