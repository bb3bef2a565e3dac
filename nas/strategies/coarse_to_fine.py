"""Coarse-to-fine selection: a coarse grid first, then mutants of its best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nas.problem import Problem
from nas.strategies.evolution import EvolutionStrategy
from search_spaces.arch import ArchLike
from search_spaces.space import Space

_LEVELS = (0.0, 0.5, 1.0)  # choices of a kind of gene that the grid visits: its ends and its middle
_DRAWS = 500  # points drawn of the grid


class CoarseToFineStrategy(EvolutionStrategy):
    """BigNAS' search (Yu et al. 2020): what all genes of a kind are set to alike, then one gene by one.

    Genes whose names differ in their digits alone (`depth0`, `depth1`) are one kind. Up to `coarse` trials are points
    of the grid over kinds, in random order; from then on mutants of the `population` best are tried.
    """

    def __init__(self, problem: Problem, seed: int, coarse: int = 40, population: int = 10) -> None:
        super().__init__(problem, seed, warmup=coarse, population=population)
        self._grid = self._feasible(coarse_grid(problem.space, seed))[:coarse]

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """The next points of the grid, then mutants."""
        yield from self._grid[number:]
        while True:
            yield self.problem.space.mutate(self._parent(rng), rng) if self._members else self.problem.space.sample(rng)


def kinds(space: Space[Any]) -> list[str]:
    """Of every gene its name without digits: `depth` of `depth0` and `depth1`."""
    return [gene.name.rstrip("0123456789") for gene in space.genes]


def coarse_grid(space: Space[Any], seed: int) -> list[ArchLike]:
    """Points of the grid over kinds of gene in random order; as many as are worth looking at where it is large."""
    rng = np.random.default_rng(seed)
    points: dict[str, ArchLike] = {}
    for _ in range(_DRAWS):
        level = {kind: rng.choice(_LEVELS) for kind in dict.fromkeys(kinds(space))}
        genes = zip(space.genes, kinds(space))
        arch = space.decode([round(level[kind] * (len(gene.choices) - 1)) for gene, kind in genes])
        points.setdefault(arch.key, arch)
    return list(points.values())
