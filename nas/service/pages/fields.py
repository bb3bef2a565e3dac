"""What a form's field holds, checked: errors name the field."""

from __future__ import annotations

import math
from typing import Any

from nicegui import ui


class FieldError(ValueError):
    """What a field holds makes no sense; the message names it, and `field` is to be marked with `text`."""

    def __init__(self, field: Any, text: str) -> None:
        self.field, self.text = field, text
        super().__init__(f"{field.label}: {text}")


def whole(field: ui.number) -> int:
    """Raises FieldError for an empty field, and for what is no whole number."""
    value = field.value
    if value is None:
        raise FieldError(field, "it is empty; write a whole number")
    if not math.isfinite(value) or value != int(value):
        raise FieldError(field, f"{value:g} is no whole number")
    return int(value)
