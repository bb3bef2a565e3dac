"""The interface of a search space, and `ChoiceSpace`: named choices with no network behind them.

A space is a list of genes, each a name with its choices. `encode` and `decode` translate between an architecture
and one choice index per gene; the genetic operators work on those indices and `decode` makes their result canonical.
Searchers use what `Space` offers and nothing else, so every searcher works on every space.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from search_spaces.arch import ArchLike, ChoiceArch, Scalar

A = TypeVar("A", bound=ArchLike)


@dataclass(frozen=True)
class Gene:
    """One decision. `ordered` says that neighbouring choices are alike, so that mutation may take small steps."""

    name: str
    choices: tuple[Scalar, ...]
    ordered: bool = False


class Space(ABC, Generic[A]):
    """What can be chosen. All randomness comes from the generator that is passed in."""

    name: str

    @property
    @abstractmethod
    def genes(self) -> tuple[Gene, ...]:
        """The decisions, in the order that `encode` and `decode` use."""

    @abstractmethod
    def encode(self, arch: A) -> tuple[int, ...]:
        """Index of the choice taken for each gene."""

    @abstractmethod
    def decode(self, indices: Sequence[int]) -> A:
        """The canonical architecture for one choice index per gene; `decode(encode(a)) == a`."""

    @abstractmethod
    def validate(self, arch: A) -> None:
        """Raises ValueError naming the gene, its value and the valid ones, when `arch` is not canonical here."""

    @abstractmethod
    def arch_from_dict(self, data: Mapping[str, Any]) -> A:
        """The canonical architecture from its JSON form; raises ValueError as `validate` does."""

    @abstractmethod
    def smallest(self) -> A:
        """The cheapest architecture (of a `ChoiceSpace`: the first choice of every gene)."""

    @abstractmethod
    def largest(self) -> A:
        """The most capable architecture (of a `ChoiceSpace`: the last choice of every gene)."""

    @abstractmethod
    def size(self) -> int:
        """Number of canonical architectures, exactly."""

    @abstractmethod
    def enumerate(self) -> Iterator[A]:
        """Every canonical architecture once, lazily, in a fixed order."""

    @abstractmethod
    def to_vector(self, arch: A) -> np.ndarray:
        """Fixed-length float64 features in [0, 1], for predictors."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types that describe the space; two spaces are the same exactly when these are equal."""

    def sample(self, rng: np.random.Generator) -> A:
        """One architecture, every gene drawn uniformly."""
        return self.decode([int(u * len(g.choices)) for u, g in zip(rng.random(len(self.genes)), self.genes)])

    def mutate(self, arch: A, rng: np.random.Generator) -> A:
        """A neighbour of `arch`: each gene changes with probability 1/genes, at least one of them.

        An ordered gene moves by one step half of the time. The result differs from `arch` unless the space holds
        one architecture: a change without effect (a gene of an inactive block) is drawn again, a bounded number of
        times, and then replaced by a sample.
        """
        parent = self.encode(arch)
        free = [i for i, gene in enumerate(self.genes) if len(gene.choices) > 1]
        for _ in range(32 if free else 0):
            child = list(parent)
            draws = rng.random(len(free)).tolist()
            hits = [i for i, u in zip(free, draws) if u < 1 / len(free)] or [free[int(rng.integers(len(free)))]]
            for i in hits:
                child[i] = _other_choice(parent[i], self.genes[i], rng)
            mutant = self.decode(child)
            if mutant != arch:
                return mutant
        return self.sample(rng)

    def crossover(self, a: A, b: A, rng: np.random.Generator) -> A:
        """A child that takes each gene from either parent with equal chance."""
        picks = zip(rng.random(len(self.genes)), self.encode(a), self.encode(b), strict=True)
        return self.decode([x if u < 0.5 else y for u, x, y in picks])


def _other_choice(current: int, gene: Gene, rng: np.random.Generator) -> int:
    n = len(gene.choices)
    if gene.ordered and rng.random() < 0.5:
        steps = [i for i in (current - 1, current + 1) if 0 <= i < n]
        return steps[int(rng.integers(len(steps)))]
    return (current + 1 + int(rng.integers(n - 1))) % n


