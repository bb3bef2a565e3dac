"""Which architectures to train alone: spread over a space's genes and its range of MACs, a longer list extending a
shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace

MOST_CANDIDATES = 4096  # spaces up to this size are listed, of larger ones as many are drawn


def spread_sample(space: NetworkSpace, n: int, seed: int = 0) -> list[Arch]:
    """`n` different architectures, each as far as possible from those before it.

    The distance is half `space.to_vector` (genes, and the pooling level of every slot) and half log2 MACs: so the
    sample covers the MACs range and the poolings alike, and its first k are the sample of size k (farthest-point
    sampling, Gonzalez 1985). The seed decides the first one, and the candidates of a space that is too large to list.
    Raises ValueError where the space has fewer than `n` architectures.
    """
    if not 1 <= n <= min(space.size(), MOST_CANDIDATES):
        raise ValueError(
            f"{n} architectures cannot be sampled from space {space.name!r}; valid: 1 to "
            f"{min(space.size(), MOST_CANDIDATES)}"
        )
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    archs = _candidates(space, rng)
    points = _points(space, archs)
    chosen = [int(rng.integers(len(archs)))]
    nearest = _distances(points, chosen[0])
    while len(chosen) < n:
        nearest[chosen[-1]] = -1.0  # even where all others coincide, none is taken twice
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(points, chosen[-1]))
    return [archs[i] for i in chosen]


def _candidates(space: NetworkSpace, rng: np.random.Generator) -> list[Arch]:
    """Every architecture, or a draw that holds the ends of the space; no two are equal."""
    if space.size() <= MOST_CANDIDATES:
        return list(space.enumerate())
    found = {arch.key: arch for arch in (space.smallest(), space.largest(), space.most_macs())}
    while len(found) < MOST_CANDIDATES:  # ends soon: the space holds more than that
        arch = space.sample(rng)
        found.setdefault(arch.key, arch)
    return list(found.values())


def _points(space: NetworkSpace, archs: Sequence[Arch]) -> np.ndarray:
    """float64 [n, features], the genes and the MACs at a mean squared distance of 1 between two architectures."""
    genes = np.stack([space.to_vector(arch) for arch in archs])
    macs = np.log2(cost.macs(space, archs).astype(float))[:, None]
    return np.hstack([part / (np.sqrt(2 * part.var(axis=0).sum()) or 1.0) for part in (genes, macs)])


def _distances(points: np.ndarray, to: int) -> np.ndarray:
    return ((points - points[to]) ** 2).sum(axis=1)
