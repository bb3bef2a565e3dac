"""Results as tables on stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nas.compare import INTERVAL
from nas.front_latency import over_budget
from nas.quantities import LATENCY, show_metric, show_quantity
from nas.ranking import ENOUGH_PAIRS
from nas.trust_report import compared
from search_spaces.limits import Limit, limit_text, limits_text

if TYPE_CHECKING:
    from nas.compare import Comparison, Spread
    from nas.profiles import Profile
    from nas.querying import Answer
    from nas.study import Study
    from workers.ray_jobs import Job

console = Console()

_TEXT = (
    "space", "architecture", "check", "result", "image", "study", "strategy", "limits", "last written",
    "status", "what", "since", "until", "prediction",
)  # fmt: skip


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


def print_front(study: Study, measured: Mapping[int, Mapping[str, float]] | None = None) -> None:
    """The front, best by the first objective first; a calibrated score with its 95 % interval.

    measured: milliseconds by number and metric; what is beyond its limit is marked.
    """
    from nas.summary import INTERVAL, score_of

    front, calibrated, measured = study.front(), score_of(study) == "calibrated", measured or {}
    latencies = [name for name in (front[0].metrics if front else ()) if name.startswith(LATENCY)]
    more = [name for name in ("peak_memory", "weight_bytes") if name in {*study.limits, *study.objectives}]
    headings = [heading for name in latencies for heading in (_heading(name), "measured")]
    table = _table(
        "trial", "top-1", *(("95 %", "inherited") if calibrated else ()), "MACs", "params",
        *map(_heading, more), *headings, "architecture",
    )  # fmt: skip
    first, direction = next(iter(study.objectives.items()))
    sign = -1 if direction == "maximize" else 1
    for trial in sorted(front, key=lambda t: sign * t.metrics[first]):
        top1, macs, params, *others = (
            show_metric(name, trial.metrics[name]) if name in trial.metrics else ""
            for name in ("top1", "macs", "params", *more)
        )
        extra: tuple[str, ...] = ()
        if calibrated:
            extra = (f"± {INTERVAL * trial.metrics['top1_std']:.2%}", f"{trial.metrics['top1_inherited']:.2%}")
        times = measured.get(trial.number, {})
        for name in latencies:
            others += [show_metric(name, trial.metrics[name]), _time(study, name, times)]
        table.add_row(str(trial.number), top1, *extra, macs, params, *others, trial.arch.key)
    console.print(table)
    failed = sum(trial.state == "failed" for trial in study.trials)
    console.print(f"{len(study.trials)} trials, {failed} failed; {_limits(study.limits)}", highlight=False)
    for name, value in study.report.items():
        ranks = f"ranks {name.removeprefix('kendall_')} of trials it has not seen with Kendall's τ {value:.2f}"
        console.print(f"the predictor {ranks}", highlight=False)
    if study.trials and not front:
        error = next((trial.error for trial in study.trials if trial.error), None)
        why = f"all failed, the first of: {error}" if failed == len(study.trials) else "none is within the limits"
        console.print(f"no feasible trial: {why}", highlight=False)


def _time(study: Study, name: str, times: Mapping[str, float]) -> str:
    if name not in times:
        return ""
    return show_metric(name, times[name]) + (" over!" if over_budget(study.limits, {name: times[name]}) else "")


def print_studies(rows: Sequence[Mapping[str, Any]]) -> None:
    """The studies of a run, as `nas.studies.list_studies` gives them."""
    if not rows:
        console.print("no studies yet")
        return
    table = _table("study", "strategy", "seed", "trials", "failed", "best", "front", "limits", "last written")
    for row in (row for row in rows if not row["error"]):
        first = next(iter(row["objectives"]))
        best = show_metric(first, row["best"]["metrics"][first]) if row["best"] else "none"
        done = f"{row['n_trials']}/{row['n_asked']}" if row["n_asked"] else str(row["n_trials"])
        notes = ["searching" if row["writing"] else _age(row["changed"])]
        notes += (
            ["exhausted"] * row["exhausted"]
            + ["calibrated"] * (row["score"] == "calibrated")
            + ["on old weights"] * (not row["current"])
        )
        table.add_row(
            row["study"], row["strategy"], str(row["seed"]), done, str(row["n_failed"]), best, str(row["front"]),
            _limits(row["limits"]), ", ".join(notes),
        )  # fmt: skip
    console.print(table)
    for row in (row for row in rows if row["error"]):
        console.print(f"{row['study']}: {row['error']}", highlight=False)


def print_profile(profile: Profile) -> None:
    """What a device profile was measured on, and how far its predictions are off."""
    facts = profile.summary()
    console.print(f"{profile.space.name} with {profile.device_text}", highlight=False)
    table = _table("prediction", "error, median", "90 %", "Spearman", "margin")
    for name, errors in (("blocks added up", profile.added), ("corrected", profile.errors)):
        table.add_row(
            name, f"{errors.median:.1%}", f"{errors.p90:.1%}", f"{errors.spearman:.3f}", f"{errors.margin:.1%}"
        )
    console.print(table)
    console.print(
        f"{facts['n_blocks']} blocks and {facts['n_subnets']} subnets measured; the subnets were predicted without "
        f"having been seen. The median of {facts['n_narrow']} of them is known to 2 %, of the others time was up. "
        f"The device itself was {profile.drift:.1%} or more slower than usual for a twentieth of the time; limits "
        "allow for that and for the margin.",
        highlight=False,
    )


def print_answer(answer: Answer, top: int) -> None:
    """The `top` best of what `nas.querying.query_run` found; where nothing is within the limits, what is nearest."""
    names = ", ".join(answer.studies)
    console.print(
        f"{_limits(answer.limits)}; {answer.evaluated} architectures, with their inherited scores, in: {names}",
        highlight=False,
    )
    for name, why in answer.left_out.items():
        console.print(f"left out: {name} ({why})", highlight=False)
    if answer.within:
        console.print(f"{len(answer.within)} fit; the best {min(top, len(answer.within))}:", highlight=False)
        rows = [(str(place), found) for place, found in enumerate(answer.within[:top], 1)]
    else:
        console.print("nothing fits" + ("; the nearest:" if answer.nearest else ""), highlight=False)
        rows = [
            ("all limits" if name == "together" else limit_text(name, answer.limits[name]), found)
            for name, found in answer.nearest.items()
        ]
    if not rows:
        return
    metrics = list(dict.fromkeys(name for _, found in rows for name in found.metrics))
    table = _table("" if answer.within else "nearest to", "study", "trial", *map(_heading, metrics), "architecture")
    for label, found in rows:
        values = (show_metric(name, found.metrics[name]) if name in found.metrics else "" for name in metrics)
        table.add_row(label, found.study, str(found.number), *values, found.arch.key)
    console.print(table)


def print_comparison(comparison: Comparison) -> None:
    """Medians over the seeds at equal evaluations, with the quartiles where there is more than one seed."""
    where = np.searchsorted(comparison.evaluations, comparison.checkpoints)
    headings = [f"{label} (n={len(curves.best)})" for label, curves in comparison.groups.items()]
    first = comparison.first
    for measure in comparison.measures:
        spreads = [comparison.spread(label, measure) for label in comparison.groups]
        table = _table("evaluations", *headings)
        for i, n in zip(where, comparison.checkpoints, strict=True):
            table.add_row(str(n), *(_spread(spread, i, first if measure == "best" else measure) for spread in spreads))
        console.print(f"best feasible {first}" if measure == "best" else "hypervolume, share of the box", style="bold")
        console.print(table)
    console.print(f"medians over n seeds, with {INTERVAL}; failed and infeasible trials count", highlight=False)
    if "hypervolume" in comparison.measures:
        ends = (
            f"{n} {show_metric(n, v)} to {show_metric(n, comparison.reference[n])}" for n, v in comparison.ideal.items()
        )
        console.print(f"the box, from the ideal to the reference point: {', '.join(ends)}", highlight=False)


def _spread(spread: Spread, i: int, metric: str) -> str:
    median, *ends = (None if v is None or np.isnan(v[i]) else v[i] for v in (spread.median, spread.low, spread.high))
    if median is None:
        return "none"
    if spread.low is None:
        return show_metric(metric, median)
    return (
        f"{show_metric(metric, median)} ({' to '.join('none' if v is None else show_metric(metric, v) for v in ends)})"
    )


def print_trust(report: Mapping[str, Any]) -> None:
    """The figures of a trust report, as `nas.trust_report.figures` gives them."""
    ceiling, calibration = report["noise_ceiling"], report["calibration"]
    table = _table("rank correlation with stand-alone accuracy", "Kendall", "95 %", "Spearman")
    for name, tau, rho in (
        ("inherited accuracy", report["kendall"], report["spearman"]),
        ("MACs alone (the null)", report["null_kendall"], None),
        ("calibrated, each pair left out", {"value": calibration["leave_pairs_out_kendall"]}, None),
        ("the true accuracies (noise ceiling)", {"value": ceiling["kendall"]}, {"value": ceiling["spearman"]}),
    ):
        low_high = " to ".join(_figure(v) for v in tau.get("interval", ()))
        table.add_row(name, _figure(tau["value"]), low_high, _figure(rho["value"]) if rho else "")
    console.print(table)
    if report["n"] < ENOUGH_PAIRS:
        console.print(f"intervals of fewer than {ENOUGH_PAIRS} architectures are too narrow; --archs takes more")
    plural = "s" * (report["epochs"] != 1)
    console.print(
        f"{compared(report)}, each trained alone for {report['epochs']} epoch{plural}; accuracies on "
        f"{report['images']} search-validation images; calibration error {calibration['leave_one_out_rmse']:.2%}",
        highlight=False,
    )
    bins = _table("MACs from", "to", "archs", "stand-alone minus inherited", "least", "most")
    for row in report["bins"]:
        gaps = (f"{row[name]:+.2%}" for name in ("gap_mean", "gap_min", "gap_max"))
        bins.add_row(show_quantity(row["macs_min"]), show_quantity(row["macs_max"]), str(row["n"]), *gaps)
    console.print(bins)


def print_jobs(jobs: Sequence[Job]) -> None:
    """The jobs of a cluster, times in this machine's zone."""
    table = _table("job", "status", "what", "since", "until")
    for job in jobs:
        since, until = (f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else "" for time in (job.started, job.ended))
        table.add_row(job.id, job.status, job.what, since, until)
    console.print(table)


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


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(columns):
        numeric = name not in _TEXT
        table.add_column(name, justify="right" if numeric and i else "left", overflow="fold")
    return table


def _limits(limits: Mapping[str, Limit]) -> str:
    return limits_text(limits) or "no limits"


def _heading(metric: str) -> str:
    return {"top1": "top-1", "macs": "MACs"}.get(metric, metric)


def _age(changed: str) -> str:
    """How long ago a moment in ISO format was: `5 min ago`."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(changed)).total_seconds()
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
