"""What export measured, as tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from nas.finetune_report import described
from nas.quantities import show_quantity
from nas.tables import console
from nas.trust_report import quoted_text

if TYPE_CHECKING:
    from nas.export.certificate import Certificate
    from nas.export.front import Entry


def print_certificate(c: Certificate) -> None:
    """What was checked on a folder, and what was measured for each format in it."""
    table = _table("check", "result", right=())
    table.add_row("search-validation top-1", f"{c.validation_top1:.2%}")
    table.add_row("MACs: planned = counted", f"{c.macs:,} = {c.counted_macs:,}")
    table.add_row("parameters: planned = counted", f"{c.params:,} = {c.counted_params:,}")
    table.add_row("trust in the supernet's ranking", quoted_text(c.trust))
    if c.finetuned:
        table.add_row("fine-tuning", described(c.finetuned))
    for budget in c.held():
        measured = "not measured" if budget["met"] is None else f"{budget['measured_ms']:.3g} ms"
        broken = "; BROKEN" if budget["met"] is False else ""
        where = f"{budget['runtime']}, {_threads(budget['threads'])}"
        table.add_row(f"budget {budget['name']} ≤ {budget['limit_ms']:.3g} ms ({where})", measured + broken)
    console.print(table)
    console.print(_formats(c))
    model = c.model
    used = {f"{name} {version}": None for check in c.formats.values() for name, version in check.versions.items()}
    console.print(
        f"each in a process that has its runtime alone: |Δ logit| to the scored subnet on {model.check_images} test "
        f"images, test top-1 on all {model.total}; latency of one image, {_threads(model.threads)} of {c.machine}; "
        f"{', '.join(used)}",
        highlight=False,
    )


def _formats(c: Certificate) -> Table:
    table = _table("format", "bytes", "test top-1", "correct", "|Δ logit|", "ms", "p90", "runtime", right=range(1, 7))
    for name, check in c.formats.items():
        figures = [
            "none" if value is None else f"{value:{form}}"
            for value, form in (
                (check.top1, ".2%"), (check.correct, ",d"), (check.max_delta, ".1e"),
                (check.latency_ms, ".3g"), (check.latency_p90_ms, ".3g"),
            )
        ]  # fmt: skip
        table.add_row(name, f"{check.bytes:,}", *figures, check.runtime)
    return table


def print_entries(entries: Sequence[Entry]) -> None:
    """The trials of a front, and what became of each."""
    formats = next((list(e.certificate.formats) for e in entries if e.certificate), [])
    columns = ("trial", "test top-1", "MACs", "params", *(f"ms, {name}" for name in formats), "result")
    table = _table(*columns, right=range(len(columns) - 1))
    for entry in entries:
        c = entry.certificate
        figures = [""] * len(formats)
        if c:
            figures = [f"{check.latency_ms or 0:.3g}" for check in c.formats.values()]
        metrics = entry.trial.metrics
        table.add_row(
            str(entry.trial.number),
            f"{c.model.top1:.2%}" if c and c.model.top1 is not None else "",
            show_quantity(metrics["macs"]),
            show_quantity(metrics["params"]),
            *figures,
            entry.error or entry.folder,
        )
    console.print(table)


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number != 1)}"


def _table(*columns: str, right: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in right else "left", overflow="fold")
    return table
