"""`Hypervolumes`: how much of the space of objectives a study dominates, followed trial by trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import moocore
import numpy as np

from nas import pareto
from nas.identity import Identity
from nas.trial import Trial
from search_spaces import cost
from search_spaces.limits import bounds
from search_spaces.network import NetworkSpace


class Hypervolumes:
    """The dominated part of a box after each trial.

    reference: the worst value of each objective, the corner of the box whose other one is the ideal: 1 for accuracy, 0
    for costs. values: the part of the box that the trials so far dominate, after each of them.
    """

    def __init__(self, space: NetworkSpace, identity: Identity) -> None:
        self._objectives = identity.objectives
        self.reference = _reference(space, identity)
        self.values: list[float] = []
        self._points = self._none()

    def _none(self) -> np.ndarray:
        return np.zeros((0, len(self._objectives)))

    def follow(self, trials: Sequence[Trial]) -> None:
        """Takes in those of all `trials` that came since."""
        new = trials[len(self.values) :]
        wider = _wider(self.reference, new, self._objectives)
        if wider == self.reference:
            self.values += self._volumes(new, self.values[-1] if self.values else 0.0)
        else:  # of a metric whose worst value nobody knows beforehand
            self.reference, self._points = wider, self._none()
            self.values = self._volumes(trials, 0.0)

    def _volumes(self, trials: Sequence[Trial], volume: float) -> list[float]:
        """Only a point that is on the front when it comes changes the volume: there alone it is computed."""
        objectives, values = self._objectives, []
        signs = [-1.0 if direction == "maximize" else 1.0 for direction in objectives.values()]
        corner = np.array([sign * self.reference[name] for sign, name in zip(signs, objectives)])
        scale = math.prod(abs(self.reference[name]) or 1.0 for name in objectives)
        for trial in trials:
            if trial.feasible:
                point = pareto.points([trial], objectives)
                if not (self._points <= point).all(axis=1).any():
                    self._points = moocore.filter_dominated(np.concatenate([self._points, point]))
                    volume = float(moocore.hypervolume(self._points, ref=corner)) / scale
            values.append(volume)
        return values


def _reference(space: NetworkSpace, identity: Identity) -> dict[str, float]:
    """The worst value of each objective as far as it is known before: accuracy 0, costs the limit or the costliest."""
    known = cost.costs(space, [space.largest(), space.most_macs()])
    reference: dict[str, float] = {}
    for name, direction in identity.objectives.items():
        if direction == "maximize":
            reference[name] = 0.0
        elif name in identity.limits and math.isfinite(bounds(identity.limits[name])[1]):
            reference[name] = bounds(identity.limits[name])[1]
        elif name in known:
            reference[name] = float(known[name].max())
    return reference


def _wider(reference: Mapping[str, float], trials: Sequence[Trial], objectives: Mapping[str, str]) -> dict[str, float]:
    """`reference` with a value for every objective: of one not known beforehand, the worst that was seen."""
    wider = dict(reference)
    for name, direction in objectives.items():
        worst = max if direction == "minimize" else min
        values = [trial.metrics[name] for trial in trials if trial.feasible]
        if values and (name not in wider or worst([wider[name], *values]) != wider[name]):
            wider[name] = worst([*values, *([wider[name]] if name in wider else [])])
        wider.setdefault(name, 0.0)
    return wider
