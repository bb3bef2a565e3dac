"""Finding a network space: by catalog name, in a YAML file, or as an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces import catalog, cost
from search_spaces.network import NetworkSpace

_DATA_FIELDS = ("in_channels", "image_size", "num_classes")


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
    """A space written by the user; what it says of the data must fit the data."""

    fields: Mapping[str, Any]

    @property
    def image_size(self) -> int | None:
        """Pixels, where the space fixes them: its own, or the largest of its resolutions."""
        return self.fields.get("image_size") or max(self.fields.get("resolutions") or (0,)) or None

    def build(self, in_channels: int, image_size: int, num_classes: int) -> NetworkSpace:
        """The space for this data. Raises ValueError naming a field that says otherwise."""
        data = {"in_channels": in_channels, "image_size": image_size, "num_classes": num_classes}
        for name, value in data.items():
            if self.fields.get(name, value) != value:
                raise ValueError(f"the space says {name} {self.fields[name]}, but the data set has {value}")
        return NetworkSpace.from_dict({**self.fields, **data})


SpaceSource = NamedSpace | GivenSpace | NetworkSpace


def resolve(space: str | SpaceSource) -> NamedSpace | GivenSpace:
    """What `space` means. Raises ValueError listing the catalog for an unknown name, or naming file and field."""
    if isinstance(space, NamedSpace | GivenSpace):
        return space
    if isinstance(space, NetworkSpace):
        return GivenSpace(space.to_dict())
    if space in catalog.SPACES:
        return NamedSpace(space)
    if space.endswith((".yaml", ".yml", ".json")):
        return GivenSpace(_read(Path(space)))
    raise ValueError(f"unknown space {space!r}; valid: {', '.join(catalog.SPACES)}, or the path of a .yaml file")


def _read(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        # any data shape will do here: this checks the choices, and that no field is misspelt
        anything = isinstance(fields, Mapping) and not fields.get("resolutions")
        shape = {"image_size": 1 << 12, **fields} if anything else fields
        NetworkSpace.from_dict(shape)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the space {path}: {error}") from None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from None
    return fields


def own_space(space: str) -> NetworkSpace:
    """A space by name or file at its own sizes. Raises ValueError where a file leaves them to the data."""
    source = resolve(space)
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
