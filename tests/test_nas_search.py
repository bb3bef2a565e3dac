"""`nas.search`, the public function: what it stores, shares and refuses."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_cases import choice_space, flaky_score, history, network_problem, score, size_cost

import nas.study
from nas.store import StudyError, read_study
from search_spaces.feasible import InfeasibleLimitsError
from workers.evaluator import EvaluatorSpec
from workers.pool import WorkerStartError


def test_search_finds_the_best_of_a_small_space() -> None:
    space = choice_space(3)
    study = nas.study.search(space, lambda a: a["g0"] + a["g1"] - a["g2"], n_trials=64, metrics=("top1",))
    assert study.best is not None
    assert dict(study.best.arch.to_dict()) == {"g0": 3, "g1": 3, "g2": 0}
    assert study.front() == [study.best]
    assert study.outcome == "finished"


def test_search_on_a_network_space_knows_its_costs() -> None:
    problem = network_problem("digits")
    study = nas.study.search(problem.space, score, n_trials=30, limits={"macs": 0.5e6}, objectives={"top1": "maximize"})
    for trial in study.trials:
        assert trial.metrics["macs"] <= 0.5e6
        assert trial.metrics == {**score(trial.arch), **problem.costs(trial.arch)}


def test_search_stores_and_continues(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"cost": size_cost, "limits": {"macs": 30}, "storage": tmp_path / "s" / "study.log"}
    nas.study.search(choice_space(), flaky_score, n_trials=20, **arguments)
    study = nas.study.search(choice_space(), flaky_score, n_trials=50, **arguments)
    whole = nas.study.search(choice_space(), flaky_score, n_trials=50, cost=size_cost, limits={"macs": 30})
    assert history(study.trials) == history(whole.trials)
    loaded = nas.study.load_study(arguments["storage"])
    assert list(loaded.trials) == list(study.trials)
    assert loaded.front() == study.front()
    with pytest.raises(StudyError, match="seed is 0 in the study and 3 now"):
        nas.study.search(choice_space(), flaky_score, n_trials=50, seed=3, **arguments)


def test_two_studies_of_one_context_share_evaluations(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"cache": tmp_path / "evaluations", "context": {"weights": "abc"}, "n_trials": 20}
    first = nas.study.search(choice_space(), score, storage=tmp_path / "a.log", **shared)
    second = nas.study.search(choice_space(), lambda arch: 1 / 0, storage=tmp_path / "b.log", **shared)
    assert history(first.trials) == history(second.trials)


def test_an_evaluator_that_returns_more_adds_to_shared_evaluations(tmp_path: Path) -> None:
    shared: dict[str, Any] = {
        "n_trials": 16,
        "strategy": "random",
        "cache": tmp_path / "cache",
        "context": {"weights": "a"},
    }
    space, both = choice_space(2), {"top1": "maximize", "latency_ms": "minimize"}
    nas.study.search(space, lambda arch: {"top1": 0.5}, **shared)
    more = nas.study.search(space, lambda arch: {"top1": 0.5, "latency_ms": 2.0}, objectives=both, **shared)
    assert [trial.metrics for trial in more.trials] == [{"top1": 0.5, "latency_ms": 2.0}] * 16
    assert "cache" not in {trial.worker for trial in more.trials}
    for objectives in (both, {"top1": "maximize"}):
        again = nas.study.search(space, lambda arch: 1 / 0, objectives=objectives, **shared)
        assert {trial.worker for trial in again.trials} == {"cache"}


def test_studies_share_nothing_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    for name, value in (("a", 1.0), ("b", 2.0)):
        study = nas.study.search(choice_space(), lambda arch, v=value: v, n_trials=5, storage=path, study_name=name)
        assert {trial.metrics["top1"] for trial in study.trials} == {value}
    path.unlink()  # a new study of the same name does not find the old one's results
    study = nas.study.search(choice_space(), lambda arch: 3.0, n_trials=5, storage=path, study_name="a")
    assert {trial.metrics["top1"] for trial in study.trials} == {3.0}
    assert len(read_study(path).trials) == 5


def test_limits_out_of_reach_are_refused_before_anything_starts() -> None:
    def factory() -> Any:
        raise AssertionError("an evaluator was built")

    with pytest.raises(InfeasibleLimitsError, match="macs") as caught:
        nas.study.search(choice_space(), EvaluatorSpec(factory), n_trials=5, cost=size_cost, limits={"macs": -1})
    assert caught.value.nearest == {"macs": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "annealing"}, "unknown strategy 'annealing'; valid: random, evolution"),
        ({"objectives": {"top1": "max"}}, "objective 'top1' is 'max'; valid: maximize, minimize"),
        ({"objectives": {"topl": "maximize"}}, "unknown metric 'topl'; valid: top1, macs"),
        ({"limits": {"latency": 3}}, "unknown metric 'latency'; valid: top1, macs"),
        ({"limits": {"macs": "60M"}}, "limit 'macs' is '60M'; it must be a finite number"),
        ({"limits": {"macs": float("nan")}}, "limit 'macs' is nan"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"n_trials": -1}, "must be an integer of at least 0"),
        ({"num_workers": -1}, "must be an integer of at least 0"),
        ({"lookahead": 0}, "lookahead must be an integer of at least 1, got 0"),
        ({"cache": "evaluations"}, "a shared cache needs a context"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nas.study.search(choice_space(), score, **{"n_trials": 5, "cost": size_cost, "metrics": ("top1",), **arguments})


def test_a_limit_that_only_evaluation_knows_is_accepted_when_metrics_are_not_declared() -> None:
    study = nas.study.search(choice_space(), score, n_trials=40, limits={"error_rate": 0.3})
    assert {trial.feasible for trial in study.trials} == {True, False}
    assert all(trial.metrics["error_rate"] <= 0.3 for trial in study.front())


def test_a_broken_evaluator_is_reported_and_the_study_can_be_opened_again(tmp_path: Path) -> None:
    def broken() -> Any:
        raise FileNotFoundError("no checkpoint at RUN")

    search = functools.partial(nas.study.search, choice_space(), n_trials=3, storage=tmp_path / "study.log")
    with pytest.raises(WorkerStartError, match="no checkpoint at RUN"):
        search(evaluate=EvaluatorSpec(broken))
    assert len(search(evaluate=score).trials) == 3


def test_seeds_of_numpy_are_seeds(tmp_path: Path) -> None:
    seed: Any = np.int64(3)
    arguments: dict[str, Any] = {"n_trials": 3, "storage": tmp_path / "study.log"}
    first = nas.study.search(choice_space(), score, seed=seed, **arguments)
    assert history(nas.study.search(choice_space(), score, seed=3, **arguments).trials) == history(first.trials)
