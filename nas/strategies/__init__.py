"""Strategies decide what to try next. A new one is a file here and one line in `STRATEGIES`."""

from __future__ import annotations

from nas.problem import Problem
from nas.strategies.base import Strategy
from nas.strategies.coarse_to_fine import CoarseToFineStrategy
from nas.strategies.evolution import EvolutionStrategy
from nas.strategies.local import LocalSearchStrategy
from nas.strategies.optuna_samplers import GPStrategy, NSGAIIIStrategy, NSGAIIStrategy, TPEStrategy
from nas.strategies.predictor import PredictorStrategy
from nas.strategies.random import RandomStrategy

STRATEGIES: dict[str, type[Strategy]] = {
    "random": RandomStrategy,
    "evolution": EvolutionStrategy,
    "local": LocalSearchStrategy,
    "coarse_to_fine": CoarseToFineStrategy,
    "predictor": PredictorStrategy,
    "tpe": TPEStrategy,
    "gp": GPStrategy,
    "nsga2": NSGAIIStrategy,
    "nsga3": NSGAIIIStrategy,
}

DEFAULT_STRATEGY = "predictor"


def get(name: str, problem: Problem, seed: int) -> Strategy:
    """The strategy `name`; ValueError lists the valid names."""
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; valid: {', '.join(STRATEGIES)}")
    return STRATEGIES[name](problem, seed)
