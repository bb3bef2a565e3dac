"""A supernet's scores corrected by a few stand-alone trainings: a Gaussian process from what is known of an
architecture for free (inherited accuracy, MACs, genes) to the accuracy that it has when trained alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.ranking import concordance, kendall
from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace

LEAST_PAIRS = 4  # stand-alone accuracies below which there is nothing to fit
MOST_PAIRS = 500  # of architectures left out together: all of 32, some seconds

# The grid of hyper-parameters, in units of the standardised accuracy and of the mean distance between two genes.
_LENGTHS = (0.5, 1.0, 2.0, 4.0)
_VARIANCES = (1.0, 3.0, 10.0)
_NOISES = (0.003, 0.01, 0.03, 0.1, 0.3)


@dataclass(frozen=True)
class _Features:
    """What is known of architectures: scores float64 [n, 2], inherited accuracy and log2 MACs; genes [n, d]."""

    scores: np.ndarray
    genes: np.ndarray

    @classmethod
    def of(cls, space: NetworkSpace, archs: Sequence[Arch], inherited: np.ndarray) -> _Features:
        macs = np.log2(cost.macs(space, archs).astype(float))
        return cls(np.stack([inherited, macs], axis=1), np.stack([space.to_vector(arch) for arch in archs]))

    def pick(self, index: np.ndarray) -> _Features:
        return _Features(self.scores[index], self.genes[index])


class _Process:
    """Gaussian-process regression: linear in the two scores, which is ridge regression, plus a smooth function of the
    genes, which is what ridge leaves over.

    kernel = 1 + x·x'/2 + v exp(-|g - g'|² / 2 l²), plus noise, over standardised x and accuracies. The hyper-parameters
    v, l and the noise are not chosen but averaged over a grid by their marginal likelihood (Rasmussen and Williams
    2006, section 5.4): of 4 to 12 pairs the likelihood has no sharp maximum, and taking it over-fits.
    """

    def __init__(self, features: _Features, accuracies: np.ndarray) -> None:
        self._centre, self._scale = accuracies.mean(), accuracies.std()
        if self._scale < 1e-12:
            self._scale = 0.0  # equal accuracies: the same is predicted for every architecture
        self._x_centre, self._x_scale = features.scores.mean(axis=0), features.scores.std(axis=0)
        self._x_scale[self._x_scale < 1e-12] = 1.0  # a constant feature says nothing
        self._features, n = features, len(accuracies)
        self._unit = _squared_distances(features.genes, features.genes).sum() / max(1, n * (n - 1)) or 1.0
        z = (accuracies - self._centre) / (self._scale or 1.0)
        self._grid = list(itertools.product(_LENGTHS, _VARIANCES, _NOISES))
        gram = np.stack([kernel + noise * np.eye(n) for kernel, (*_, noise) in self._kernels(features)])
        self._inverse = np.linalg.inv(gram)
        self._weights = self._inverse @ z
        evidence = -0.5 * (self._weights @ z + np.linalg.slogdet(gram)[1])
        self._share = np.exp(evidence - evidence.max())
        self._share /= self._share.sum()

    def predict(self, features: _Features) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation [n] of the accuracy, over the grid's mixture and without the noise."""
        x, means, variances = self._standardised(features), [], []
        for (kernel, (_, variance, _)), weights, inverse in zip(
            self._kernels(features), self._weights, self._inverse, strict=True
        ):
            prior = 1 + (x * x).sum(axis=1) / 2 + variance
            means.append(kernel @ weights)
            variances.append(np.maximum(0, prior - ((kernel @ inverse) * kernel).sum(axis=1)))
        mean = self._share @ np.array(means)
        spread = self._share @ (np.array(variances) + (np.array(means) - mean) ** 2)
        return self._centre + self._scale * mean, self._scale * np.sqrt(spread)

    def _kernels(self, features: _Features) -> list[tuple[np.ndarray, tuple[float, float, float]]]:
        """The kernel [n, pairs] at every point (length, variance, noise) of the grid."""
        linear = 1 + self._standardised(features) @ self._standardised(self._features).T / 2
        distances = _squared_distances(features.genes, self._features.genes) / self._unit
        smooth = {length: np.exp(-distances / (2 * length**2)) for length in _LENGTHS}
        return [(linear + point[1] * smooth[point[0]], point) for point in self._grid]

    def _standardised(self, features: _Features) -> np.ndarray:
        return (features.scores - self._x_centre) / self._x_scale


