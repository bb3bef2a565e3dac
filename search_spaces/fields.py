"""What is wrong with a field of a description, and where the field is."""

from __future__ import annotations

from typing import Any

FieldPath = tuple[str | int, ...]
"""Leads to a field: names within mappings, numbers within lists, such as ("stages", 1, "depths")."""


class FieldError(ValueError):
    """A field that makes no sense. `path` leads to it; `problem` goes on from its name, with the valid values."""

    def __init__(self, path: FieldPath, problem: str) -> None:
        super().__init__(path, problem)  # as they came, so that the error survives pickling
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        names = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return f"{names.removeprefix('.') or 'the space'} {self.problem}"

    def within(self, *parents: str | int) -> FieldError:
        """The same error, told from further outside."""
        return FieldError((*parents, *self.path), self.problem)


MOST_CHANNELS = 1 << 16  # beyond it a misplaced zero is likelier than a network


def check_integer(field: str, value: Any, low: int, high: int | None = None) -> None:
    """Raises FieldError unless `value` is an integer of at least `low`, and at most `high` if that is given."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        valid = f"an integer of at least {low}" if high is None else f"an integer of {low} to {high}"
        raise FieldError((field,), f"is {value!r}; valid: {valid}")
