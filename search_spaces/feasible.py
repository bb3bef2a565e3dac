"""Architectures under limits: feasible samples in bounded tries, and the nearest reachable value when there are none.

A limit is an upper bound on a cost that is known before anything is trained or scored, such as `{"macs": 40e6}`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from search_spaces.space import Space

BatchCost = Callable[[Sequence[Any]], dict[str, np.ndarray]]
"""Costs of many architectures: one array [len(archs)] per metric."""

ENUMERABLE = 100_000  # spaces up to this size are listed before anything is said not to exist
_DRAWS = 32  # architectures costed at once: the vectorised cost makes a batch as cheap as a few single calls
_CHUNK = 4096  # the same, while listing a space


class InfeasibleLimitsError(ValueError):
    """No architecture of the space was found within the limits.

    limits: as given. nearest: the reachable value of each limited metric, from the closest architecture found.
    """

    def __init__(self, limits: Mapping[str, float], nearest: Mapping[str, float]) -> None:
        self.limits, self.nearest = dict(limits), dict(nearest)
        parts = [
            f"{name} ≤ {_short(limit)} (nearest reachable: {_short(self.nearest[name])})"
            for name, limit in self.limits.items()
            if name in self.nearest
        ]
        together = " together" if len(parts) > 1 else ""
        super().__init__(f"no architecture meets the limits{together}: {', '.join(parts)}")


def violation(costs: Mapping[str, float], limits: Mapping[str, float]) -> float:
    """Sum of the relative excesses over the limits; 0 when every limited metric in `costs` is within its limit."""
    return float(sum(max(0.0, relative_excess(costs[n], limit)) for n, limit in limits.items() if n in costs))


def relative_excess(value: float, limit: float) -> float:
    """(value - limit) / |limit|, or the plain difference for a limit of 0; ≤ 0 is feasible."""
    return (value - limit) / (abs(limit) or 1.0)


def violations(cost: BatchCost, archs: Sequence[Any], limits: Mapping[str, float]) -> np.ndarray:
    """`violation` of many architectures, float64 [len(archs)]."""
    known = cost(archs)
    total = np.zeros(len(archs))
    for name, limit in limits.items():
        if name in known:
            total += np.maximum(0.0, (np.asarray(known[name], dtype=float) - limit) / (abs(limit) or 1.0))
    return total


def sample_feasible(
    space: Space[Any],
    rng: np.random.Generator,
    limits: Mapping[str, float],
    cost: BatchCost | None,
    max_tries: int = 256,
    exhaustive: bool = True,
) -> Any:
    """A random architecture within `limits`.

    Draws up to `max_tries` samples and takes the first feasible one. Where the feasible region is too small to be
    hit that way, the last sample descends gene by gene until it is feasible, then the smallest and the largest do; at
    last a space of at most `ENUMERABLE` architectures is listed, unless `exhaustive` is false.
    Limits on metrics that `cost` does not know are ignored here. Raises InfeasibleLimitsError when all that fails,
    which for a space that was listed is a proof.
    """
    if cost is None or not limits:
        return space.sample(rng)
    archs: list[Any] = []
    for _ in range(0, max_tries, _DRAWS):
        archs = [space.sample(rng) for _ in range(_DRAWS)]
        feasible = np.flatnonzero(violations(cost, archs, limits) == 0)
        if len(feasible):
            return archs[feasible[0]]
    starts = (archs[-1], space.smallest(), space.largest())
    candidates: Iterable[tuple[Any, float]] = (descend(space, start, limits, cost, rng) for start in starts)
    if exhaustive and space.size() <= ENUMERABLE:
        candidates = itertools.chain(candidates, _listed(space, limits, cost))
    arch, excess = _closest(candidates)
    if excess > 0:
        raise InfeasibleLimitsError(limits, {name: float(value[0]) for name, value in cost([arch]).items()})
    return arch


def preflight(space: Space[Any], limits: Mapping[str, float], cost: BatchCost | None) -> None:
    """Raises InfeasibleLimitsError, with the nearest reachable values, when no architecture meets the limits."""
    if cost is None or not limits:
        return
    if violations(cost, [space.smallest(), space.largest()], limits).min() == 0:
        return
    sample_feasible(space, np.random.default_rng(0), limits, cost, max_tries=_DRAWS)


def descend(
    space: Space[Any], start: Any, limits: Mapping[str, float], cost: BatchCost, rng: np.random.Generator
) -> tuple[Any, float]:
    """Changes one gene at a time while that lowers the violation; returns the architecture and what is left of it.

    Genes are visited in random order and take the choice that violates least, so at most
    genes x choices x rounds architectures are costed, and each round must improve.
    """
    arch, excess = start, float(violations(cost, [start], limits)[0])
    improved = True
    while excess > 0 and improved:
        improved = False
        for i in rng.permutation(len(space.genes)):
            genes = space.encode(arch)
            others = [
                space.decode([*genes[:i], c, *genes[i + 1 :]])
                for c in range(len(space.genes[i].choices))
                if c != genes[i]
            ]
            if not others:
                continue
            left = violations(cost, others, limits)
            if left.min() < excess:
                arch, excess, improved = others[int(left.argmin())], float(left.min()), True
            if excess == 0:
                break
    return arch, excess


def chunks(space: Space[Any]) -> Iterator[list[Any]]:
    """Every architecture of the space, in lists that are costed at once."""
    every = space.enumerate()
    while chunk := list(itertools.islice(every, _CHUNK)):
        yield chunk


def _listed(space: Space[Any], limits: Mapping[str, float], cost: BatchCost) -> Iterator[tuple[Any, float]]:
    """The closest architecture of each chunk of the space, and its violation."""
    for archs in chunks(space):
        excesses = violations(cost, archs, limits)
        yield archs[int(excesses.argmin())], float(excesses.min())


def _closest(candidates: Iterable[tuple[Any, float]]) -> tuple[Any, float]:
    """The first candidate without violation, or the one with the least."""
    closest, least = None, np.inf
    for arch, excess in candidates:
        if closest is None or excess < least:
            closest, least = arch, excess
        if least == 0:
            break
    return closest, least


def _short(value: float) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.4g}{unit}"
    return f"{value:.4g}"
