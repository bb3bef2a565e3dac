"""Finding a network space: by catalog name, in a YAML file, from a function, or as an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces import catalog, cost
from search_spaces.fields import FieldError
from search_spaces.network import NetworkSpace
from supernet.callables import USAGE, absolute, call, is_function, load_function

if TYPE_CHECKING:
    from nas.space_file import SpaceFile


@dataclass(frozen=True)
class NamedSpace:
    """A space of the catalog, made for whatever the data set is."""

    name: str
    image_size: int | None = None

    def build(self, in_channels: int, image_size: int, num_classes: int) -> NetworkSpace:
        """The space for images of this shape and this many classes."""
        return catalog.get(self.name, in_channels=in_channels, image_size=image_size, num_classes=num_classes)


@dataclass(frozen=True)
class GivenSpace:
    """A space written by the user; what it says of the data must fit the data. file: where it stands, if in one."""

    fields: Mapping[str, Any]
    file: SpaceFile | None = field(default=None, compare=False)

    @property
    def image_size(self) -> int | None:
        """Pixels, where the space fixes them: its own, or the largest of its resolutions."""
        return self.fields.get("image_size") or max(self.fields.get("resolutions") or (0,)) or None

    def build(self, in_channels: int, image_size: int, num_classes: int) -> NetworkSpace:
        """The space for this data. Raises ValueError naming a field that says otherwise, or does not allow for it."""
        data = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
        try:
            for name, value in data.items():
                if self.fields.get(name, value) != value:
                    raise FieldError((name,), f"is {self.fields[name]}, but the data set has {value}")
            return NetworkSpace.from_dict({**self.fields, **data})
        except FieldError as error:
            raise (self.file.error(error) if self.file else error) from None


@dataclass(frozen=True)
class FunctionSpace:
    """A space that a function of the user's own makes for the data, as those of the catalog do.

    function: takes `in_channels`, `image_size` and `num_classes`. spec: how the user named it.
    """

    spec: str
    function: Callable[..., Any]
    image_size: int | None = None

    def build(self, in_channels: int, image_size: int, num_classes: int) -> NetworkSpace:
        """The space for this data. Raises ValueError where the function fails or returns anything else."""
        data = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
        space = call(self.spec, self.function, **data)
        if not isinstance(space, NetworkSpace):
            raise ValueError(
                f"{self.spec} returned a {type(space).__name__}; valid: a search_spaces.network.NetworkSpace"
            )
        for name, value in data.items():
            if (found := getattr(space, name)) != value:
                raise ValueError(f"{self.spec} returned a space of {name} {found}, but was called with {value}")
        return space


Source = NamedSpace | GivenSpace | FunctionSpace
SpaceSource = Source | NetworkSpace


def resolve(space: str | SpaceSource) -> Source:
    """What `space` means. Raises ValueError listing the catalog for an unknown name, or naming file, line and field."""
    if isinstance(space, Source):
        return space
    if isinstance(space, NetworkSpace):
        return GivenSpace(space.to_dict())
    if space in catalog.SPACES:
        return NamedSpace(space)
    if space.endswith((".yaml", ".yml", ".json")):
        from nas.space_file import read_space

        return GivenSpace(*read_space(Path(space)))
    if is_function(space):
        return FunctionSpace(space, load_function(absolute(space)))
    raise ValueError(
        f"unknown space {space!r}; valid: {', '.join(catalog.SPACES)}, the path of a .yaml file, or {USAGE}"
    )


def own_space(space: str) -> NetworkSpace:
    """A space by name or file at its own sizes. Raises ValueError where they are left to the data."""
    source = resolve(space)
    if isinstance(source, FunctionSpace):
        raise ValueError(f"the space {space} has no sizes of its own: it is made for a data set; give a run of it")
    if isinstance(source, NamedSpace):
        return catalog.get(source.name)
    return NetworkSpace.from_dict(source.fields)


def describe_catalog() -> list[dict[str, Any]]:
    """Name, exact size, and MACs of the smallest, the largest and the costliest network of every space."""
    rows = []
    for name in catalog.SPACES:
        space = catalog.get(name)
        archs = [space.smallest(), space.largest(), space.most_macs()]
        least, largest, most = (int(value) for value in cost.macs(space, archs))
        rows.append({
            "name": name,
            "size": space.size(),
            "macs_min": least,
            "macs_max": most,
            "macs_largest": largest,
            "in_channels": space.in_channels,
            "image_size": space.image_size,
        })  # fmt: skip
    return rows
