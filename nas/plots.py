"""Pictures: the Pareto front of a study, the curves of a training run. Colours from the Okabe-Ito palette."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter

from nas.compare import INTERVAL as SEED_INTERVAL
from nas.quantities import show_metric, show_quantity
from nas.summary import INTERVAL
from nas.trust_report import compared
from search_spaces.limits import bounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nas.compare import Comparison
    from nas.profiles import Profile
    from nas.study import Study
    from nas.trial import Trial

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#9A9A9A"
_COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "black")
_STYLES = ("-", "--", "-.", ":")
_LABELS = {
    "top1": "search-validation top-1",
    "macs": "MACs for one image",
    "params": "parameters",
    "latency_ms": "milliseconds, the margin included",
    "peak_memory": "bytes of activations at once",
    "weight_bytes": "bytes of weights",
}


def save_front(study: Study, path: Path, title: str = "") -> None:
    """Draws every trial, the feasible front and the limits, in the plane of the first two objectives.

    A study of one objective is drawn against MACs where it has them, else against the trial number.
    """
    y, x = _axes_of(study)
    figure, axes = _figure()
    done = [t for t in study.trials if t.state == "complete"]
    front = sorted(study.front(), key=lambda t: _value(t, x))
    for name, trials, color, marker in (
        ("evaluated", [t for t in done if t.feasible and t not in front], GREY, "o"),
        ("over a limit", [t for t in done if not t.feasible], ORANGE, "x"),
    ):
        if trials:
            points = [_value(t, x) for t in trials], [_value(t, y) for t in trials]
            axes.scatter(*points, s=20, color=color, marker=marker, label=name)
    axes.plot(
        [_value(t, x) for t in front], [_value(t, y) for t in front], "-o", color=BLUE, lw=2, ms=6, label="Pareto front"
    )
    if "top1" in (x, y) and any("top1_std" in t.metrics for t in front):
        bars = [INTERVAL * t.metrics["top1_std"] for t in front]
        up, across = (bars, None) if y == "top1" else (None, bars)
        where = [_value(t, x) for t in front], [_value(t, y) for t in front]
        axes.errorbar(*where, up, across, fmt="none", ecolor=BLUE, alpha=0.5, label="95 % of the calibration")
    for metric, line in ((x, axes.axvline), (y, axes.axhline)):
        if metric in study.limits:
            for limit in filter(math.isfinite, bounds(study.limits[metric])):
                line(limit, color=ORANGE, ls="--", lw=1.5, label=f"limit {show_quantity(limit)}")
    _format(axes, x, "x")
    _format(axes, y, "y")
    if any("top1_std" in t.metrics for t in front):
        for metric, label in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
            if metric == "top1":
                label("calibrated top-1")
    axes.set_title(title, loc="left", fontsize=12, parse_math=False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)


def save_training(metrics: Path, path: Path, title: str) -> None:
    """Draws the losses of a run's subnets over its steps, and the validation top-1 of the largest and smallest."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, name, color in (
        ("loss_max", "largest", BLUE),
        ("loss_random", "random", GREY),
        ("loss_min", "smallest", ORANGE),
    ):
        if points := [(r["step"], r[key]) for r in records if key in r]:  # a step plan need not train all three
            left.plot(*zip(*points), ".-" if len(points) < 20 else "-", color=color, lw=1.2, label=name)
    for step in [r["step"] for r in records if "rollback" in r]:
        left.axvline(step, color="black", ls=":", lw=1, label="rollback")
    for key, name, color in (("val_top1_max", "largest", BLUE), ("val_top1_min", "smallest", ORANGE)):
        points = [(r["epoch"], r[key]) for r in records if key in r]
        right.plot(*zip(*points), "-o", color=color, ms=3, label=name)
    left.set(xlabel="step", ylabel="training loss")
    losses = [value for r in records for key, value in r.items() if key.startswith("loss_")]
    if losses and max(losses) > 100 * max(min(losses), 1e-3):
        left.set_yscale("log")  # a run that diverged
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(xlabel="epoch", ylabel="validation top-1")
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    left.set_title(title, loc="left", fontsize=12, parse_math=False)
    for axes in (left, right):
        _clean(axes)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def save_trust(report: Mapping[str, Any], path: Path, title: str) -> None:
    """Draws stand-alone against inherited accuracy, coloured by MACs, with the report's figures in the title."""
    figure, axes = _figure()
    inherited, standalone, macs = ([row[n] for row in report["archs"]] for n in ("inherited", "standalone", "macs"))
    dots = axes.scatter(inherited, standalone, c=macs, cmap="viridis", norm="log", s=60, edgecolor="black", lw=0.5)
    bar = figure.colorbar(dots, ax=axes, label=_LABELS["macs"])
    bar.locator = LogLocator(subs=(1, 2, 5))
    bar.formatter = FuncFormatter(lambda value, _: show_quantity(value))
    bar.minorticks_off()
    axes.set(xlabel="inherited top-1 (shared weights)", ylabel="stand-alone top-1 (trained alone)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    names = {"kendall": "Kendall", "spearman": "Spearman", "null_kendall": "MACs alone: Kendall"}
    ceiling = report["noise_ceiling"]["kendall"]
    trained = f"each trained alone for {report['epochs']} epoch{'s' * (report['epochs'] != 1)}"
    best = "" if ceiling is None else f"; noise ceiling: Kendall {ceiling:.2f}"
    lines = (title, ", ".join(_correlation(name, report[key]) for key, name in names.items()),
             f"{compared(report)}, {trained}{best}")  # fmt: skip
    axes.set_title("\n".join(lines), loc="left", fontsize=10, parse_math=False)
    figure.savefig(path, dpi=150)


def save_comparison(comparison: Comparison, path: Path) -> None:
    """Draws each group's median over its seeds against evaluations, with the quartiles as a band.

    The axis is logarithmic and begins at the first checkpoint: what comes before would flatten all the rest.
    """
    figure = Figure(figsize=(5.2 * len(comparison.measures), 4.0), layout="constrained")
    panels = figure.subplots(1, len(comparison.measures), squeeze=False)[0]
    for axes, measure in zip(panels, comparison.measures, strict=True):
        _clean(axes)
        for (label, curves), color, style in zip(comparison.groups.items(), cycle(_COLORS), cycle(_STYLES)):
            _draw_spread(axes, comparison, label, measure, color, style, f"{label} (n={len(curves.best)})")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
        axes.set_xlabel("evaluations, failed and infeasible ones included")
    _format(panels[0], comparison.first, "y")
    if comparison.first == "top1":  # equal values alone would open the axis far beyond
        low, high = panels[0].get_ylim()
        panels[0].set_ylim(max(low, 0.0), min(high, 1.005))
    panels[0].set_ylabel(f"best feasible {_LABELS.get(comparison.first, comparison.first)}")
    if len(panels) > 1:
        panels[1].set_ylabel("hypervolume, share of the box")
        corner = ", ".join(f"{name} {show_metric(name, value)}" for name, value in comparison.reference.items())
        panels[1].set_title(f"reference point: {corner}", loc="left", fontsize=11, parse_math=False)
    seeds = max(len(curves.best) for curves in comparison.groups.values())
    panels[0].set_title(
        "median over the seeds" + (f", with {SEED_INTERVAL}" if seeds > 1 else ""), loc="left", fontsize=11
    )
    panels[0].legend(frameon=False, loc="best")
    figure.savefig(path, dpi=150)


def _draw_spread(
    axes: Axes, comparison: Comparison, label: str, measure: str, color: str, style: str, text: str
) -> None:
    several = len(comparison.checkpoints) > 1
    drawn = comparison.evaluations >= (comparison.checkpoints[0] if several else 1)
    at, spread = comparison.evaluations[drawn], comparison.spread(label, measure)
    axes.plot(at, spread.median[drawn], style, color=color, lw=2, drawstyle="steps-post", label=text)
    if spread.low is not None and spread.high is not None:
        axes.fill_between(at, spread.low[drawn], spread.high[drawn], step="post", color=color, alpha=0.2, lw=0)


def save_finetuning(report: Mapping[str, Any], path: Path, title: str) -> None:
    """Draws, for each trial, the accuracy before and after fine-tuning, and faintly every sample's."""
    rows = sorted(report["trials"], key=lambda row: row["top1"])
    figure = Figure(figsize=(8, 1.6 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    samples = [(s["top1"], y) for y, row in enumerate(rows) for s in row["samples"] if s["error"] is None]
    tuned = [(y, row) for y, row in enumerate(rows) if row["finetuned"] is not None]
    for y, row in tuned:
        axes.plot([row["inherited"], row["finetuned"]], [y, y], color=BLUE, lw=2)
    axes.plot([x for x, _ in samples], [y for _, y in samples], "o", ms=4, color=GREY, alpha=0.6, label="every sample")
    axes.plot([row["finetuned"] for _, row in tuned], [y for y, _ in tuned], "o", ms=8, color=BLUE, label="best sample")
    axes.plot([row["inherited"] for row in rows], range(len(rows)), "o", ms=12, mew=2, mfc="none", color=ORANGE,
              label="inherited")  # fmt: skip
    axes.set_yticks(range(len(rows)), [f"trial {row['trial']}, {show_quantity(row['macs'])} MACs" for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("search-validation top-1, by which the best sample is chosen")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.set_title(title, loc="left", fontsize=12, parse_math=False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)


def _correlation(name: str, figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return f"{name} none"
    low, high = figure["interval"]
    return f"{name} {figure['value']:.2f} ({low:.2f} to {high:.2f})"


def _axes_of(study: Study) -> tuple[str, str]:
    names = list(study.objectives)
    if len(names) > 1:
        return names[0], names[1]
    has_macs = any("macs" in t.metrics for t in study.trials)
    return names[0], "macs" if has_macs and names[0] != "macs" else "number"


def _value(trial: Trial, metric: str) -> float:
    return trial.number if metric == "number" else trial.metrics[metric]


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="#E6E6E6", lw=0.8)
    axes.set_axisbelow(True)


def _format(axes: Axes, metric: str, side: str) -> None:
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_label_text("trial" if metric == "number" else _LABELS.get(metric, metric))
    if metric == "top1":
        axis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    elif metric != "number":
        axis.set_major_formatter(FuncFormatter(lambda value, _: show_quantity(value)))


def save_profile(profile: Profile, path: Path) -> None:
    """Draws predicted over measured milliseconds of the subnets of a device profile, and the margin."""
    measured = [subnet["median_ms"] for subnet in profile.subnets]
    predicted = [subnet["predicted_ms"] for subnet in profile.subnets]
    figure, axes = _figure()
    ends = [min(measured + predicted), max(measured + predicted)]
    axes.fill_between(
        ends, ends, [end * (1 + profile.errors.margin) for end in ends],
        color=GREY, alpha=0.3, label="within the margin",
    )  # fmt: skip
    axes.plot(ends, ends, color=GREY, lw=1, label="as predicted")
    axes.scatter(predicted, measured, s=16, color=BLUE, label="subnets, not seen by the model")
    axes.set(xscale="log", yscale="log", xlabel="predicted ms", ylabel="measured ms")
    axes.set_title(f"{profile.space.name} with {profile.device_text}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend()
    figure.savefig(path, dpi=150)
