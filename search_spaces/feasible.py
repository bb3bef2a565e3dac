"""Architectures under limits: feasible samples in bounded tries, and the nearest reachable value when there are none.

The limits here are on costs that are known before anything is trained or scored, such as `{"macs": 40e6}`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from search_spaces.limits import BatchCost, Limit, limit_text, short, violations
from search_spaces.space import Space

ENUMERABLE = 100_000  # spaces up to this size are listed before anything is said not to exist
_DRAWS = 32  # architectures costed at once: the vectorised cost makes a batch as cheap as a few single calls
_STARTS = 4  # of the samples, the closest to the limits: where descents begin
_NEAR = 0.1  # where the descents end nearer than this, what is around them is looked at
_ROUNDS, _AROUND, _KEPT = 48, 512, 300  # as often, so many architectures, around the closest of all so far
_CHUNK = 4096  # architectures costed at once while listing a space


class InfeasibleLimitsError(ValueError):
    """No architecture of the space was found within the limits.

    limits: as given. nearest: the reachable value of each limited metric, from the closest architecture found.
    alone: the value nearest to each limit when the others are left out, where there are others.
    proven: whether every architecture was looked at, so that there is none.
    """

    def __init__(
        self,
        limits: Mapping[str, Limit],
        nearest: Mapping[str, float],
        alone: Mapping[str, float] | None = None,
        proven: bool = False,
    ) -> None:
        self.limits, self.nearest, self.alone, self.proven = dict(limits), dict(nearest), dict(alone or {}), proven
        parts = [self._part(name, limit) for name, limit in self.limits.items() if name in self.nearest]
        together = " together" if len(parts) > 1 else ""
        found = "no architecture meets" if proven else "no architecture was found that meets"
        super().__init__(f"{found} the limits{together}: {', '.join(parts)}")

    def _part(self, name: str, limit: Limit) -> str:
        nearest = self.nearest[name]
        alone = f", by itself {short(self.alone[name])}" if self.alone.get(name, nearest) != nearest else ""
        return f"{limit_text(name, limit)} (nearest reachable: {short(nearest)}{alone})"


def sample_feasible(
    space: Space[Any],
    rng: np.random.Generator,
    limits: Mapping[str, Limit],
    cost: BatchCost | None,
    max_tries: int = 256,
    exhaustive: bool = True,
) -> Any:
    """A random architecture within `limits`.

    Draws up to `max_tries` samples and takes the first feasible one. Where the feasible region is too small to be
    hit that way, the closest samples descend gene by gene until one is feasible, then the smallest and the largest do,
    and what came closest is mutated; at last a space of at most `ENUMERABLE` architectures is listed, unless
    `exhaustive` is false.
    Limits on metrics that `cost` does not know are ignored here. Raises InfeasibleLimitsError when all that fails,
    which for a space that was listed is a proof.
    """
    if cost is None or not limits:
        return space.sample(rng)
    archs: list[Any] = []
    excesses = np.zeros(0)
    for _ in range(0, max_tries, _DRAWS):
        drawn = [space.sample(rng) for _ in range(_DRAWS)]
        archs, excesses = archs + drawn, np.append(excesses, excess(cost, drawn, limits))
        if excesses.min() == 0:
            return archs[int(excesses.argmin())]
    starts = [*(archs[i] for i in np.argsort(excesses, kind="stable")[:_STARTS]), space.smallest(), space.largest()]
    candidates = _approach(space, starts, limits, cost, rng)
    listed = exhaustive and space.size() <= ENUMERABLE
    if listed:
        candidates = itertools.chain(candidates, _listed(space, limits, cost))
    arch, least = _closest(candidates)
    if least > 0:
        nearest = {name: float(value[0]) for name, value in cost([arch]).items()}
        raise InfeasibleLimitsError(limits, nearest, proven=listed)
    return arch


def preflight(space: Space[Any], limits: Mapping[str, Limit], cost: BatchCost | None) -> None:
    """Raises InfeasibleLimitsError, with the nearest values found, when no architecture is found within the limits.

    In a space of at most `ENUMERABLE` architectures there then is none; in a larger one narrow limits may hide some.
    """
    if cost is None or not limits:
        return
    if excess(cost, [space.smallest(), space.largest()], limits).min() == 0:
        return
    try:
        sample_feasible(space, np.random.default_rng(0), limits, cost, max_tries=_DRAWS, exhaustive=False)
    except InfeasibleLimitsError as error:
        if space.size() <= ENUMERABLE:
            _preflight_listed(space, limits, cost)
            return
        if len(limits) == 1:
            raise
        alone: dict[str, float] = {}
        for name, limit in limits.items():
            try:
                preflight(space, {name: limit}, cost)
            except InfeasibleLimitsError as single:
                alone |= {name: single.nearest[name]}
        raise InfeasibleLimitsError(limits, error.nearest, alone) from None


def _preflight_listed(space: Space[Any], limits: Mapping[str, Limit], cost: BatchCost) -> None:
    """`preflight` by every architecture there is, each of which is costed once for all limits."""
    costs = [cost(archs) for archs in chunks(space)]
    known = {name: np.concatenate([chunk[name] for chunk in costs]) for name in costs[0]}
    beyond = violations(known, limits)
    closest = int(beyond.sum(axis=1).argmin())
    if not beyond[closest].any():
        return
    nearest = {name: float(values[closest]) for name, values in known.items()}
    alone = {name: float(known[name][column.argmin()]) for name, column in zip(limits, beyond.T) if column.min() > 0}
    raise InfeasibleLimitsError(limits, nearest, alone if len(limits) > 1 else None, proven=True) from None


def excess(cost: BatchCost, archs: Sequence[Any], limits: Mapping[str, Limit]) -> np.ndarray:
    """Sum of the relative excesses over the limits that `cost` knows, float64 [len(archs)]; 0 is feasible."""
    total: np.ndarray = violations(cost(archs), limits).sum(axis=1)
    return total


def descend(
    space: Space[Any], start: Any, limits: Mapping[str, Limit], cost: BatchCost, rng: np.random.Generator
) -> tuple[Any, float]:
    """Changes genes while that lowers the violation; returns the architecture and what is left of it.

    Each round costs every change of one gene at once, then the improving ones together, in random order one more at
    a time, and moves to the first that is feasible or to the best. Each round must improve.
    """
    arch, least = start, float(excess(cost, [start], limits)[0])
    while least > 0:
        genes = list(space.encode(arch))
        changes = [
            (i, choice)
            for i, gene in enumerate(space.genes)
            for choice in range(len(gene.choices))
            if choice != genes[i]
        ]
        if not changes:
            break
        single = excess(cost, [space.decode([*genes[:i], c, *genes[i + 1 :]]) for i, c in changes], limits)
        better: dict[int, int] = {}
        for n in np.argsort(single, kind="stable"):
            if single[n] < least:
                better.setdefault(*changes[n])
        together = []
        for i in rng.permutation(list(better)):
            genes[i] = better[i]
            together.append(space.decode(genes))
        if not together:
            break
        left = excess(cost, together, limits)
        arch, least = together[int(left.argmin())], float(left.min())
    return arch, least


def _approach(
    space: Space[Any], starts: Sequence[Any], limits: Mapping[str, Limit], cost: BatchCost, rng: np.random.Generator
) -> Iterator[tuple[Any, float]]:
    """Descents from `starts`; then what is around the closest: a narrow band may lie two genes away from them all."""
    nearest: list[tuple[Any, float]] = []
    for start in starts:
        nearest.append(descend(space, start, limits, cost, rng))
        yield nearest[-1]
    seen: set[tuple[int, ...]] = set()
    for _ in range(_ROUNDS if min(left for _, left in nearest) < _NEAR else 0):
        if not (around := _around(space, [arch for arch, _ in nearest], seen, rng)):
            break
        nearest += zip(around, excess(cost, around, limits).tolist())
        nearest = sorted(nearest, key=lambda pair: pair[1])[:_KEPT]
        yield nearest[0]


def _around(space: Space[Any], archs: Sequence[Any], seen: set[tuple[int, ...]], rng: np.random.Generator) -> list[Any]:
    """Up to `_AROUND` of the architectures that differ from one of `archs` in up to three genes; none is `seen`."""
    encoded = np.array([space.encode(arch) for arch in archs])[rng.integers(len(archs), size=_AROUND)]
    choices = np.array([len(gene.choices) for gene in space.genes])
    for number in range(3):
        rows = np.arange(_AROUND // (1 + number // 2))  # half of them change two genes only
        changed = rng.integers(len(choices), size=len(rows))
        encoded[rows, changed] = rng.integers(choices[changed])
    found = set(map(tuple, encoded.tolist())) - seen
    seen |= found
    return [space.decode(list(genes)) for genes in sorted(found)]


def chunks(space: Space[Any]) -> Iterator[list[Any]]:
    """Every architecture of the space, in lists that are costed at once."""
    every = space.enumerate()
    while chunk := list(itertools.islice(every, _CHUNK)):
        yield chunk


def _listed(space: Space[Any], limits: Mapping[str, Limit], cost: BatchCost) -> Iterator[tuple[Any, float]]:
    """The closest architecture of each chunk of the space, and its violation."""
    for archs in chunks(space):
        excesses = excess(cost, archs, limits)
        yield archs[int(excesses.argmin())], float(excesses.min())


def _closest(candidates: Iterable[tuple[Any, float]]) -> tuple[Any, float]:
    """The first candidate without violation, or the one with the least."""
    closest, least = None, np.inf
    for arch, left in candidates:
        if closest is None or left < least:
            closest, least = arch, left
        if least == 0:
            break
    return closest, least
