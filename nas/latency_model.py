"""`LatencyModel`: a table over a plan's blocks, and a learned correction for what is not additive.

A block that was not measured is predicted from those that were, by a polynomial in the logarithms of its shape. The sum
over a network's blocks is then corrected by a linear model of its parts. Both are a few numbers that JSON can hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import numpy as np

from nas.ranking import spearman
from search_spaces.arch import Arch
from search_spaces.block_index import BlockIndex
from search_spaces.blocks import Block
from search_spaces.network import NetworkSpace

_ALPHAS = np.logspace(-4, 3, 22)  # strengths of the ridge penalty, chosen by leave-one-out
_FEW = 30  # blocks of a kind up to which a plane, and no parabola, is fitted to them
_FOLDS = 10
_NUM_PARTS = 6  # of `_parts`


@dataclass(frozen=True)
class Polynomial:
    """Ridge regression of second degree on standardised features; predicts without scikit-learn."""

    mean: np.ndarray
    scale: np.ndarray
    powers: np.ndarray  # [terms, features]
    weights: np.ndarray  # [terms]
    intercept: float

    @classmethod
    def fit(cls, features: np.ndarray, target: np.ndarray, degree: int) -> Self:
        """features: [n, features]. target: [n]; of fewer than three the mean is all that there is."""
        if len(target) < 3:
            width = features.shape[1]
            return cls(np.zeros(width), np.ones(width), np.zeros((0, width)), np.zeros(0), float(np.mean(target)))
        from sklearn.linear_model import RidgeCV
        from sklearn.preprocessing import PolynomialFeatures, StandardScaler

        scaler, terms = StandardScaler().fit(features), PolynomialFeatures(degree, include_bias=False)
        expanded = terms.fit_transform(scaler.transform(features))
        ridge = RidgeCV(_ALPHAS).fit(expanded, target)
        return cls(scaler.mean_, scaler.scale_, terms.powers_, ridge.coef_, float(ridge.intercept_))

    def predict(self, features: np.ndarray) -> np.ndarray:
        """[n, features] → [n]."""
        scaled = (features - self.mean) / self.scale
        terms = np.prod(scaled[:, None, :] ** self.powers, axis=2)
        # not by a matrix product, which gives one row other last digits than the same row among many
        return np.asarray((terms * self.weights).sum(axis=1) + self.intercept)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {name: np.asarray(value).tolist() for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave."""
        mean, scale, powers, weights = (np.array(data[name]) for name in ("mean", "scale", "powers", "weights"))
        return cls(mean, scale, powers, weights, float(data["intercept"]))


_NONE = Polynomial.fit(np.zeros((1, _NUM_PARTS)), np.ones(1), degree=1)  # no correction


@dataclass(frozen=True)
class Errors:
    """How far predictions are from what was measured, on architectures that were not fitted to.

    median, p90: of |predicted / measured - 1|. spearman: rank correlation. n: architectures. margin: what has to be
    added to a prediction, relative to it, so that 95 % of architectures do not exceed it: the conformal quantile, which
    allows for how few were measured (Lei et al. 2018); of fewer than 19, the most that was seen.
    """

    median: float
    p90: float
    spearman: float
    margin: float
    n: int

    @classmethod
    def of(cls, predicted: np.ndarray, measured: np.ndarray) -> Self:
        """Both in milliseconds, [n]."""
        off = np.abs(predicted / measured - 1)
        excess = np.sort(measured / predicted - 1)
        margin = max(0.0, float(excess[min(len(excess), math.ceil(0.95 * (len(excess) + 1))) - 1]))
        return cls(float(np.median(off)), float(np.quantile(off, 0.9)), spearman(predicted, measured), margin, len(off))


