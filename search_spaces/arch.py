"""Architectures as frozen plain data: `Arch` for networks, `ChoiceArch` for named choices without a network.

Both have a `key`: a short text that is equal exactly when two canonical architectures are equal. It serves as
cache key, deduplication key, id in the store and file name, so it holds no character a file system dislikes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, ValuesView
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable
from urllib.parse import quote

Scalar = str | int | float | bool | None


@runtime_checkable
class ArchLike(Protocol):
    """What the search needs of an architecture, whatever its space: an identity, and a form that JSON can hold."""

    @property
    def key(self) -> str:
        """Text that identifies a canonical architecture within its space."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, from which the space's `arch_from_dict` rebuilds the architecture."""
        ...


@dataclass(frozen=True)
class Arch:
    """One network of a `NetworkSpace`. Build one through its space, which makes it canonical.

    depth: active blocks of each stage.
    width: channels of each stage.
    kernel: kernel size of each block slot, inactive slots included (they hold the space's filler).
    pool: the block slots that a 2x2 max-pool precedes, ascending.
    resolution: input height and width in pixels.
    expand: expand ratio of each block slot, empty where the space has none.
    """

    depth: tuple[int, ...]
    width: tuple[int, ...]
    kernel: tuple[int, ...]
    pool: tuple[int, ...]
    resolution: int
    expand: tuple[float, ...] = field(default=())

    @cached_property
    def key(self) -> str:
        """For example `d1-2-1_w16-32-64_k3-5-3-7_p1-2_r32`."""
        parts = {"d": self.depth, "w": self.width, "k": self.kernel, "e": self.expand, "p": self.pool}
        text = "_".join(name + "-".join(map(str, genes)) for name, genes in parts.items() if genes)
        return f"{text}_r{self.resolution}"

    def to_dict(self) -> dict[str, Any]:
        """Lists and numbers; an empty `expand` or `pool` is left out."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v != ()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Arch:
        """The reverse of `to_dict`. Raises ValueError that names a missing, unknown or ill-typed gene."""
        names = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping):
            raise ValueError(f"an architecture is a mapping of genes, not {data!r}; genes: {', '.join(sorted(names))}")
        if unknown := sorted(set(data) - names):
            raise ValueError(f"unknown gene {unknown[0]!r}; valid genes: {', '.join(sorted(names))}")
        if missing := sorted(names - set(data) - {"expand", "pool"}):
            raise ValueError(f"gene {missing[0]!r} is missing; valid genes: {', '.join(sorted(names))}")
        values: dict[str, Any] = {}
        for name, value in data.items():
            items = [value] if name == "resolution" else value
            number = (int, float) if name == "expand" else int
            if not isinstance(items, list | tuple) or any(
                isinstance(i, bool) or not isinstance(i, number) for i in items
            ):
                listed = "a list of numbers" if name == "expand" else "a list of integers"
                shape = "an integer" if name == "resolution" else listed
                raise ValueError(f"gene {name!r} must be {shape}, got {value!r}")
            values[name] = value if name == "resolution" else tuple(value)
        return cls(**{"pool": (), **values})


@dataclass(frozen=True)
class ChoiceArch(Mapping[str, Scalar]):
    """One pick from a `ChoiceSpace`; reads as a mapping: `arch["depth"]`."""

    items_: tuple[tuple[str, Scalar], ...]

    @cached_property
    def _mapping(self) -> dict[str, Scalar]:
        return dict(self.items_)

    @cached_property
    def key(self) -> str:
        """For example `depth=2,stem=conv3`; names and values are percent-encoded where a file name needs it."""
        return ",".join(_key_part(name, value) for name, value in self.items_)

    def to_dict(self) -> dict[str, Any]:
        """Name to chosen value."""
        return dict(self.items_)

    def __getitem__(self, name: str) -> Scalar:
        return self._mapping[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping)

    def __len__(self) -> int:
        return len(self.items_)

    def values(self) -> ValuesView[Scalar]:
        """The chosen values, in the order of the genes."""
        return self._mapping.values()  # Mapping's own looks each of them up

    def __hash__(self) -> int:
        return hash(self.items_)


@lru_cache(maxsize=1 << 16, typed=True)  # typed: 1 and True are different choices
def _key_part(name: str, value: Scalar) -> str:
    return f"{quote(name, safe='')}={quote(str(value), safe='+')}"
