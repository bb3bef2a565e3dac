"""Strategies decide what to try next. A new one is a file here and one line in `STRATEGIES`."""

from __future__ import annotations

from nas.problem import Problem
from nas.strategies.base import Strategy
from nas.strategies.evolution import EvolutionStrategy
from nas.strategies.random import RandomStrategy

STRATEGIES: dict[str, type[Strategy]] = {
    "random": RandomStrategy,
    "evolution": EvolutionStrategy,
}


def get(name: str, problem: Problem, seed: int) -> Strategy:
    """The strategy `name`; ValueError lists the valid names."""
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; valid: {', '.join(STRATEGIES)}")
    return STRATEGIES[name](problem, seed)
