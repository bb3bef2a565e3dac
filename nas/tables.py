"""Results as tables on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from nas.quantities import show_quantity

if TYPE_CHECKING:
    from nas.export import Certificate
    from nas.study import Study

console = Console()


def print_spaces(rows: Sequence[Mapping[str, Any]]) -> None:
    """The catalog, as `nas.spaces.describe_catalog` gives it."""
    table = _table("space", "architectures", "least MACs", "most MACs", "MACs of `largest`", "image")
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['size']:,}" if row["size"] < 1e6 else f"{row['size']:.2e}",
            show_quantity(row["macs_min"]),
            show_quantity(row["macs_max"]),
            show_quantity(row["macs_largest"]),
            f"{row['in_channels']}x{row['image_size']}x{row['image_size']}",
        )
    console.print(table)


def print_front(study: Study) -> None:
    """The front, best by the first objective first."""
    table = _table("trial", "top-1", "MACs", "params", "architecture")
    metrics = ("top1", "macs", "params")
    first, direction = next(iter(study.objectives.items()))
    sign = -1 if direction == "maximize" else 1
    for trial in sorted(study.front(), key=lambda t: sign * t.metrics[first]):
        shown = (_show(name, trial.metrics[name]) if name in trial.metrics else "" for name in metrics)
        table.add_row(str(trial.number), *shown, trial.arch.key)
    console.print(table)
    failed = sum(trial.state == "failed" for trial in study.trials)
    limits = ", ".join(f"{name} ≤ {show_quantity(value)}" for name, value in study.limits.items()) or "no limits"
    console.print(f"{len(study.trials)} trials, {failed} failed; {limits}", highlight=False)


def print_certificate(c: Certificate) -> None:
    """What export measured on the files it wrote."""
    table = _table("check", "result")
    table.add_row("test top-1", f"{c.top1:.2%} ({c.correct} of {c.total})")
    table.add_row("search-validation top-1", f"{c.validation_top1:.2%}")
    table.add_row("MACs: planned = counted", f"{c.macs:,} = {c.counted_macs:,}")
    table.add_row("parameters: planned = counted", f"{c.params:,} = {c.counted_params:,}")
    table.add_row("largest |Δ logit|, run standalone", f"{c.max_delta:.1e} on {c.check_images} images")
    table.add_row("weights file", f"{show_quantity(c.weights_bytes)} bytes")
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = name not in ("space", "architecture", "check", "result", "image")
        table.add_column(name, justify="right" if numeric and i else "left", overflow="fold")
    return table


def _show(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric == "top1" else show_quantity(value)
