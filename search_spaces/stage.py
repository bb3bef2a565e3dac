"""`Stage`: a run of blocks of one kind and equal width, with its choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from search_spaces.blocks import ACTS
from search_spaces.fields import MOST_CHANNELS, FieldError

BLOCKS = ("basic", "bottleneck", "mbconv")
# as for the channels: beyond these a misplaced zero is likelier than a network
_MOST = {"depths": 256, "widths": MOST_CHANNELS, "kernels": 255, "expands": 1 << 16}


@dataclass(frozen=True)
class Stage:
    """A run of blocks of equal width.

    depths: how many blocks may be active; the first ones are. At least 1.
    widths: output channels to choose from.
    kernels: odd kernel sizes to choose from, for each block on its own.
    expands: ratio of the width inside a block to its output ("bottleneck") or its input ("mbconv"), for each block on
        its own; the product is rounded to a multiple of 8. Empty for "basic".
    block: "basic" (two convolutions, He et al. 2016), "bottleneck" (1x1, kxk, 1x1) or "mbconv" (inverted bottleneck
        with a depthwise convolution, Sandler et al. 2018).
    stride: 1 or 2, of the first block.
    act, se: activation ("relu" or "h_swish") and squeeze-and-excitation of "mbconv" (MobileNetV3, Howard et al. 2019).
    Every list is ascending and without repetition. Raises FieldError, a ValueError, naming the field.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    kernels: tuple[int, ...] = (3,)
    expands: tuple[float, ...] = ()
    block: str = "basic"
    stride: int = 1
    act: str = "relu"
    se: bool = False

    def __post_init__(self) -> None:
        for name in _MOST:
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        self._check_kind()

    def _check_kind(self) -> None:
        valid: dict[str, tuple[object, ...]] = {"block": BLOCKS, "stride": (1, 2), "act": ACTS, "se": (False, True)}
        for name, choices in valid.items():
            value = getattr(self, name)
            if value not in choices or isinstance(value, bool) != isinstance(choices[0], bool):
                raise FieldError((name,), f"is {value!r}; valid: {', '.join(map(str, choices))}")
        if bool(self.expands) != (self.block != "basic"):
            takes = "no ratios" if self.block == "basic" else "at least one ratio"
            raise FieldError(("expands",), f"is {list(self.expands)}, but a {self.block} block takes {takes}")
        for name, default in (("act", "relu"), ("se", False)):
            if self.block != "mbconv" and getattr(self, name) != default:
                raise FieldError((name,), f"is {getattr(self, name)!r}, which is for mbconv, not for {self.block}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; a field that came after the first release is left out at its default."""
        optional = {f.name: f.default for f in fields(self) if f.default is not MISSING and f.name != "kernels"}
        data = {k: v for k, v in asdict(self).items() if k not in optional or v != optional[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


def stage_from_dict(index: int, data: Any) -> Stage:
    """The `index`-th stage. Raises FieldError naming it and the field."""
    place = ("stages", index)
    valid = f"valid: a mapping of {', '.join(f.name for f in fields(Stage))}, of which depths and widths are needed"
    if not isinstance(data, Mapping):
        raise FieldError(place, f"is {data!r}; {valid}")
    if unknown := [str(name) for name in data if name not in {f.name for f in fields(Stage)}]:
        raise FieldError((*place, unknown[0]), f"is no field of a stage; {valid}")
    if missing := [name for name in ("depths", "widths") if name not in data]:
        raise FieldError((*place, missing[0]), f"is missing; {valid}")
    try:
        return Stage(**data)
    except FieldError as error:
        raise error.within(*place) from None


def _checked(name: str, values: Any) -> tuple[Any, ...]:
    """The choices of a field; whole ratios as integers, so that 6 and 6.0 are one gene and one key."""
    numbers = isinstance(values, list | tuple) and all(_is_choice(name, value) for value in values)
    if not numbers or list(values) != sorted(set(values)) or not (values or name == "expands"):
        shown = list(values) if isinstance(values, tuple) else values
        kind = {"kernels": "odd integers", "expands": "positive numbers"}.get(name, "positive integers")
        raise FieldError((name,), f"is {shown!r}; valid: a list of {kind} up to {_MOST[name]}, ascending, none twice")
    return tuple(int(value) if value == int(value) else value for value in values)


def _is_choice(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float if name == "expands" else int):
        return False
    return 0 < value <= _MOST[name] and (name != "kernels" or value % 2 == 1)
