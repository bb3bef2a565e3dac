"""The form's fields of limits: on costs, on accuracy, and on the latency of each device that is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nicegui import ui

from nas.quantities import LATENCY, parse_quantity, show_quantity
from nas.service.pages import charts
from nas.service.pages.fields import FieldError
from search_spaces.limits import Limit, bounds

COSTS = ("macs", "params", "peak_memory", "weight_bytes")

_WITH_LOWEST = ("macs", "params")
_HIGHEST, _LOWEST = 1, 0

Watch = Callable[[Any], Any]


class LimitFields:
    """A field for each limit that a search can be given.

    ranges: of each metric what can be reached, or was measured. old: limits to begin with. watch: what to do to a
    field that is new.
    """

    def __init__(self, ranges: Mapping[str, Sequence[float]], old: Mapping[str, Limit], watch: Watch) -> None:
        self._watch = watch
        self._fields: dict[tuple[str, int], ui.input] = {}
        self._texts: dict[str, str] = {}  # of latencies, by profile
        for name in COSTS:
            low, high = (charts.show(name, value) for value in ranges[name])
            for end in (_HIGHEST, _LOWEST) if name in _WITH_LOWEST else (_HIGHEST,):
                word = "at most" if end == _HIGHEST else "at least"
                label, text = f"{charts.label(name)}, {word}", _text(old.get(name), end)
                self._new(name, end, label, f"reachable: {low} to {high}", text)
        measured = " to ".join(f"{value:.3g}" for value in ranges.get("top1", ()))
        hint = f"0 to 1; measured so far: {measured}" if measured else "0 to 1, such as 0.7 for 70 %"
        self._new("top1", _LOWEST, f"{charts.label('top1')}, at least", hint, _text(old.get("top1"), _LOWEST))
        self._devices = ui.element("div").style("display: contents")

    def _new(self, metric: str, end: int, label: str, hint: str, text: str) -> ui.input:
        field = ui.input(label, value=text)
        field.props["hint"] = hint
        self._fields[metric, end] = self._watch(field)
        return field

    def begin_latencies(self, old: Mapping[str, Limit]) -> None:
        """old: latency limits to begin with, by the path of the profile."""
        self._texts = {path: _text(limit, _HIGHEST) for path, limit in old.items()}

    def show_latencies(self, metrics: Mapping[str, str], ranges: Mapping[str, Sequence[float]]) -> None:
        """A field for each device, in place of those before; what was written is kept.

        metrics: by path of the profile the name of its latency. ranges: by path.
        """
        self._fields = {key: field for key, field in self._fields.items() if not key[0].startswith(LATENCY)}
        self._devices.clear()
        with self._devices:
            for path, metric in metrics.items():
                low, high = (charts.show(LATENCY, value) for value in ranges[path])
                label = f"{charts.label(metric)} in ms, at most"
                hint = f"reachable: {low} to {high}"
                field = self._new(metric, _HIGHEST, label, hint, self._texts.get(path, ""))
                field.on_value_change(lambda e, path=path: self._texts.update({path: e.value or ""}))

    def values(self) -> dict[str, list[float | None]]:
        """[lowest, highest] by metric, with None for an open end. Raises FieldError."""
        limits: dict[str, list[float | None]] = {}
        for (name, end), field in self._fields.items():
            text = (field.value or "").strip()
            if not text:
                continue
            try:
                value = parse_quantity(text)
            except ValueError as error:
                raise FieldError(field, str(error)) from None
            if name == "top1" and value > 1:
                raise FieldError(field, f"{text} is not from 0 to 1, such as 0.7 for 70 %")
            limits.setdefault(name, [None, None])[end] = value
        return limits

    def __iter__(self) -> Iterator[ui.input]:
        return iter(self._fields.values())


def _text(limit: Limit | None, end: int) -> str:
    """An end of a limit as one writes it; exactly, where short is not exact."""
    value = math.inf if limit is None else bounds(limit)[end]
    if math.isinf(value):
        return ""
    short = show_quantity(value)
    return short if parse_quantity(short) == value else repr(value)
