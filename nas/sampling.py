"""Which architectures to train alone: spread over a space's genes and its range of MACs, a longer list extending a
shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.feasible import preflight, sample_feasible
from search_spaces.network import NetworkSpace

MOST_CANDIDATES = 4096  # spaces up to this size are listed, of larger ones as many are drawn
_BLOCKS = 4  # of as many draws, at most, for candidates below a limit
_FEWEST, _TRIES = 64, 128  # candidates that are looked for where draws hardly find any, and how often


class TooFewError(ValueError):
    """There are fewer architectures than were asked for: `available` of them in `where`."""

    def __init__(self, asked: int, where: str, available: int) -> None:
        super().__init__(f"{asked} architectures cannot be sampled from {where}; valid: 1 to {available}")
        self.where, self.available = where, available


def spread_sample(space: NetworkSpace, n: int, seed: int = 0, max_macs: float | None = None) -> list[Arch]:
    """`n` different architectures, each as far as possible from those before it.

    The distance is half `space.to_vector` (genes, and the pooling level of every slot) and half log2 MACs: so the
    sample covers the MACs range and the poolings alike, and its first k are the sample of size k (farthest-point
    sampling, Gonzalez 1985). The seed decides the first one, and the candidates of a space that is too large to list.
    max_macs: none of the architectures computes more multiply-adds for one image.
    Raises TooFewError, which is a ValueError, where there are not `n` architectures, and InfeasibleLimitsError where
    `max_macs` leaves none.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    archs = _candidates(space, rng) if max_macs is None else _candidates_within(space, rng, max_macs)
    if not 1 <= n <= len(archs):
        limit = "" if max_macs is None else f" within {max_macs:,.0f} MACs"
        raise TooFewError(n, f"space {space.name!r}{limit}", len(archs))
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


def _candidates_within(space: NetworkSpace, rng: np.random.Generator, max_macs: float) -> list[Arch]:
    """The same below a limit; fewer where so few are found."""

    def within(archs: Sequence[Arch]) -> dict[str, Arch]:
        below = cost.macs(space, archs) <= max_macs
        return {arch.key: arch for arch, inside in zip(archs, below) if inside}

    def known(archs: Sequence[Arch]) -> dict[str, np.ndarray]:
        return cost.costs(space, archs, ("macs",))

    preflight(space, {"macs": max_macs}, known)
    if space.size() <= MOST_CANDIDATES:
        return list(within(list(space.enumerate())).values())
    found = within([space.smallest(), space.largest(), space.most_macs()])
    for _ in range(_BLOCKS):
        found |= within([space.sample(rng) for _ in range(MOST_CANDIDATES)])
        if len(found) >= MOST_CANDIDATES:
            break
    for _ in range(_TRIES):
        if len(found) >= _FEWEST:
            break
        arch = sample_feasible(space, rng, {"macs": max_macs}, known)
        found.setdefault(arch.key, arch)
    return list(found.values())[:MOST_CANDIDATES]


def _points(space: NetworkSpace, archs: Sequence[Arch]) -> np.ndarray:
    """float64 [n, features], the genes and the MACs at a mean squared distance of 1 between two architectures."""
    genes = np.stack([space.to_vector(arch) for arch in archs])
    macs = np.log2(cost.macs(space, archs).astype(float))[:, None]
    return np.hstack([part / (np.sqrt(2 * part.var(axis=0).sum()) or 1.0) for part in (genes, macs)])


def _distances(points: np.ndarray, to: int) -> np.ndarray:
    return ((points - points[to]) ** 2).sum(axis=1)
