"""One contract for every pool: each evaluation gives one result, whatever happens to it."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_cases import choice_space, score, spec_of

from workers import ray_connect, ray_pool
from workers.evaluator import EvaluatorSpec
from workers.pool import LocalPool, Pool, Result, WorkerStartError

SPACE = choice_space()
ARCHS = [SPACE.sample(np.random.default_rng(i)) for i in range(20)]
MakePool = Callable[[EvaluatorSpec], Pool]


@pytest.fixture(params=["local", "ray"])
def make_pool(request: pytest.FixtureRequest) -> Iterator[MakePool]:
    pools: list[Pool] = []
    if request.param == "ray":
        request.getfixturevalue("ray_address")

    def make(spec: EvaluatorSpec) -> Pool:
        pools.append(LocalPool(spec) if request.param == "local" else ray_pool.RayPool(spec, 2))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def results_of(pool: Pool, archs: list[Any]) -> list[Result]:
    """In order of number."""
    for number, arch in enumerate(archs):
        pool.submit(number, arch)
    results: dict[int, Result] = {}
    while len(results) < len(archs):
        for result in pool.wait():
            assert result.number not in results
            results[result.number] = result
    return [results[number] for number in range(len(archs))]


def test_every_evaluation_gives_one_result(make_pool: MakePool) -> None:
    with make_pool(spec_of(score)) as pool:
        results = results_of(pool, ARCHS)
        assert [r.metrics for r in results] == [score(arch) for arch in ARCHS]
        assert all(r.error is None and ":" in r.worker and r.seconds >= 0 for r in results)
        assert pool.wait() == []


def test_a_bare_number_is_the_first_objective(make_pool: MakePool) -> None:
    assert results_of(make_pool(spec_of(lambda arch: 0.5)), ARCHS[:1])[0].metrics == {"top1": 0.5}


def bad_answer(kind: str, arch: Any) -> Any:
    if kind == "raises":
        raise ValueError("bad shape")
    if kind == "exits":
        sys.exit(3)
    return {"nan": {"top1": float("nan")}, "inf": float("inf"), "text": {"top1": "high"}, "list": [1.0]}[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("raises", r"ValueError: bad shape \(test_workers_pool.py:\d+\)"),
        ("exits", "SystemExit: 3"),
        ("nan", "metric 'top1' is nan"),
        ("inf", "metric 'top1' is inf"),
        ("text", "metric 'top1' is 'high', not a number"),
        ("list", r"metric 'top1' is \[1.0\], not a number"),
    ],
)
def test_a_failed_evaluation_is_a_result(kind: str, message: str) -> None:
    pool = LocalPool(spec_of(functools.partial(bad_answer, kind)))
    (result,) = results_of(pool, ARCHS[:1])
    assert result.metrics is None
    assert re.search(message, str(result.error))


def fails_on_first_gene(arch: Any) -> float:
    if arch["g0"] == 0:
        raise ValueError("bad shape")
    return 1.0


def test_failures_leave_the_others_alone(make_pool: MakePool) -> None:
    results = results_of(make_pool(spec_of(fails_on_first_gene)), ARCHS)
    assert [r.metrics is None for r in results] == [arch["g0"] == 0 for arch in ARCHS]
    assert all("bad shape" in r.error for r in results if r.error)


class MiscountingEvaluator:
    def evaluate(self, archs: Any) -> list[dict[str, float]]:
        return []


def test_an_evaluator_that_gives_too_few_answers_fails(make_pool: MakePool) -> None:
    (result,) = results_of(make_pool(EvaluatorSpec(MiscountingEvaluator)), ARCHS[:1])
    assert result.error is not None
    assert "0 answers for 1 architecture" in result.error


class BatchingEvaluator:
    """Says how many architectures it was given at once, and takes offence at one of them."""

    def evaluate(self, archs: Any) -> list[dict[str, float]]:
        if ARCHS[3] in archs:
            raise ValueError("bad shape")
        return [{"top1": 1.0, "together": float(len(archs))} for _ in archs]


def test_architectures_are_evaluated_together_up_to_the_batch(make_pool: MakePool) -> None:
    pool = make_pool(EvaluatorSpec(BatchingEvaluator, batch=4))
    results = results_of(pool, ARCHS)
    assert [r.number for r in results if r.error] == [3]
    together = [r.metrics["together"] for r in results if r.metrics]
    assert max(together) == 4
    if isinstance(pool, LocalPool):  # one of the first four is bad, so they were evaluated one by one
        assert together == [1.0] * 3 + [4.0] * 16


def test_by_default_architectures_are_evaluated_one_by_one(make_pool: MakePool) -> None:
    results = results_of(make_pool(EvaluatorSpec(BatchingEvaluator)), ARCHS)
    assert [r.metrics and r.metrics["together"] for r in results] == [1.0] * 3 + [None] + [1.0] * 16


class SharedEvaluator:
    def __init__(self, shared: Any) -> None:
        self.shared = shared

    def evaluate(self, archs: Any) -> list[dict[str, float]]:
        weights = self.shared["weights"]
        product = weights @ weights.T
        return [{"top1": float(product.sum()), "copied": float(weights.flags.owndata)} for _ in archs]


def test_shared_arrays_reach_every_worker(make_pool: MakePool) -> None:
    weights = np.random.default_rng(0).standard_normal((300, 300)).astype(np.float32)
    pool = make_pool(EvaluatorSpec(SharedEvaluator, {"weights": weights}))
    expected = results_of(LocalPool(EvaluatorSpec(SharedEvaluator, {"weights": weights})), ARCHS[:1])[0].metrics
    results = results_of(pool, ARCHS)
    assert len({r.metrics["top1"] for r in results if r.metrics}) == 1
    assert results[0].metrics is not None
    assert expected is not None
    assert results[0].metrics["top1"] == pytest.approx(expected["top1"], rel=1e-4)
    if isinstance(pool, ray_pool.RayPool):
        assert {r.metrics["copied"] for r in results if r.metrics} == {0.0}


def broken_factory() -> Any:
    raise FileNotFoundError("no checkpoint at RUN")


def test_a_broken_factory_says_so(make_pool: MakePool) -> None:
    with pytest.raises(WorkerStartError, match="no checkpoint at RUN"):
        results_of(make_pool(EvaluatorSpec(broken_factory)), ARCHS[:1])


def test_closing_twice_is_allowed(make_pool: MakePool) -> None:
    pool = make_pool(spec_of(score))
    pool.submit(0, ARCHS[0])
    pool.close()
    pool.close()
    assert pool.wait() == []


def die_once(marker: str, arch: Any) -> float:
    if arch == ARCHS[3] and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def die_always(victim: Any, arch: Any) -> float:
    if arch == victim:
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


def needs_processes(pool: Pool) -> None:
    if isinstance(pool, LocalPool):
        pytest.skip("the evaluation runs in the driver's own process: killing it kills the driver")


def test_a_killed_worker_is_replaced_and_its_evaluation_repeated(make_pool: MakePool, tmp_path: Path) -> None:
    pool = make_pool(spec_of(functools.partial(die_once, str(tmp_path / "died"))))
    needs_processes(pool)
    results = results_of(pool, ARCHS)
    assert (tmp_path / "died").exists()
    assert all(r.metrics == {"top1": 1.0} for r in results)


def test_an_evaluation_that_kills_three_workers_fails(make_pool: MakePool) -> None:
    pool = make_pool(spec_of(functools.partial(die_always, ARCHS[3])))
    needs_processes(pool)
    results = results_of(pool, ARCHS)
    failed = [r for r in results if r.error]
    assert [r.number for r in failed] == [3]
    assert "3 workers were lost" in str(failed[0].error)
    assert ARCHS[3].key in str(failed[0].error)


def dying_factory() -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("ray_address")
def test_workers_that_die_while_starting_are_given_up() -> None:
    with ray_pool.RayPool(EvaluatorSpec(dying_factory), 1) as pool:
        pool.submit(0, ARCHS[0])
        with pytest.raises(WorkerStartError, match="3 workers in a row died"):
            pool.wait()


@pytest.mark.usefixtures("ray_address")
def test_an_evaluator_that_cannot_travel_says_so() -> None:
    lock = threading.Lock()
    with pytest.raises(WorkerStartError, match="cannot be sent to a worker"):
        ray_pool.RayPool(spec_of(lambda arch: bool(lock)), 1)


@pytest.mark.usefixtures("ray_address")
def test_a_ray_that_was_there_before_stays() -> None:
    import ray

    ray_pool.RayPool(spec_of(score), 1).close()
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("address", "error"), [("127.0.0.1:1", ConnectionError), ("nowhere", ValueError), ("ray://x:1", ValueError)]
)
def test_an_address_without_a_cluster_is_refused(address: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=address):
        ray_connect.connect(address, 1, 0)


@pytest.mark.parametrize("number", [0, -1])
def test_a_pool_needs_a_worker(number: int) -> None:
    with pytest.raises(ValueError, match="num_workers"):
        ray_pool.RayPool(spec_of(score), number)


def test_a_ray_that_does_not_start_here_is_a_failure_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load Ray raises a bare Exception, which no program expects."""

    def init(*args: Any, **kwargs: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ConnectionError, match="Ray did not start on this machine: The current node timed out"):
        ray_connect.connect("local", 1, 0)
