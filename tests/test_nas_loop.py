"""The search loop: one history, whatever the workers do. `python tests/test_nas_loop.py` rewrites the golden files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from search_cases import (
    FITTING,
    ShufflingPool,
    choice_problem,
    flaky_score,
    history,
    length,
    make_strategy,
    network_problem,
    noise,
    score,
    size_cost,
    spec_of,
)

from nas import loop
from nas.cache import EvaluationCache
from nas.loop import AllTrialsFailedError
from nas.problem import Problem
from nas.store import MemoryStore
from nas.strategies import STRATEGIES
from nas.trial import Trial
from workers.pool import LocalPool, Pool

GOLDEN = Path(__file__).parent / "golden"
OWN = ("random", "evolution", "local", "coarse_to_fine")  # the others depend on the version of a library too


def run(problem: Problem, name: str, pool: Pool, n_trials: int = 80, lookahead: int = 8, **more: Any) -> list[Trial]:
    store = more.pop("store", None) or MemoryStore()
    loop.run(problem, make_strategy(name, problem), pool, store, n_trials, lookahead, **more)
    return list(store.trials)


def in_process(problem: Problem, name: str, function: Callable[[Any], Any] = flaky_score, **more: Any) -> list[Trial]:
    return run(problem, name, LocalPool(spec_of(function)), **more)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("problem", [choice_problem(30), network_problem("digits", 4e6)], ids=["choices", "digits"])
def test_the_history_does_not_depend_on_the_workers(name: str, problem: Problem) -> None:
    n = length(name, 80)
    expected = history(in_process(problem, name, n_trials=n, lookahead=n // 10))
    assert len(expected) == n
    for seed, size in enumerate((1, 2, 8, 30) if name in FITTING else (1, 2, 2, 8, 8, 30)):
        pool = ShufflingPool(spec_of(flaky_score), size, seed)
        assert history(run(problem, name, pool, n, n // 10)) == expected


@pytest.fixture(scope="module")
def deadly_pool(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pool, Path]]:
    """Two workers on Ray, and a file: one of them dies once in each folder whose name is in it."""
    from workers.ray_pool import RayPool

    current = tmp_path_factory.mktemp("deadly") / "folder"

    def evaluate(arch: Any) -> dict[str, float]:
        died = Path(current.read_text()) / "died"
        if noise(arch.key) > 0.7 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return flaky_score(arch)

    with RayPool(spec_of(evaluate), 2) as pool:
        yield pool, current


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_history_is_the_same_from_ray_although_a_worker_dies(
    name: str, deadly_pool: tuple[Pool, Path], tmp_path: Path
) -> None:
    problem, (pool, current) = choice_problem(30), deadly_pool
    current.write_text(str(tmp_path))
    restarted = pool.workers().restarted
    trials = run(problem, name, pool, length(name, 80), 4)
    assert (tmp_path / "died").exists()
    assert pool.workers().restarted > restarted
    assert history(trials) == history(in_process(problem, name, n_trials=length(name, 80), lookahead=4))


@pytest.mark.parametrize("lookahead", [1, 3, 8])
def test_proposals_see_no_result_that_is_too_recent(lookahead: int) -> None:
    """The strategy is told trial n - lookahead before it is asked for trial n, and nothing later."""
    problem = choice_problem()
    strategy = make_strategy("random", problem)
    told: list[int] = []
    seen: list[tuple[int, int]] = []
    ask = strategy.ask
    strategy.tell = lambda trial: told.append(trial.number)  # type: ignore[method-assign]

    def spy(number: int, taken: Any) -> Any:
        seen.append((number, len(told)))
        return ask(number, taken)

    strategy.ask = spy  # type: ignore[method-assign]
    loop.run(problem, strategy, ShufflingPool(spec_of(score), 4), MemoryStore(), 30, lookahead)
    assert told == sorted(told)
    assert seen == [(n, max(0, n - lookahead + 1)) for n in range(30)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_continuing_gives_the_same_history(name: str) -> None:
    problem, store = choice_problem(30), MemoryStore()
    whole = length(name, 80)
    for n in (0, 1, 7, 8, 9, whole // 2, whole):
        in_process(problem, name, n_trials=n, lookahead=whole // 10, store=store)
    assert history(store.trials) == history(in_process(problem, name, n_trials=whole, lookahead=whole // 10))


@pytest.mark.parametrize("name", STRATEGIES)
def test_stopping_keeps_what_has_finished(name: str) -> None:
    problem, store, cache = choice_problem(30), MemoryStore(), EvaluationCache()
    n = length(name, 80)
    looks = iter([False] * (n // 7) + [True])
    pool = ShufflingPool(spec_of(score), 8)
    strategy = make_strategy(name, problem)
    outcome = loop.run(problem, strategy, pool, store, n, 4, cache, stop=lambda: next(looks))
    assert outcome == "stopped"
    assert 0 < len(store.trials) < n
    rest = run(problem, name, ShufflingPool(spec_of(score), 2), n, 4, store=store, cache=cache)
    assert history(rest) == history(in_process(problem, name, score, n_trials=n, lookahead=4))


def test_what_is_cached_is_not_evaluated_again() -> None:
    problem, cache = choice_problem(30), EvaluationCache()
    first = in_process(problem, "evolution", score, cache=cache)
    again = in_process(problem, "evolution", lambda arch: 1 / 0, cache=cache)
    assert history(again) == history(first)
    assert {trial.worker for trial in again} == {"cache"}


def test_results_that_finish_early_are_in_the_cache_before_they_are_trials() -> None:
    problem, cache, store = choice_problem(30), EvaluationCache(), MemoryStore()
    pool = ShufflingPool(spec_of(score), 8, seed=3)
    evaluated: list[str] = []

    def crash(trial: Trial) -> None:
        evaluated.extend(cache._metrics)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(problem, "evolution", pool, store=store, cache=cache, on_trial=crash)
    assert len(evaluated) > len(store.trials) == 1


def test_an_exhausted_space_ends_the_search() -> None:
    problem, store = choice_problem(genes=2), MemoryStore()
    pool = LocalPool(spec_of(score))
    assert loop.run(problem, make_strategy("evolution", problem), pool, store, 1000, 8) == "exhausted"
    assert len(store.trials) == 16


def test_a_failed_trial_keeps_its_costs_and_says_why() -> None:
    trials = in_process(choice_problem(30), "random")
    failed = [trial for trial in trials if trial.state == "failed"]
    assert 0 < len(failed) < len(trials)
    for trial in failed:
        assert trial.metrics == size_cost(trial.arch)  # type: ignore[arg-type]
        assert trial.constraints["macs"] <= 0
        assert "no luck" in str(trial.error)
        assert not trial.feasible


def test_a_missing_metric_fails_the_trial_and_is_named() -> None:
    def evaluate(arch: Any) -> dict[str, float]:
        return score(arch) if noise(arch.key) < 0.5 else {"accuracy": 1.0}

    trials = in_process(choice_problem(), "random", evaluate)
    errors = {trial.error for trial in trials if trial.error}
    assert errors == {"the evaluator did not return metric 'top1'; it returned: accuracy"}


def test_an_evaluator_that_never_succeeds_ends_the_search() -> None:
    problem, store = choice_problem(), MemoryStore()
    for recorded in (8, 16):  # a second run tries again, and no longer than the first
        with pytest.raises(AllTrialsFailedError, match=f"first {recorded} trials failed; trial 0: ZeroDivisionError"):
            in_process(problem, "evolution", lambda arch: 1 / 0, store=store)
        assert len(store.trials) == recorded


def test_lookahead_must_be_positive() -> None:
    with pytest.raises(ValueError, match="lookahead must be at least 1"):
        in_process(choice_problem(), "random", lookahead=0)


@pytest.mark.parametrize("name", OWN)
def test_the_trajectory_is_the_golden_one(name: str) -> None:
    assert golden_trajectory(name) == json.loads((GOLDEN / f"search_{name}.json").read_text())


def golden_trajectory(name: str) -> list[Any]:
    return json.loads(json.dumps(history(in_process(choice_problem(30), name, n_trials=60))))


if __name__ == "__main__":
    for strategy in OWN:
        text = json.dumps(golden_trajectory(strategy), indent=None, separators=(",", ":")).replace("],[", "],\n[")
        (GOLDEN / f"search_{strategy}.json").write_text(text + "\n")
