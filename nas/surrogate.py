"""A quick model of how architectures rank, learned from the trials of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Ranker:
    """Predicts where an architecture stands among those it was fitted on: 0 has the least value, 1 the greatest.

    The mean of boosted trees (Friedman 2002), which learn how genes act together, and of a Bayesian ridge regression,
    which needs fewer examples. Both learn ranks: accuracies have tails that say nothing about the top.
    """

    models: tuple[Any, ...]

    @classmethod
    def fit(cls, features: np.ndarray, values: np.ndarray, seed: int) -> Ranker:
        """features: [n, d]. values: [n], of which at least two. seed: not negative."""
        from sklearn.ensemble import GradientBoostingRegressor  # slow to import, and only this strategy needs it
        from sklearn.linear_model import BayesianRidge

        trees = GradientBoostingRegressor(subsample=0.5, max_features=0.5, random_state=seed % 2**32)  # its largest
        target = to_ranks(values, values)
        return cls(tuple(model.fit(features, target) for model in (trees, BayesianRidge())))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Ranks, mostly from 0 to 1: [n] for features [n, d]."""
        mean: np.ndarray = np.mean([model.predict(features) for model in self.models], axis=0)
        return mean


def to_ranks(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Share of `among` below each value, ties counting half and values between two interpolated: [n] in [0, 1]."""
    known, counts = np.unique(among, return_counts=True)
    below = (np.cumsum(counts) - counts / 2 - 0.5) / max(len(among) - 1, 1)
    ranks: np.ndarray = np.interp(values, known, below)
    return ranks
