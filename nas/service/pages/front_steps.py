"""Stepping through the Pareto front without a pointer: a slider beside the chart, and a ring around its point."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from nas.service.pages import charts
from nas.service.pages.front import FrontChart
from nas.trial import Trial


class FrontSteps:
    """Arrow keys go along the front, in order of the horizontal metric; Enter opens the architecture.

    element: the chart, in which the point is marked.
    """

    def __init__(self, element: ui.echart, front: FrontChart, on_open: Callable[[int], None]) -> None:
        self._element, self._on_open = element, on_open
        self._trials: list[Trial] = []
        self._marked = False
        with ui.row().classes("w-full items-center gap-x-4 gap-y-1"):
            self._slider = ui.slider(min=0, max=0, step=1, value=0, on_change=self._mark)
            self._slider.props('snap aria-label="point of the Pareto front"').classes("grow")
            self._slider.style("min-width: 160px; max-width: 420px").mark("front")
            self._slider.on("focusin", self._mark).on("keydown.enter", self._open)
            self._text = ui.label().classes("small number").props("aria-live=polite")
            ui.button("Open", on_click=self._open).props("flat dense color=primary")
        self.show(front)

    def show(self, front: FrontChart) -> None:
        """Takes another front; the point stays where its trial is on it still."""
        before = self._trial
        self._front, (x, y) = front, (front.x.metric, front.y.metric)
        self._trials = sorted(front.front, key=lambda trial: (trial.metrics[x], trial.metrics[y]))
        numbers = [trial.number for trial in self._trials]
        last = max(0, len(numbers) - 1)
        place = numbers.index(before.number) if self._marked and before and before.number in numbers else 0
        self._slider.props["max"] = last
        self._slider.set_enabled(last > 0)
        if self._slider.value != place:
            self._slider.value = place
        elif self._marked:
            self._mark()
        if shown := self._trial:
            self._slider.props["aria-valuetext"] = self._words(shown)  # else its position is read out, a mere count
        if not self._marked:
            self._text.text = "Arrow keys go along the front, Enter opens the architecture." if last else ""

    @property
    def _trial(self) -> Trial | None:
        place = int(self._slider.value or 0)
        return self._trials[place] if 0 <= place < len(self._trials) else None

    def _words(self, trial: Trial) -> str:
        names = (self._front.y.metric, self._front.x.metric)
        figures = ", ".join(f"{charts.label(name)} {charts.show(name, trial.metrics[name])}" for name in names)
        return f"#{trial.number}: {figures} ({self._trials.index(trial) + 1} of {len(self._trials)})"

    def _mark(self) -> None:
        trial = self._trial
        if trial is None:
            return
        self._marked = True
        self._text.text = self._slider.props["aria-valuetext"] = self._words(trial)
        self._element.run_chart_method("setOption", {"series": [self._front.ring(trial)]})

    def _open(self) -> None:
        if trial := self._trial:
            self._on_open(trial.number)
