"""Results as tables on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from nas.finetune_report import described
from nas.quantities import show_quantity
from nas.trust_report import quoted_text

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
    """The front, best by the first objective first; a calibrated score with its 95 % interval."""
    from nas.searching import INTERVAL, score_of

    front, calibrated = study.front(), score_of(study) == "calibrated"
    table = _table("trial", "top-1", *(("95 %", "inherited") if calibrated else ()), "MACs", "params", "architecture")
    first, direction = next(iter(study.objectives.items()))
    sign = -1 if direction == "maximize" else 1
    for trial in sorted(front, key=lambda t: sign * t.metrics[first]):
        top1, macs, params = (
            _show(name, trial.metrics[name]) if name in trial.metrics else "" for name in ("top1", "macs", "params")
        )
        extra: tuple[str, ...] = ()
        if calibrated:
            extra = (f"± {INTERVAL * trial.metrics['top1_std']:.2%}", f"{trial.metrics['top1_inherited']:.2%}")
        table.add_row(str(trial.number), top1, *extra, macs, params, trial.arch.key)
    console.print(table)
    failed = sum(trial.state == "failed" for trial in study.trials)
    limits = ", ".join(f"{name} ≤ {show_quantity(value)}" for name, value in study.limits.items()) or "no limits"
    console.print(f"{len(study.trials)} trials, {failed} failed; {limits}", highlight=False)


def print_trust(report: Mapping[str, Any]) -> None:
    """The figures of a trust report, as `nas.trust_report.figures` gives them."""
    ceiling, calibration = report["noise_ceiling"], report["calibration"]
    table = _table("rank correlation with stand-alone accuracy", "Kendall", "95 %", "Spearman")
    for name, tau, rho in (
        ("inherited accuracy", report["kendall"], report["spearman"]),
        ("MACs alone (the null)", report["null_kendall"], None),
        ("calibrated, each left out once", {"value": calibration["leave_one_out_kendall"]}, None),
        ("a second reading of the same (noise ceiling)", {"value": ceiling["kendall"]}, {"value": ceiling["spearman"]}),
    ):
        low_high = " to ".join(_figure(v) for v in tau.get("interval", ()))
        table.add_row(name, _figure(tau["value"]), low_high, _figure(rho["value"]) if rho else "")
    console.print(table)
    plural = "s" * (report["epochs"] != 1)
    console.print(
        f"{report['n']} architectures, each trained alone for {report['epochs']} epoch{plural}; accuracies on "
        f"{report['images']} search-validation images; calibration error {calibration['leave_one_out_rmse']:.2%}",
        highlight=False,
    )
    bins = _table("MACs from", "to", "archs", "stand-alone minus inherited", "least", "most")
    for row in report["bins"]:
        gaps = (f"{row[name]:+.2%}" for name in ("gap_mean", "gap_min", "gap_max"))
        bins.add_row(show_quantity(row["macs_min"]), show_quantity(row["macs_max"]), str(row["n"]), *gaps)
    console.print(bins)


def print_finetuning(report: Mapping[str, Any]) -> None:
    """What `nas.finetune_report.summarize` gives, the trial with the best weights first."""
    table = _table("trial", "inherited", "fine-tuned", "gain", "lr", "decay", "epochs", "samples", "MACs")
    for row in sorted(report["trials"], key=lambda row: -row["top1"]):
        best = ("diverged" if row["n_samples"] else "not yet", "", "", "", "")
        if row["finetuned"] is not None:
            gain = row["finetuned"] - row["inherited"]
            best = (
                f"{row['finetuned']:.2%}", f"{gain:+.2%}", f"{row['lr']:.2g}", f"{row['weight_decay']:.2g}",
                f"{row['reached']}/{row['epochs']}",
            )  # fmt: skip
        last = (str(row["n_samples"]), show_quantity(row["macs"]))
        table.add_row(str(row["trial"]), f"{row['inherited']:.2%}", *best, *last)
    console.print(table)
    stopped, diverged = (sum(row[name] for row in report["trials"]) for name in ("n_stopped", "n_diverged"))
    console.print(
        f"top-1 on {report['trials'][0]['images']} search-validation images; fine-tuned is the best of all samples by "
        f"that very figure, so it flatters; {stopped} samples were stopped early, {diverged} diverged",
        highlight=False,
    )
    if kept := [str(row["trial"]) for row in report["trials"] if row["kept"] == "inherited" and row["n_samples"]]:
        console.print(f"fine-tuning did not improve, and the inherited weights are kept: {', '.join(kept)}")


def print_certificate(c: Certificate) -> None:
    """What export measured on the files it wrote."""
    table = _table("check", "result")
    table.add_row("test top-1", f"{c.top1:.2%} ({c.correct} of {c.total})")
    table.add_row("search-validation top-1", f"{c.validation_top1:.2%}")
    table.add_row("MACs: planned = counted", f"{c.macs:,} = {c.counted_macs:,}")
    table.add_row("parameters: planned = counted", f"{c.params:,} = {c.counted_params:,}")
    table.add_row("largest |Δ logit|, run standalone", f"{c.max_delta:.1e} on {c.check_images} images")
    table.add_row("weights file", f"{show_quantity(c.weights_bytes)} bytes")
    table.add_row("trust in the supernet's ranking", quoted_text(c.trust))
    if c.finetuned:
        table.add_row("fine-tuning", described(c.finetuned))
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = name not in ("space", "architecture", "check", "result", "image")
        table.add_column(name, justify="right" if numeric and i else "left", overflow="fold")
    return table


def _show(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric == "top1" else show_quantity(value)


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
