"""The table of a study's trials: a page of it at a time crosses the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import events, ui

from nas.service.pages import charts
from nas.service.pages.layout import chip_look
from nas.service.study_view import StudyView
from nas.trial import Trial

_ROWS = 20
_CELL_NUMBER = """<q-td :props="props"><q-btn flat dense no-caps color="primary" :label="'#' + props.row.number"
    :aria-label="'trial ' + props.row.number" @click="() => $parent.$emit('open', props.row.number)" /></q-td>"""
_CELL_STATE = """<q-td :props="props"><span :class="'chip ' + props.row.state.kind">
    <q-icon :name="props.row.state.icon" aria-hidden="true" />{{ props.row.state.text }}</span></q-td>"""


class TrialsTable:
    """Sorted and paged by the service; `refresh` sends the page in view where it changed."""

    def __init__(self, view: StudyView, on_open: Callable[[int], None]) -> None:
        self._view = view
        self._metrics = view.metrics
        columns: list[dict[str, Any]] = [
            {"name": "number", "label": "Trial", "field": "number", "align": "left", "sortable": True},
            {"name": "state", "label": "State", "field": "state", "align": "left"},
            *(
                {"name": m, "label": charts.label(m), "field": m, "align": "right", "sortable": True}
                for m in self._metrics
            ),
            {"name": "seconds", "label": "Seconds", "field": "seconds", "align": "right", "sortable": True},
            {"name": "worker", "label": "Worker", "field": "worker", "align": "left", "sortable": True},
        ]
        pagination = {
            "sortBy": "number", "descending": True, "page": 1, "rowsPerPage": _ROWS, "rowsNumber": len(view.trials),
        }  # fmt: skip
        self._table = ui.table(columns=columns, rows=[], row_key="number", pagination=pagination)
        self._table.props("flat dense rows-per-page-options=[10,20,50,100] binary-state-sort").classes("w-full")
        self._table.add_slot("body-cell-number", _CELL_NUMBER)
        self._table.add_slot("body-cell-state", _CELL_STATE)
        self._table.on("request", self._asked)
        self._table.on("open", lambda event: on_open(int(event.args)))
        self._shown: list[dict[str, Any]] = []

    def refresh(self) -> None:
        """Brings the page in view up to date."""
        asked = self._table.pagination
        size = max(1, min(100, int(asked.get("rowsPerPage") or 100)))
        number = len(self._view.trials)
        page = max(1, min(int(asked.get("page") or 1), -(-number // size)))
        trials = self._view.page(
            (page - 1) * size, size, bool(asked.get("descending")), asked.get("sortBy") or "number"
        )
        rows = [self._row(trial) for trial in trials]
        if rows != self._shown or asked.get("rowsNumber") != number:
            self._shown = rows
            self._table._props["pagination"] = asked | {"page": page, "rowsPerPage": size, "rowsNumber": number}
            self._table.update_rows(rows)

    def _asked(self, event: events.GenericEventArguments) -> None:
        asked = event.args["pagination"]
        sort = asked.get("sortBy")
        if sort not in ("number", "seconds", "worker", *self._metrics):
            sort = "number"
        self._table._props["pagination"] = asked | {"sortBy": sort}
        self.refresh()

    def _row(self, trial: Trial) -> dict[str, Any]:
        state = "failed" if trial.state == "failed" else "feasible" if trial.feasible else "over a limit"
        return {
            "number": trial.number,
            "state": chip_look(state),
            **{m: charts.show(m, trial.metrics.get(m)) for m in self._metrics},
            "seconds": f"{trial.seconds:.2f}",
            "worker": trial.worker,
        }
