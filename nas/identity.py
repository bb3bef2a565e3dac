"""What makes a study the one it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from search_spaces.limits import Limit


@dataclass(frozen=True)
class Identity:
    """What makes a study the one it is; two searches with the same identity are the same search.

    space: `Space.to_dict()`. context: what else the results depend on, such as the checkpoint's hash.
    """

    study_name: str
    space: Mapping[str, Any]
    objectives: Mapping[str, str]
    limits: Mapping[str, Limit]
    strategy: str
    seed: int
    lookahead: int
    context: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("space", "objectives", "limits", "context"):  # of a study's file, which may have been changed
            if not isinstance(value := getattr(self, name), Mapping):
                raise ValueError(f"{name} is {value!r}; valid: an object")

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """For example `seed is 0 in the study and 1 now`; empty when `other` is this identity as a mapping."""
        mine, theirs = self.flat(), flatten(json.loads(json.dumps(other)))
        names = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
        found = [f"{n} is {theirs.get(n, 'absent')} in the study and {mine.get(n, 'absent')} now" for n in names]
        if not found and list(self.objectives) != list(other["objectives"]):
            found = [f"objectives are {list(other['objectives'])} in the study and {list(self.objectives)} now"]
        return found

    def flat(self) -> dict[str, Any]:
        """Every setting as JSON has it, by dotted name, such as `limits.macs`."""
        return flatten(json.loads(json.dumps(asdict(self))))


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` → `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