class LatencyModel:
    """Milliseconds of architectures of one space.

    blocks: milliseconds by `signature`. shapes: for each kind of block what predicts one that was not measured.
    correction: measured over added-up milliseconds, from `_shares`; kept within `ratios`, those that were seen.
    """

    def __init__(
        self,
        space: NetworkSpace,
        blocks: Mapping[Block, float],
        shapes: Mapping[str, Polynomial],
        correction: Polynomial,
        ratios: tuple[float, float],
    ) -> None:
        self.space, self.blocks, self.shapes = space, dict(blocks), dict(shapes)
        self.correction, self.ratios = correction, ratios
        self._index = BlockIndex(space)
        self._parts = np.empty((0, _NUM_PARTS))

    @classmethod
    def of_blocks(cls, space: NetworkSpace, blocks: Mapping[Block, float]) -> Self:
        """The table alone, without a correction. blocks: milliseconds by signature, of every kind the space has."""
        shapes = {kind: _fit_shape(blocks, kind) for kind in sorted({block.kind for block in blocks})}
        return cls(space, blocks, shapes, _NONE, (1.0, 1.0))

    def corrected(self, archs: Sequence[Arch], measured: np.ndarray) -> Self:
        """With a correction learned from whole subnets. measured: their milliseconds, [len(archs)]."""
        parts = self._sums(archs)
        ratios = measured / parts[:, 0]
        correction = Polynomial.fit(_shares(parts), ratios, degree=1)
        seen = float(ratios.min()), float(ratios.max())
        return type(self)(self.space, self.blocks, self.shapes, correction, seen)

    def predict(self, archs: Sequence[Arch]) -> np.ndarray:
        """float64 [len(archs)]."""
        if not len(archs):
            return np.zeros(0)
        parts = self._sums(archs)
        return np.asarray(parts[:, 0] * np.clip(self.correction.predict(_shares(parts)), *self.ratios))

    def added(self, archs: Sequence[Arch]) -> np.ndarray:
        """The sum over the blocks, without correction: float64 [len(archs)]."""
        return np.asarray(self._sums(archs)[:, 0])

    def _sums(self, archs: Sequence[Arch]) -> np.ndarray:
        """For each architecture its blocks' parts, added up: [len(archs), parts]."""
        numbers = self._index.numbers(archs)
        if new := self._index.blocks[len(self._parts) :]:
            self._parts = np.concatenate([self._parts, [_parts(block, ms) for block, ms in self._times(new)]])
        return np.asarray((self._parts[numbers] * (numbers >= 0)[..., None]).sum(axis=1))

    def _times(self, blocks: Sequence[Block]) -> list[tuple[Block, float]]:
        """Each with its milliseconds: as measured, or predicted from its shape."""
        times = {block: self.blocks.get(block) for block in blocks}
        for kind, shape in self.shapes.items():
            if missing := [block for block, ms in times.items() if ms is None and block.kind == kind]:
                predicted = np.exp(shape.predict(np.array([_logarithms(block) for block in missing])))
                times |= zip(missing, predicted.tolist())
        return [(block, cast(float, ms)) for block, ms in times.items()]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the space."""
        return {
            "blocks": [[asdict(block), ms] for block, ms in self.blocks.items()],
            "shapes": {kind: shape.to_dict() for kind, shape in self.shapes.items()},
            "correction": self.correction.to_dict(),
            "ratios": list(self.ratios),
        }

    @classmethod
    def from_dict(cls, space: NetworkSpace, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave. Raises KeyError, TypeError or ValueError for anything else."""
        low, high = data["ratios"]
        return cls(
            space,
            {Block(**fields): float(ms) for fields, ms in data["blocks"]},
            {kind: Polynomial.from_dict(shape) for kind, shape in data["shapes"].items()},
            Polynomial.from_dict(data["correction"]),
            (float(low), float(high)),
        )


def held_out(table: LatencyModel, archs: Sequence[Arch], measured: np.ndarray) -> np.ndarray:
    """What is predicted for each architecture by a correction that has not seen it, in ten folds: float64 [n]."""
    fold = np.random.default_rng(0).permutation(len(archs)) % _FOLDS
    predicted = np.zeros(len(archs))
    for number in range(_FOLDS):
        seen, left = np.flatnonzero(fold != number).tolist(), np.flatnonzero(fold == number).tolist()
        model = table.corrected([archs[i] for i in seen], measured[seen])
        predicted[left] = model.predict([archs[i] for i in left])
    return predicted


def _fit_shape(blocks: Mapping[Block, float], kind: str) -> Polynomial:
    of_kind = {block: ms for block, ms in blocks.items() if block.kind == kind}
    features = np.array([_logarithms(block) for block in of_kind])
    return Polynomial.fit(features, np.log(list(of_kind.values())), degree=2 if len(of_kind) > _FEW else 1)


def _logarithms(block: Block) -> list[float]:
    """Of what decides how long a block takes."""
    sizes = (block.in_size, block.out_size, block.in_channels, block.out_channels, block.mid_channels, block.kernel)
    flags = (block.pool, block.project, block.residual, block.stride > 1, block.se, block.act == "h_swish")
    return [*(math.log(max(1, value)) for value in (*sizes, block.macs, block.params)), *map(float, flags)]


def _parts(block: Block, ms: float) -> tuple[float, ...]:
    """What the sum of which over a network's blocks its latency is thought to depend on: first the milliseconds.

    The others are what a block measured alone pays and a network does not, or the reverse: the call itself, tensors
    that a runtime converts at both ends, operators, and weights that do not stay in a cache.
    """
    ends = block.in_channels * block.in_size**2 + block.out_channels * block.out_size**2
    return ms, 1, ends, len(block.layers), block.params, block.macs


def _shares(parts: np.ndarray) -> np.ndarray:
    """Parts for each millisecond: the latency's ratio to the sum is linear in them."""
    return np.concatenate([parts[:, 1:], np.ones((len(parts), 1))], axis=1) / parts[:, :1]
