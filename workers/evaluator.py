"""What scores architectures, and how a worker gets one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Evaluator(Protocol):
    """Scores architectures. The same architecture must get the same metrics from every worker, at any time."""

    def evaluate(self, archs: Sequence[Any]) -> Sequence[Mapping[str, float]]:
        """One mapping of metric name to finite value for each architecture, in order; may raise."""
        ...


@dataclass(frozen=True)
class EvaluatorSpec:
    """How to build an `Evaluator` inside each worker.

    factory: called with `shared`, or without arguments where `shared` is None. It and what it closes over travel
        to other processes, so it should be small.
    shared: large read-only arrays, of which all workers on one machine see one copy.
    batch: architectures that are evaluated in one call where as many wait: more than 1 where that is faster than one
        by one, and gives the same metrics.
    """

    factory: Callable[..., Evaluator]
    shared: Mapping[str, np.ndarray] | None = None
    batch: int = 1

    def build(self) -> Evaluator:
        """A new evaluator; raises whatever the factory raises."""
        return self.factory() if self.shared is None else self.factory(self.shared)


@dataclass(frozen=True)
class CallableEvaluator:
    """Any function of one architecture as an evaluator.

    function: returns a mapping of metrics, or a bare number that becomes the metric `metric`.
    """

    function: Callable[[Any], float | Mapping[str, float]]
    metric: str = "top1"

    def evaluate(self, archs: Sequence[Any]) -> list[Mapping[str, float]]:
        """Calls the function once for each architecture."""
        values = (self.function(arch) for arch in archs)
        return [value if isinstance(value, Mapping) else {self.metric: value} for value in values]
