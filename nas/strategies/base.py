"""What every strategy shares: its randomness, and the refusal of duplicates and of architectures beyond the limits."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress

import numpy as np

from nas.problem import Problem
from nas.trial import Trial
from search_spaces.arch import ArchLike
from search_spaces.feasible import ENUMERABLE, InfeasibleLimitsError, chunks, descend, excess, sample_feasible

_BATCHES = (2, 8, 32)  # candidates costed at once: the first is mostly enough, the last makes a hard search cheap
_REPAIRS = 4  # then: as many of the best candidates are changed until they are within the limits
_SAMPLES = 4  # then: independent feasible samples
_WALK = (64, 16)  # then, where the space is too large to list: this many steps of this many mutants


class Strategy(ABC):
    """Proposes one architecture at a time.

    A proposal is a pure function of (seed, trial number, the trials told so far, the keys proposed before). Whatever a
    strategy remembers is a fold over `tell`, so replaying the trials of a store rebuilds it, and all its randomness
    comes from the generator that `candidates` is given.

    problem: what is searched for. seed: not negative.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.problem, self.seed = problem, seed
        self._remaining: Iterator[ArchLike] | None = None

    @abstractmethod
    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        """Endless proposals for trial `number`, best first; `ask` takes the first that is new and within the limits."""

    def tell(self, trial: Trial) -> None:  # noqa: B027  most strategies learn, some need not
        """Takes note of a finished trial. Called once for each trial, failed ones included, in order of number."""

    def report(self) -> dict[str, float]:
        """Figures on the strategy itself, after a search, such as how well its model predicts; none by default."""
        return {}

    def ask(self, number: int, taken: Container[str]) -> ArchLike | None:
        """The architecture for trial `number`, within the limits and its key not in `taken`.

        None when the space is exhausted: certain where it can be enumerated, otherwise after a bounded search.
        `taken` holds the keys of all earlier proposals, so it only grows from call to call.
        """
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, number]))
        endless = self.candidates(number, rng)
        seen: list[ArchLike] = []
        for size in _BATCHES:
            batch = list(itertools.islice(endless, size))
            found = self._first(batch, taken)
            if found is not None:
                return found
            seen += batch
        for arch in seen[:_REPAIRS]:
            found = self._first([self.repaired(arch, rng)], taken)
            if found is not None:
                return found
        for _ in range(_SAMPLES):
            with suppress(InfeasibleLimitsError):  # not found is not proven: `_unexplored` may still find some
                arch = self._sample(rng)
                if arch.key not in taken:
                    return arch
        return self._unexplored(rng, taken)

    def repaired(self, arch: ArchLike, rng: np.random.Generator) -> ArchLike:
        """`arch`, changed until it is within the limits, or as near to them as that leads."""
        problem = self.problem
        if problem.cost is None or not problem.limits:
            return arch
        nearest: ArchLike = descend(problem.space, arch, problem.limits, problem.cost, rng)[0]
        return nearest

    def _first(self, archs: Sequence[ArchLike], taken: Container[str]) -> ArchLike | None:
        return next((arch for arch in self._feasible(archs) if arch.key not in taken), None)

    def _feasible(self, archs: Sequence[ArchLike]) -> list[ArchLike]:
        cost, limits = self.problem.cost, self.problem.limits
        if cost is None or not limits or not archs:
            return list(archs)
        return [arch for arch, left in zip(archs, excess(cost, archs, limits)) if left == 0]

    def _sample(self, rng: np.random.Generator) -> ArchLike:
        problem = self.problem  # which `_unexplored` lists once, rather than every trial anew
        found: ArchLike = sample_feasible(problem.space, rng, problem.limits, problem.cost, exhaustive=False)
        return found

    def _unexplored(self, rng: np.random.Generator, taken: Container[str]) -> ArchLike | None:
        if self.problem.space.size() > ENUMERABLE:
            return self._walk(rng, taken)
        if self._remaining is None:
            self._remaining = self._enumerate()
        # What this skips is taken for good, so the iterator never has to look at it again.
        return next((arch for arch in self._remaining if arch.key not in taken), None)

    def _walk(self, rng: np.random.Generator, taken: Container[str]) -> ArchLike | None:
        steps, width = _WALK
        try:
            arch = self._sample(rng)
        except InfeasibleLimitsError:
            return None
        for _ in range(steps):
            mutants = self._feasible([self.problem.space.mutate(arch, rng) for _ in range(width)])
            found = self._first(mutants, taken)
            if found is not None:
                return found
            arch = mutants[-1] if mutants else arch
        return None

    def _enumerate(self) -> Iterator[ArchLike]:
        """Every feasible architecture of the space, in an order that the seed alone decides."""
        space = self.problem.space
        genes: list[tuple[int, ...]] = []
        for chunk in chunks(space):
            genes += [space.encode(arch) for arch in self._feasible(chunk)]
        table = np.array(genes, dtype=np.int32)  # as numbers, because 100,000 architectures take 100 MB
        for row in np.random.default_rng(self.seed).permutation(len(table)):
            yield space.decode(table[row].tolist())