class ChoiceSpace(Space[ChoiceArch]):
    """Named choices, for tables and for users' own evaluators.

    >>> space = ChoiceSpace({"stem": ("conv3", "conv5"), "depth": (1, 2, 3)})
    >>> space.smallest()["stem"], space.size()
    ('conv3', 6)

    choices: for every gene at least one scalar (text, number, bool or None); numeric genes count as ordered.
    Raises ValueError for an empty space, an empty gene, a choice that is no finite scalar, or two choices that are
    equal (1, 1.0 and True are) or read alike (1 and "1").
    """

    def __init__(self, choices: Mapping[str, Sequence[Scalar]], name: str = "choices") -> None:
        if not choices:
            raise ValueError("a ChoiceSpace needs at least one gene")
        self.name = name
        self._genes = tuple(_choice_gene(gene, values) for gene, values in choices.items())
        self._known = [{(type(c) is bool, c): i for i, c in enumerate(gene.choices)} for gene in self._genes]

    @property
    def genes(self) -> tuple[Gene, ...]:
        """One gene per named choice, in the order given."""
        return self._genes

    def encode(self, arch: ChoiceArch) -> tuple[int, ...]:
        """Index of each chosen value."""
        try:  # a search encodes each architecture several times
            return tuple([known[type(c) is bool, c] for known, c in zip(self._known, arch.values(), strict=True)])
        except (KeyError, TypeError, ValueError):
            return tuple(_index(gene, arch[gene.name]) for gene in self._genes)

    def decode(self, indices: Sequence[int]) -> ChoiceArch:
        """The architecture of these choices; every combination is canonical."""
        return ChoiceArch(tuple((g.name, g.choices[i]) for g, i in zip(self._genes, indices, strict=True)))

    def validate(self, arch: ChoiceArch) -> None:
        """Raises ValueError naming a gene that is missing or unknown, or whose value is not one of its choices."""
        names = [gene.name for gene in self._genes]
        if list(arch) != names:
            odd = sorted(set(arch) ^ set(names)) or list(arch)
            raise ValueError(f"gene {odd[0]!r} is unknown, missing or out of order; genes: {', '.join(names)}")
        self.encode(arch)

    def arch_from_dict(self, data: Mapping[str, Any]) -> ChoiceArch:
        """The architecture that takes these values, given in any order."""
        names = [gene.name for gene in self._genes]
        if odd := sorted(set(data) ^ set(names)):
            raise ValueError(f"gene {odd[0]!r} is unknown or missing; genes: {', '.join(names)}")
        return self.decode([_index(gene, data[gene.name]) for gene in self._genes])

    def smallest(self) -> ChoiceArch:
        """The first choice of every gene."""
        return self.decode([0] * len(self._genes))

    def largest(self) -> ChoiceArch:
        """The last choice of every gene."""
        return self.decode([len(gene.choices) - 1 for gene in self._genes])

    def size(self) -> int:
        """Product of the numbers of choices."""
        return math.prod(len(gene.choices) for gene in self._genes)

    def enumerate(self) -> Iterator[ChoiceArch]:
        """In the order of an odometer, the last gene turning fastest."""
        return (self.decode(indices) for indices in np.ndindex(*(len(gene.choices) for gene in self._genes)))

    def to_vector(self, arch: ChoiceArch) -> np.ndarray:
        """Ordered genes as their rank in [0, 1], the others one-hot."""
        parts: list[np.ndarray] = []
        for gene, i in zip(self._genes, self.encode(arch)):
            n = len(gene.choices)
            parts.append(np.array([i / max(n - 1, 1)]) if gene.ordered else np.eye(n)[i])
        return np.concatenate(parts)

    def to_dict(self) -> dict[str, Any]:
        """Name and choices."""
        return {"name": self.name, "choices": {gene.name: list(gene.choices) for gene in self._genes}}


def _choice_gene(name: str, values: Sequence[Scalar]) -> Gene:
    if not isinstance(name, str) or not name:
        raise ValueError(f"gene names must be texts and not empty, got {name!r}")
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"gene {name!r}: choices must be a sequence such as a tuple, got {values!r}")
    choices = tuple(v.item() if isinstance(v, np.generic) else v for v in values)
    for value in choices:
        if not isinstance(value, str | int | float | bool | None):
            raise ValueError(f"gene {name!r}: choice {value!r} is not a text, number, bool or None")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"gene {name!r}: choice {value!r} is not finite")
    if not choices or len(set(choices)) < len(choices) or len(set(map(str, choices))) < len(choices):
        raise ValueError(f"gene {name!r} needs at least one choice and no two alike, got {choices!r}")
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in choices)
    return Gene(name, choices, ordered=numeric and list(choices) == sorted(choices))  # type: ignore[type-var]


def _index(gene: Gene, value: Scalar) -> int:
    for i, choice in enumerate(gene.choices):
        if choice == value and isinstance(choice, bool) == isinstance(value, bool):
            return i
    raise ValueError(f"gene {gene.name!r} is {value!r}; valid: {', '.join(map(repr, gene.choices))}")
