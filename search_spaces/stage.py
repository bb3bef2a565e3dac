"""`Stage`: a run of blocks of one kind and equal width, with its choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from search_spaces.blocks import ACTS

BLOCKS = ("basic", "bottleneck", "mbconv")
_LISTS = ("depths", "widths", "kernels", "expands")
_MOST = {
    "depths": 256,
    "widths": 1 << 16,
    "kernels": 255,
    "expands": 1 << 16,
}  # beyond this a misplaced zero is likelier than a network


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
    Every list is ascending and without repetition. Raises ValueError naming the field.
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
        for name in ("depths", "widths", "kernels"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            most = _MOST[name]
            if not values or any(isinstance(v, bool) or not isinstance(v, int) or not 1 <= v <= most for v in values):
                raise ValueError(f"stage {name} must be positive integers of at most {most}, got {values!r}")
            _check_ascending(name, values)
        if even := [k for k in self.kernels if k % 2 == 0]:
            raise ValueError(f"stage kernels must be odd, got {even[0]}")
        object.__setattr__(self, "expands", _ratios(self.expands))
        self._check_kind()

    def _check_kind(self) -> None:
        valid: dict[str, tuple[object, ...]] = {"block": BLOCKS, "stride": (1, 2), "act": ACTS, "se": (False, True)}
        for name, choices in valid.items():
            value = getattr(self, name)
            if value not in choices or isinstance(value, bool) != isinstance(choices[0], bool):
                raise ValueError(f"stage {name} is {value!r}; valid: {', '.join(map(str, choices))}")
        if bool(self.expands) != (self.block != "basic"):
            raise ValueError(f"stage expands is {self.expands!r}: a {self.block} block takes {self._takes_expands()}")
        if self.block != "mbconv" and (self.act != "relu" or self.se):
            raise ValueError(f"stage act and se are for mbconv, not for {self.block}")

    def _takes_expands(self) -> str:
        return "none" if self.block == "basic" else "at least one ratio"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; a field that came after the first release is left out at its default."""
        optional = {f.name: f.default for f in fields(self) if f.default is not MISSING and f.name != "kernels"}
        data = {k: v for k, v in asdict(self).items() if k not in optional or v != optional[k]}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


def stage_from_dict(index: int, data: Any) -> Stage:
    """The `index`-th stage. Raises ValueError naming it and the field."""
    valid = [f.name for f in fields(Stage)]
    if not isinstance(data, Mapping) or set(data) - set(valid) or not {"depths", "widths"} <= set(data):
        raise ValueError(
            f"stages[{index}] must have the fields {', '.join(valid)}, of which depths and widths are needed, "
            f"got {data!r}"
        )
    for name in _LISTS:
        if not isinstance(data.get(name, []), list | tuple):
            raise ValueError(f"stages[{index}].{name} must be a list of numbers, got {data[name]!r}")
    try:
        return Stage(**data)
    except ValueError as error:
        raise ValueError(f"stages[{index}]: {error}") from None


def _ratios(values: Any) -> tuple[float, ...]:
    """`values` checked; whole ratios as integers, so that 6 and 6.0 are one gene and one key."""
    ratios = tuple(values)
    for v in ratios:
        if (
            isinstance(v, bool)
            or not isinstance(v, int | float)
            or not (math.isfinite(v) and 0 < v <= _MOST["expands"])
        ):
            raise ValueError(f"stage expands must be positive numbers of at most {_MOST['expands']}, got {ratios!r}")
    _check_ascending("expands", ratios)
    return tuple(int(v) if v == int(v) else v for v in ratios)


def _check_ascending(name: str, values: tuple[Any, ...]) -> None:
    if list(values) != sorted(set(values)):
        raise ValueError(f"stage {name} must ascend without repetition, got {values!r}")
