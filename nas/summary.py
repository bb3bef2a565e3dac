"""What a study came to, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.front_latency import over_budget

if TYPE_CHECKING:
    from nas.study import Study
    from nas.trial import Trial

INTERVAL = 1.96  # standard deviations on either side: 95 % of a normal distribution


def score_of(study: Study) -> str | None:
    """Which of `SCORES` a study's `top1` is; None while no trial has one."""
    scored = [trial for trial in study.trials if "top1" in trial.metrics]
    if not scored:
        return None
    return "calibrated" if "top1_std" in scored[0].metrics else "inherited"


def summarize(study: Study, measured: Mapping[int, Mapping[str, float]] | None = None) -> dict[str, Any]:
    """The study as plain JSON types: objectives, limits, which score, number of trials by state, and the front.

    A calibrated `top1` has its 95 % interval, mean ± 1.96 standard deviations, as `top1_interval`. measured: latencies
    by number and metric, of `nas.front_latency`; their trials have them as `measured`, and what is beyond a limit as
    `over_budget`.
    """
    measured = measured or {}
    return {
        "objectives": dict(study.objectives),
        "limits": dict(study.limits),
        "score": score_of(study),
        "n_trials": len(study.trials),
        "n_failed": sum(t.state == "failed" for t in study.trials),
        "best": study.best.number if study.best else None,
        "front": [_summary(trial) | _measured(study, measured.get(trial.number, {})) for trial in study.front()],
    }


def _measured(study: Study, times: Mapping[str, float]) -> dict[str, Any]:
    return {"measured": dict(times), "over_budget": over_budget(study.limits, times)} if times else {}


def _summary(trial: Trial) -> dict[str, Any]:
    metrics = trial.metrics
    row = {"number": trial.number, "key": trial.arch.key, "metrics": dict(metrics), "arch": trial.arch.to_dict()}
    if "top1_std" in metrics:
        half = INTERVAL * metrics["top1_std"]
        row["top1_interval"] = [metrics["top1"] - half, metrics["top1"] + half]
    return row
