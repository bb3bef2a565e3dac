"""In what two network spaces differ."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from search_spaces.network import NetworkSpace


def differences(a: NetworkSpace, b: NetworkSpace) -> list[tuple[str, Any, Any]]:
    """(field, value in `a`, value in `b`) of every field that differs, one of a stage as `stages[1].widths`."""
    pairs = [(f.name, getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name != "stages"]
    if len(a.stages) != len(b.stages):
        pairs.append(("number of stages", len(a.stages), len(b.stages)))
    for index, (ours, theirs) in enumerate(zip(a.stages, b.stages)):
        pairs += [(f"stages[{index}].{f.name}", getattr(ours, f.name), getattr(theirs, f.name)) for f in fields(ours)]
    return [(name, x, y) for name, x, y in pairs if x != y]