class Calibration:
    """Predicts stand-alone accuracy from inherited accuracy; `fit` or `from_dict` makes one.

    archs, inherited, standalone: the pairs that it was fitted to, accuracies from 0 to 1 [n].
    """

    def __init__(
        self, space: NetworkSpace, archs: Sequence[Arch], inherited: Sequence[float], standalone: Sequence[float]
    ) -> None:
        self.space, self.archs = space, tuple(archs)
        self.inherited, self.standalone = np.array(inherited, dtype=float), np.array(standalone, dtype=float)
        _check(self.archs, self.inherited, self.standalone)
        self._process = _Process(_Features.of(space, self.archs, self.inherited), self.standalone)

    @classmethod
    def fit(
        cls, space: NetworkSpace, archs: Sequence[Arch], inherited: Sequence[float], standalone: Sequence[float]
    ) -> Calibration:
        """Fits to pairs of accuracies from 0 to 1; each architecture once.

        Raises ValueError for fewer than `LEAST_PAIRS` pairs, lists of different length, repetition, or a value that
        is not finite.
        """
        return cls(space, archs, inherited, standalone)

    def predict(self, archs: Sequence[Arch], inherited: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, each float64 [n], of the stand-alone accuracy.

        The deviation is that of the fit, for an architecture of the fit's kind; a mean far from the pairs may leave
        the range of 0 to 1.
        """
        if not archs:
            return np.zeros(0), np.zeros(0)
        return self._process.predict(_Features.of(self.space, archs, np.array(inherited, dtype=float)))

    def leave_one_out(self) -> np.ndarray:
        """Each pair's stand-alone accuracy, predicted by a fit to the others: float64 [n]."""
        features = _Features.of(self.space, self.archs, self.inherited)
        every = np.arange(len(self.archs))
        return np.array(
            [
                _Process(features.pick(every != i), self.standalone[every != i]).predict(features.pick(every == i))[0][
                    0
                ]
                for i in every
            ]
        )

    def leave_pairs_out_kendall(self) -> float:
        """Kendall's tau-b over pairs of architectures, each ordered by a fit to all others; NaN without an order.

        Each left out alone, a prediction is drawn to the mean of the others, which falls as the one left out rises:
        so what says nothing would rank in reverse. Of more than `MOST_PAIRS` pairs, as many are drawn.
        """
        features, every = _Features.of(self.space, self.archs, self.inherited), np.arange(len(self.archs))
        pairs = np.array(list(itertools.combinations(every, 2)))
        if len(pairs) > MOST_PAIRS:
            pairs = np.random.default_rng(0).permutation(pairs)[:MOST_PAIRS]
        predicted = []
        for pair in pairs:
            others = np.delete(every, pair)
            predicted.append(_Process(features.pick(others), self.standalone[others]).predict(features.pick(pair))[0])
        return concordance(np.diff(predicted).ravel(), np.diff(self.standalone[pairs]).ravel())

    def to_dict(self) -> dict[str, Any]:
        """The pairs as plain JSON types, from which `from_dict` fits the very same calibration."""
        rows = zip(self.archs, self.inherited.tolist(), self.standalone.tolist(), strict=True)
        return {"pairs": [{"arch": a.to_dict(), "inherited": i, "standalone": s} for a, i, s in rows]}

    @classmethod
    def from_dict(cls, space: NetworkSpace, data: Mapping[str, Any]) -> Calibration:
        """The reverse of `to_dict`. Raises ValueError for what is not of that form or not of this space."""
        try:
            rows = [(space.arch_from_dict(p["arch"]), p["inherited"], p["standalone"]) for p in data["pairs"]]
            archs, inherited, standalone = zip(*rows, strict=True) if rows else ((), (), ())
        except (KeyError, TypeError) as error:
            raise ValueError(f"the calibration's pairs are not readable: {error!r}") from None
        for value in (*inherited, *standalone):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"the calibration's accuracies must be numbers, not {value!r}")
        return cls(space, archs, inherited, standalone)

    @property
    def identity(self) -> str:
        """16 hex digits over the pairs: equal for calibrations that predict the same."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CurvePoint:
    """What `k` stand-alone trainings buy, over all architectures of a table and the mean of the draws.

    kendall: of the calibrated score with the true accuracy; ridge_kendall: of plain ridge's. picked, ridge_picked: the
    true accuracy of the best architecture by either. kendall_std: between draws.
    """

    k: int
    kendall: float
    kendall_std: float
    picked: float
    ridge_kendall: float
    ridge_picked: float


def fidelity_curve(
    space: NetworkSpace,
    archs: Sequence[Arch],
    inherited: Sequence[float],
    true: Sequence[float],
    samples: Mapping[int, Sequence[Sequence[int]]],
) -> list[CurvePoint]:
    """How well calibrations of different sizes rank a whole table, for each k of `samples`, the draws of k indices.

    archs, inherited, true: the table, n of each. `random_samples` draws samples, or take those of a design.
    """
    features = _Features.of(space, archs, np.array(inherited, dtype=float))
    truth, points = np.array(true, dtype=float), []
    for k, draws in samples.items():
        rows = []
        for draw in draws:
            picked = np.array(draw)
            mean, _ = _Process(features.pick(picked), truth[picked]).predict(features)
            plain = _ridge(features.scores, picked, truth[picked])
            rows.append([kendall(mean, truth), truth[mean.argmax()], kendall(plain, truth), truth[plain.argmax()]])
        tau, pick, ridge_tau, ridge_pick = np.mean(rows, axis=0).tolist()
        points.append(CurvePoint(k, tau, float(np.std(rows, axis=0)[0]), pick, ridge_tau, ridge_pick))
    return points


def random_samples(n: int, sizes: Sequence[int], draws: int, seed: int = 0) -> dict[int, list[list[int]]]:
    """For each size, `draws` random subsets of 0 to n - 1."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    return {k: [rng.permutation(n)[:k].tolist() for _ in range(draws)] for k in sizes}


def _ridge(scores: np.ndarray, picked: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Ridge regression, penalty 1, on the standardised scores [n, 2]: the plain thing to do, for comparison."""
    scale = scores[picked].std(axis=0)
    x = (scores - scores[picked].mean(axis=0)) / np.where(scale < 1e-12, 1.0, scale)
    a, b = x[picked], accuracies - accuracies.mean()
    return x @ np.linalg.solve(a.T @ a + np.eye(x.shape[1]), a.T @ b)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return ((a[:, None] - b[None]) ** 2).sum(axis=-1)


def _check(archs: Sequence[Arch], inherited: np.ndarray, standalone: np.ndarray) -> None:
    if not len(archs) == len(inherited) == len(standalone):
        raise ValueError(f"{len(archs)} architectures, {len(inherited)} inherited and {len(standalone)} accuracies")
    if len(archs) < LEAST_PAIRS:
        raise ValueError(f"a calibration of {len(archs)} stand-alone trainings; at least {LEAST_PAIRS} are needed")
    if len({arch.key for arch in archs}) < len(archs):
        raise ValueError("an architecture is in the calibration twice")
    if not (np.isfinite(inherited).all() and np.isfinite(standalone).all()):
        raise ValueError("the calibration holds an accuracy that is not a finite number")
