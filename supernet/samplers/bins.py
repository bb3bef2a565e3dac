"""The space cut into bins of MACs, and architectures drawn from a given bin (AttentiveNAS, Wang et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from search_spaces.arch import Arch
from search_spaces.cost import macs
from search_spaces.network import NetworkSpace

SAMPLES = 8000  # architectures behind the tables: about a second, and 80 of them in the rarest bin
MAX_BINS = 12
MIN_SHARE = 0.01  # of the samples; a rarer bin joins its neighbour
TRIES = 100  # rejections before a bin's stored architectures serve
_AT_ONCE = 10  # tries costed together: the vectorised cost makes them as cheap as two single calls


class MacsBins:
    """P(bin) and P(choice | bin) of every gene, estimated from samples of the space. Read only.

    The bins are equally wide in log-MACs: a bin is a size class, be the space around 1M or 1G multiply-adds. They
    span what was sampled, the space's smallest and largest included; the outer ones are open. Neighbours are joined
    until each holds `MIN_SHARE` of the samples, so a bin is never empty, and equal MACs make a single one.
    Use `macs_bins`, which makes one per space: the tables describe the space and depend on no run's seed.

    probability: float64 [bins], the share of each bin under uniform sampling.
    """

    def __init__(self, space: NetworkSpace) -> None:
        self.space = space
        rng = np.random.default_rng(0)
        archs = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(SAMPLES))]
        cost = macs(space, archs)
        self._inner = _inner_edges(cost)
        ascending = np.argsort(cost, kind="stable")
        self._genes = _encode(space, archs)[ascending]
        bin_of = self.index(cost[ascending])
        self._bounds = np.searchsorted(bin_of, np.arange(len(self._inner) + 2))
        self.probability = np.diff(self._bounds) / len(archs)
        counts = _choice_counts(space, self._genes, bin_of, len(self))
        self._cumulative = counts.cumsum(axis=2)
        self._totals = self._cumulative[:, :, -1]

    def __len__(self) -> int:
        return len(self._inner) + 1

    def index(self, cost: np.ndarray) -> np.ndarray:
        """The bin of each MACs count, int64, same shape."""
        return np.searchsorted(self._inner, cost, side="right")

    def draw_index(self, rng: np.random.Generator) -> int:
        """A bin from P(bin)."""
        return int(rng.choice(len(self), p=self.probability))

    def draw(self, index: int, rng: np.random.Generator) -> Arch:
        """An architecture whose MACs lie in bin `index`.

        Draws each gene from P(choice | bin), the pools among the active blocks, until the whole falls into the bin;
        after `TRIES` misses takes one of the samples that the tables were made of.
        """
        for _ in range(TRIES // _AT_ONCE):
            rank = rng.integers(self._totals[index], size=(_AT_ONCE, len(self.space.genes)))
            picks = (rank[:, :, None] >= self._cumulative[index]).sum(axis=2)
            archs = [self._with_random_pools(self.space.decode(genes), rng) for genes in picks.tolist()]
            hits = np.flatnonzero(self.index(macs(self.space, archs)) == index)
            if len(hits):
                return archs[hits[0]]
        return self._stored(int(rng.integers(self._bounds[index], self._bounds[index + 1])))

    def cheapest(self, index: int) -> Arch:
        """The sample of the bin with the fewest MACs."""
        return self._stored(int(self._bounds[index]))

    def median(self, index: int) -> Arch:
        """The sample of the bin with the median of its MACs."""
        return self._stored(int(self._bounds[index] + self._bounds[index + 1]) // 2)

    def _with_random_pools(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """As the space samples pools: by their own marginals they would crowd at the first blocks of the stages."""
        slots = rng.permutation(self.space.active_slots(arch.depth))
        return self.space.with_pools(arch, slots[: self.space.num_pools].tolist())

    def _stored(self, row: int) -> Arch:
        return self.space.decode(self._genes[row].tolist())


@lru_cache(maxsize=32)
def macs_bins(space: NetworkSpace) -> MacsBins:
    """The bins of a space, made once."""
    return MacsBins(space)


def _inner_edges(cost: np.ndarray) -> np.ndarray:
    """Ascending MACs at which a bin ends and the next begins, int64 [bins - 1]."""
    low, high = np.log(cost.min()), np.log(cost.max())
    edges = np.unique(np.ceil(np.exp(np.linspace(low, high, MAX_BINS + 1)[1:-1])).astype(np.int64))
    counts = np.bincount(np.searchsorted(edges, cost, side="right"), minlength=len(edges) + 1)
    kept: list[int] = []
    held, left = 0, len(cost)
    for edge, count in zip(edges.tolist(), counts.tolist()):
        held, left = held + count, left - count
        if min(held, left) >= MIN_SHARE * len(cost):
            kept.append(edge)
            held = 0
    return np.array(kept, dtype=np.int64)


def _choice_counts(space: NetworkSpace, genes: np.ndarray, bin_of: np.ndarray, bins: int) -> np.ndarray:
    """How often each choice of each gene occurs per bin, int64 [bins, genes, most choices].

    A gene counts where it has an effect. Counting the filler in its place would make the kernels of seldom active
    blocks small in every draw. A gene without effect in a whole bin counts each choice once.
    """
    sizes = np.array([len(gene.choices) for gene in space.genes])
    counts = np.zeros((bins, len(sizes), sizes.max()), dtype=np.int64)
    rows, columns = np.nonzero(_effective(space, genes, sizes))
    np.add.at(counts, (bin_of[rows], columns, genes[rows, columns]), 1)
    unseen = counts.sum(axis=2, keepdims=True) == 0
    counts += unseen & (np.arange(sizes.max()) < sizes[:, None])
    return counts


def _effective(space: NetworkSpace, genes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which genes of which architectures have an effect, bool like `genes` [archs, genes].

    A gene that can be without effect, such as the kernel of an inactive block, then holds its first choice. It is
    found by setting it to its last choice and seeing whether the canonical architecture keeps that.
    """
    raw = np.random.default_rng(1).integers(sizes, size=(256, len(sizes)))
    canonical = _encode(space, [space.decode(row) for row in raw.tolist()])
    reset = canonical != raw
    can_rest = reset.any(axis=0) & ~(reset & (canonical > 0)).any(axis=0)
    raised = np.where(can_rest, sizes - 1, genes)
    settled = _encode(space, [space.decode(row) for row in raised.tolist()])
    return ~can_rest | (settled == raised)


def _encode(space: NetworkSpace, archs: Sequence[Arch]) -> np.ndarray:
    return np.array([space.encode(arch) for arch in archs], dtype=np.int64)
