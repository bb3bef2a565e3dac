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

    def drawn(self, rng: np.random.Generator) -> Ranker:
        """A ranker that might be true, too: the linear part is a draw from its posterior, the trees are the same."""
        trees, ridge = self.models
        n = len(ridge.coef_)
        covariance = ridge.sigma_ + np.eye(n) * (1e-9 * np.trace(ridge.sigma_) / n)  # or rounding makes it indefinite
        return Ranker((trees, _Moved(ridge, np.linalg.cholesky(covariance) @ rng.standard_normal(n))))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Ranks, mostly from 0 to 1: [n] for features [n, d]."""
        mean: np.ndarray = np.mean([model.predict(features) for model in self.models], axis=0)
        return mean


@dataclass(frozen=True)
class _Moved:
    """A linear model whose coefficients are moved, about the mean of what it was fitted on."""

    model: Any
    step: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        moved: np.ndarray = self.model.predict(features) + (features - self.model.X_offset_) @ self.step
        return moved


def to_ranks(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Share of `among` below each value, ties counting half and values between two interpolated: [n] in [0, 1]."""
    known, counts = np.unique(among, return_counts=True)
    below = (np.cumsum(counts) - counts / 2 - 0.5) / max(len(among) - 1, 1)
    ranks: np.ndarray = np.interp(values, known, below)
    return ranks
