"""The chart of a study's trials in the plane of two metrics, told to a browser by differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas import pareto
from nas.service.pages import charts
from nas.service.pages.charts import Options, Unit
from nas.trial import Trial
from search_spaces.limits import Limit

_CHUNK = 500  # points of one series: what an update sends again at most
_IN_FULL = 1000  # trials up to which points are drawn whether they hide one another or not
_CELLS = 56  # a side of the grid in which points hide one another

_FRONT, _CLOUD, _OVER = "Pareto front", "evaluated", "over a limit"


class FrontChart:
    """What one browser has been told, and what it has to be told next.

    Points that are not on the front never return to it, so they are only ever added, in chunks of which each is a
    series of its own: an update sends the last chunk and the front. Of points in one cell of a grid over the plane the
    first is kept: they would hide one another.
    """

    def __init__(
        self, x: str, y: str, objectives: Mapping[str, str], limits: Mapping[str, Limit], trials: Sequence[Trial]
    ) -> None:
        self.directions = {name: charts.better(name, objectives) for name in dict.fromkeys((y, x))}
        self._limits, self._grid = limits, _Grid((x, y))
        self.x, self.y = (Unit(name, charts.costliest_first(trials, name)) for name in (x, y))
        self._front: list[Trial] = []
        self._chunks: dict[str, list[list[list[float]]]] = {_CLOUD: [[]], _OVER: [[]]}
        self.seen = 0
        self.add(trials)

    @property
    def front(self) -> list[Trial]:
        """Feasible trials that none dominates in these two metrics."""
        return self._front

    def add(self, trials: Sequence[Trial]) -> list[Options]:
        """Takes in all trials so far; the series that changed, each whole, empty when nothing did."""
        new = [
            t
            for t in trials[self.seen :]
            if t.state == "complete" and {self.x.metric, self.y.metric} <= t.metrics.keys()
        ]
        self.seen = len(trials)
        if not new:
            return []
        self._grid.meet(new)
        changed = {_OVER: self._extend(_OVER, [t for t in new if not t.feasible])}
        front = pareto.front([*self._front, *new], self.directions)
        kept = {t.number for t in front}
        left = [t for t in [*self._front, *new] if t.feasible and t.number not in kept]
        changed[_CLOUD] = self._extend(_CLOUD, left)
        is_new = kept != {t.number for t in self._front}
        self._front = front
        series = [self._series(kind, i) for kind, indices in changed.items() for i in indices]
        return series + (self._front_series() if is_new else [])

    def ring(self, trial: Trial) -> Options:
        """A series that marks one point."""
        look = {"color": "transparent", "borderColor": charts.TEXT, "borderWidth": 2}
        return {
            "id": "ring", "type": "scatter", "data": [self._point(trial)], "symbolSize": 18, "silent": True, "z": 6,
            "itemStyle": look, "tooltip": {"show": False},
        }  # fmt: skip

    def options(self) -> Options:
        """The whole chart."""
        options = charts.base(self.x.label, self.y.label)
        options["tooltip"] |= {"trigger": "item"}
        options["legend"]["data"] = [_FRONT, _CLOUD, _OVER]
        chunks = [self._series(kind, i) for kind, parts in self._chunks.items() for i in range(len(parts))]
        marks = charts.limit_lines(self._limits, self.x, self.y)
        # ECharts makes no room for lines that mark a limit, but for points that cannot be seen it does
        corner = self._point(self._front[0])[:2] if self._front else [0.0, 0.0]
        unseen = [[mark.get("xAxis", corner[0]), mark.get("yAxis", corner[1])] for mark in marks]
        limits = {
            "id": "limits", "type": "scatter", "data": unseen, "symbolSize": 0, "silent": True,
            "markLine": {
                "symbol": "none", "silent": True, "animation": False, "data": marks,
                "lineStyle": {"color": charts.OVER, "type": "dashed", "width": 1.5},
            },
        }  # fmt: skip
        options["series"] = [*chunks, limits, *self._front_series()]
        return options

    def _extend(self, kind: str, trials: Sequence[Trial]) -> list[int]:
        """Adds what can be seen; the indices of the chunks that changed."""
        chunks, changed = self._chunks[kind], dict[int, None]()
        for trial in trials:
            if not self._grid.is_free(kind, trial):
                continue
            if len(chunks[-1]) == _CHUNK:
                chunks.append([])
            chunks[-1].append(self._point(trial))
            changed[len(chunks) - 1] = None
        return list(changed)

    def _point(self, trial: Trial) -> list[float]:
        return [self.x(trial.metrics[self.x.metric]), self.y(trial.metrics[self.y.metric]), trial.number]

    def _series(self, kind: str, chunk: int) -> Options:
        dimensions = (self.x.label, self.y.label)
        points = self._chunks[kind][chunk]
        if kind == _OVER:
            look: Options = {"symbol": "triangle", "itemStyle": {"color": charts.OVER, "opacity": 0.75}}
        else:
            look = {"itemStyle": {"color": charts.CLOUD, "opacity": 0.75}}
        return charts.scatter(kind, points, charts.CLOUD, dimensions, **({"id": f"{kind} {chunk}"} | look))

    def _front_series(self) -> list[Options]:
        points = sorted(self._point(trial) for trial in self._front)
        dimensions = (self.x.label, self.y.label)
        dots = charts.scatter(_FRONT, points, charts.FRONT, dimensions, symbolSize=10, z=5)
        path = {
            "id": "front line", "name": _FRONT, "type": "line", "data": [p[:2] for p in points], "symbol": "none",
            "silent": True, "z": 4, "lineStyle": {"color": charts.FRONT, "width": 2}, "tooltip": {"show": False},
            "itemStyle": {"color": charts.FRONT}, "emphasis": {"disabled": True},
        }  # fmt: skip
        return [path, dots]


class _Grid:
    """The cells of the plane that hold a point already. Small studies are drawn in full."""

    def __init__(self, names: tuple[str, str]) -> None:
        self._names = names
        self._met: list[Trial] = []
        self._extent: dict[str, tuple[float, float]] | None = None  # of each metric the lowest value and the span
        self._taken: set[tuple[Any, ...]] = set()

    def meet(self, trials: Sequence[Trial]) -> None:
        """Sets the extent once enough trials are known."""
        if self._extent is not None:
            return
        self._met += trials
        if len(self._met) > _IN_FULL:
            values = {name: [trial.metrics[name] for trial in self._met] for name in self._names}
            self._extent = {name: (min(known), max(known) - min(known) or 1.0) for name, known in values.items()}
            self._met = []

    def is_free(self, kind: str, trial: Trial) -> bool:
        """Whether nothing was in the trial's cell; now there is."""
        if self._extent is None:
            return True
        extent = self._extent
        cell = (kind, *(int((trial.metrics[n] - extent[n][0]) / extent[n][1] * _CELLS) for n in self._names))
        if cell in self._taken:
            return False
        self._taken.add(cell)
        return True
