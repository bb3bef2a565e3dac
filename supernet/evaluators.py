"""The evaluators there are. Needs no torch, so that a wrong name is refused at once.

A new evaluator is one file and one line in `EVALUATORS`; `tests/test_supernet_evaluators.py` holds it against the
reference. Its class takes what `supernet.evaluate.SupernetEvaluator` takes.
"""

from __future__ import annotations

import pkgutil
from typing import Any

EVALUATORS: dict[str, str] = {
    "reference": "supernet.evaluate:SupernetEvaluator",
    "fast": "supernet.fast:FastEvaluator",
}


def check(name: str) -> None:
    """Raises ValueError listing the valid names for an unknown one."""
    if name not in EVALUATORS:
        raise ValueError(f"unknown evaluator {name!r}; valid: {', '.join(EVALUATORS)}")


def get(name: str) -> Any:
    """The class of the evaluator `name`, imported now. Raises as `check` does."""
    check(name)
    return pkgutil.resolve_name(EVALUATORS[name])
