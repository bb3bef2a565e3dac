"""`/metrics`: what Prometheus asks for, computed from the views when it asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from nas.service.service import Service
from nas.service.state import UnknownError, workers_of
from nas.service.study_view import STATES, StudyView

_STUDY = ["run", "study"]


def exposition(service: Service) -> bytes:
    """The metrics of every study in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Studies(service))
    return generate_latest(registry)


class _Studies(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def describe(self) -> list[Metric]:
        """Nothing, so that registering reads no study."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family after the other, a sample a study."""
        trials = GaugeMetricFamily("nas_trials", "Trials of a study by state.", labels=[*_STUDY, "state"])
        seconds = SummaryMetricFamily("nas_evaluation_seconds", "Wall time of evaluations.", labels=_STUDY)
        workers = GaugeMetricFamily("nas_workers", "Workers of a running search.", labels=[*_STUDY, "state"])
        volume = GaugeMetricFamily("nas_hypervolume", "Dominated part of the reference box, 0 to 1.", labels=_STUDY)
        states = GaugeMetricFamily("nas_study_state", "1 for the state that a study is in.", labels=[*_STUDY, "state"])
        for run_id, view in self._views():
            labels = [run_id, view.name]
            for state, count in _by_state(view).items():
                trials.add_metric([*labels, state], count)
            evaluated = [trial.seconds for trial in list(view.trials) if trial.worker != "cache"]
            seconds.add_metric(labels, count_value=len(evaluated), sum_value=sum(evaluated))
            for state in ("alive", "busy", "restarted"):
                workers.add_metric([*labels, state], workers_of(view)[state] or 0)
            volume.add_metric(labels, view.hypervolumes[-1] if view.hypervolumes else 0.0)
            for state in STATES:
                states.add_metric([*labels, state], float(view.state == state))
        yield from (trials, seconds, workers, volume, states)

    def _views(self) -> Iterator[tuple[str, StudyView]]:
        for run_id in self._service.library.runs():
            try:
                for view in self._service.library.studies(run_id):
                    yield run_id, view
            except UnknownError:  # deleted meanwhile
                continue


def _by_state(view: StudyView) -> Counter[str]:
    """Complete and feasible, complete and infeasible, failed."""
    counts = Counter(feasible=0, infeasible=view.n_infeasible, failed=view.n_failed)
    counts["feasible"] = len(view.trials) - view.n_infeasible - view.n_failed
    return counts
