"""Quantities as people write them: 20M, 1.5G, 250k."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from search_spaces.limits import Limit, short

LATENCY = "latency_ms"  # the metric of one device profile; of several, the beginning of their names

_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def parse_quantity(text: str) -> float:
    """`"20M"` → 20e6; units k, M, G and T in either case. Raises ValueError for anything else or a negative value."""
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([kmgt]?)\s*", text, re.IGNORECASE)
    value = float(match[1]) * _UNITS[match[2].lower()] if match else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a quantity; write for example 20M, 1.5G or 250000")
    return value


def parse_limits(texts: Mapping[str, tuple[str | None, str | None]]) -> dict[str, Limit]:
    """Limits by metric from the texts of their lowest and highest value; a metric without either has none.

    Raises ValueError for what is no quantity, and for an accuracy above 1, as from 70 for 70 %.
    """
    for text in texts.get("top1", ()):
        if text is not None and parse_quantity(text) > 1:
            raise ValueError(f"limit on top1 is {text}; valid: 0 to 1, such as 0.7 for 70 %")
    return {
        name: (None if low is None else parse_quantity(low), None if high is None else parse_quantity(high))
        for name, (low, high) in texts.items()
        if (low, high) != (None, None)
    }


def parse_latency_limits(texts: Sequence[str]) -> dict[str, Limit]:
    """`["3"]` → a limit on `latency_ms`, `["gpu=1"]` → one on `latency_ms_gpu`: that of the profile `gpu` of several.

    Raises ValueError for what is no quantity, or named twice.
    """
    limits: dict[str, Limit] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        metric = f"{LATENCY}_{name}" if equals else LATENCY
        if metric in limits:
            raise ValueError(f"there are two limits on {metric}; the second is {value}")
        limits[metric] = parse_quantity(value)
    return limits


def show_quantity(value: float) -> str:
    """20_123_000 → `"20.1M"`, three digits that count."""
    return short(value, 3)


def show_metric(name: str, value: float) -> str:
    """`show_metric("top1", 0.7129)` → `"71.29%"`, `show_metric("macs", 40e6)` → `"40M"`."""
    if name == "hypervolume":
        return f"{value:.3f}"
    if name.startswith(LATENCY):
        return f"{value:.3g}"
    return f"{value:.2%}" if name == "top1" else show_quantity(value)
