"""Limits on metrics: an upper one, a lower one, or both, and by how much a value is beyond them.

A number is an upper limit; a pair is (lowest, highest), with None where that end is open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

Limit = float | tuple[float | None, float | None]

BatchCost = Callable[[Sequence[Any]], dict[str, np.ndarray]]
"""Costs of many architectures: one array [len(archs)] per metric."""


def checked_limit(name: str, limit: Any) -> Limit:
    """`limit` with floats, an open lowest end left out. Raises ValueError naming what is wrong with it."""
    if not isinstance(limit, tuple | list):
        return _number(name, limit)
    if len(limit) != 2 or tuple(limit) == (None, None):
        raise ValueError(f"limit {name!r} is {limit!r}; a pair is (lowest, highest), and one of them may be None")
    low, high = (None if end is None else _number(name, end) for end in limit)
    if low is None:
        assert high is not None
        return high
    if high is not None and low > high:
        raise ValueError(f"limit {name!r} contradicts itself: at least {_in_full(low)} and at most {_in_full(high)}")
    return (low, high)


def bounds(limit: Limit) -> tuple[float, float]:
    """Lowest and highest value allowed, infinite where an end is open."""
    low, high = limit if isinstance(limit, tuple) else (None, limit)
    return -math.inf if low is None else low, math.inf if high is None else high


def relative_excess(value: Any, limit: Limit) -> Any:
    """How far `value`, a number or an array, is beyond the limit, relative to it (to 1 for a limit of 0).

    At most 0 is within; within a pair it is the negative distance from the nearer end.
    """
    low, high = limit if isinstance(limit, tuple) else (None, limit)
    over = None if high is None else (value - high) / (abs(high) or 1.0)
    under = None if low is None else (low - value) / (abs(low) or 1.0)
    if over is None or under is None:
        return over if under is None else under
    return np.maximum(over, under)


def violations(known: Mapping[str, np.ndarray], limits: Mapping[str, Limit]) -> np.ndarray:
    """Relative excesses over each limit, 0 where it is met or its metric is not `known`: float64 [archs, limits]."""
    n = len(next(iter(known.values()), ()))
    columns = [
        np.maximum(0.0, relative_excess(np.asarray(known[name], dtype=float), limit)) if name in known else np.zeros(n)
        for name, limit in limits.items()
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((n, 0))


def limit_text(name: str, limit: Limit) -> str:
    """For example `macs ≤ 40M` or `10M ≤ macs ≤ 40M`, with all digits, so that no two limits look the same."""
    low, high = limit if isinstance(limit, tuple) else (None, limit)
    lowest = "" if low is None else _in_full(low)
    if high is None:
        return f"{name} ≥ {lowest}"
    return f"{lowest} ≤ {name} ≤ {_in_full(high)}".removeprefix(" ≤ ")


def limits_text(limits: Mapping[str, Limit]) -> str:
    """For example `macs ≤ 40M, params ≤ 200k`; empty without any."""
    return ", ".join(limit_text(name, limit) for name, limit in limits.items())


def short(value: float, digits: int = 4) -> str:
    """With a unit, and as many `digits` as count, below 1,000 at least four: 20_000_000 → `"20M"`."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{value / scale:.{digits}g}{unit}"
    return f"{value:.{max(digits, 4)}g}"


def _in_full(value: float) -> str:
    return short(value, 15)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"limit {name!r} is {value!r}; it must be a finite number")
    return float(value)
