"""Metrics that the driver computes from an evaluation's, such as a calibrated score from an inherited one.

Workers and the evaluation cache know nothing of them: what is evaluated is the same, so it is shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.calibration import Calibration
from nas.loop import Store
from nas.problem import Problem
from nas.trial import Trial


@dataclass(frozen=True)
class Derivation:
    """How a study's metrics follow from an evaluation's.

    context: what they depend on beside the evaluation; part of the study's identity.
    apply: the metrics to record of an architecture, from those it was evaluated to. Equal for equal arguments.
    """

    context: Mapping[str, str]
    apply: Callable[[Any, Mapping[str, float]], Mapping[str, float]]


def calibrated(calibration: Calibration) -> Derivation:
    """`top1` as the calibration predicts it, beside `top1_inherited` and `top1_std`."""

    def apply(arch: Any, metrics: Mapping[str, float]) -> dict[str, float]:
        mean, std = calibration.predict([arch], [metrics["top1"]])
        return {"top1": float(mean[0]), "top1_std": float(std[0]), "top1_inherited": metrics["top1"]}

    return Derivation({"score": "calibrated", "calibration": calibration.identity}, apply)


class DerivingStore:
    """A store that records every trial with its derived metrics, and with the constraints that follow from them."""

    def __init__(self, store: Store, problem: Problem, derivation: Derivation) -> None:
        self._store, self._problem, self._derivation = store, problem, derivation

    @property
    def trials(self) -> Sequence[Trial]:
        """Every trial recorded so far, with derived metrics: what strategies learn from."""
        return self._store.trials

    def append(self, trial: Trial) -> None:
        """Records the next trial."""
        if trial.state == "complete":
            metrics = {**trial.metrics, **self._derivation.apply(trial.arch, trial.metrics)}
            trial = replace(trial, metrics=metrics, constraints=self._problem.constraints(metrics))
        self._store.append(trial)
