"""The record of one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from search_spaces.arch import ArchLike

State = Literal["complete", "failed"]


@dataclass(frozen=True)
class Trial:
    """One architecture that was tried, and what came of it.

    number: position in the study, from 0 without gaps.
    metrics: by name, for example `top1` (0 to 1), `macs`, `params`; of a failed trial the costs known beforehand.
    constraints: for each limited metric that is known, its excess relative to the limit; at most 0 is feasible.
    worker: `host:pid` that evaluated it, or `cache`. seconds: wall time of the evaluation.
    error: why it failed, or None.
    """

    number: int
    arch: ArchLike
    state: State
    metrics: Mapping[str, float]
    constraints: Mapping[str, float]
    worker: str
    seconds: float
    error: str | None = None

    @cached_property
    def feasible(self) -> bool:
        """Whether it completed within every limit."""
        return self.state == "complete" and self.violation == 0

    @cached_property
    def violation(self) -> float:
        """Sum of the relative excesses over the limits."""
        return sum(max(0.0, excess) for excess in self.constraints.values())
