"""The predictor: what its model learns and believes, and that it looks beyond what it has seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from search_cases import choice_space, network_problem, size_cost

from nas import strategies
from nas.loop import run
from nas.problem import Problem, batch_cost
from nas.ranking import kendall
from nas.store import MemoryStore
from nas.strategies import predictor
from nas.strategies.coarse_to_fine import coarse_grid
from nas.surrogate import Ranker, to_ranks
from nas.trial import Trial
from workers.evaluator import CallableEvaluator, EvaluatorSpec
from workers.pool import LocalPool

SPACE = choice_space(12, 4)
WORTH = np.random.default_rng(1).normal(size=(12, 4))


def additive(arch: Any) -> dict[str, float]:
    return {"top1": float(sum(WORTH[gene][choice] for gene, choice in enumerate(arch.values())))}


def drawn_features(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    archs = [SPACE.sample(np.random.default_rng([seed, i])) for i in range(n)]
    return np.array([SPACE.to_vector(arch) for arch in archs]), np.array([additive(arch)["top1"] for arch in archs])


def study(problem: Problem, evaluate: Any, n: int, seed: int = 0) -> list[Trial]:
    store = MemoryStore()
    with LocalPool(EvaluatorSpec(lambda: CallableEvaluator(evaluate))) as pool:
        run(problem, strategies.get("predictor", problem, seed), pool, store, n, 8)
    return list(store.trials)


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return Ranker.fit(*drawn_features(80, 0), seed=0)


def test_it_learns_the_order_of_what_it_has_not_seen(ranker):
    features, values = drawn_features(100, 1)
    assert kendall(ranker.predict(features), values) > 0.5


def test_draws_scatter_about_the_mean_as_the_posterior_says(ranker):
    features, _ = drawn_features(6, 2)
    _, ridge = ranker.models
    _, deviation = ridge.predict(features, return_std=True)
    posterior = np.sqrt(deviation**2 - 1 / ridge.alpha_) / 2  # without the noise; one of two models is drawn
    rng, n = np.random.default_rng(0), 1500
    draws = np.array([ranker.drawn(rng).predict(features) for _ in range(n)])
    assert np.all(np.abs(draws.mean(0) - ranker.predict(features)) < 5 * posterior / n**0.5)
    np.testing.assert_allclose(draws.std(0), posterior, rtol=0.08)


def test_a_draw_follows_from_its_generator(ranker):
    features, _ = drawn_features(6, 2)
    first, again, other = (ranker.drawn(np.random.default_rng(seed)).predict(features) for seed in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("values", [[0.5] * 30, [0.1] * 29 + [0.9], np.arange(30.0).tolist()])
def test_a_draw_needs_no_particular_values(values):
    features, _ = drawn_features(30, 5)
    drawn = Ranker.fit(features, np.array(values), 0).drawn(np.random.default_rng(0))
    assert np.isfinite(drawn.predict(features)).all()


def test_ranks_count_ties_half_and_run_between():
    known = np.array([1.0, 2.0, 2.0, 4.0])
    assert to_ranks(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 9.0]), known).tolist() == [0, 0, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("name", ["digits", "resnet_cifar"])
def test_the_ends_of_the_space_come_first(name):
    problem = network_problem(name)
    trials = study(problem, lambda arch: {"top1": 0.5}, 2)
    assert [trial.arch for trial in trials] == [problem.space.smallest(), problem.space.largest()]


def test_an_end_of_the_front_that_is_new_is_worth_a_look():
    """Where the smallest is not allowed, and so not among the first, the cheapest allowed are found all the same."""
    problem = Problem(
        SPACE, {"top1": "maximize", "macs": "minimize"}, {"macs": (20.0, None)}, batch_cost(size_cost)
    )  # of 0 to 234
    macs = [trial.metrics["macs"] for trial in study(problem, additive, 30)]
    assert min(macs[:16]) > 50 > 25 > min(macs)


def test_every_second_of_the_first_sets_genes_of_a_kind_alike():
    problem = network_problem("resnet_cifar")
    alike = {arch.key for arch in coarse_grid(problem.space, 0)}
    trials = study(problem, lambda arch: {"top1": 0.5}, 16)
    assert [trial.number for trial in trials if trial.arch.key in alike][-7:] == [2, 4, 6, 8, 10, 12, 14]


def test_breeding_on_the_model_is_worth_it(monkeypatch):
    """On the sum of 20 genes, after 40 trials of two seeds."""
    space = choice_space(20, 4)
    worth = np.random.default_rng(1).normal(size=(20, 4))

    def evaluate(arch: Any) -> dict[str, float]:
        return {"top1": float(sum(worth[gene][choice] for gene, choice in enumerate(arch.values())))}

    def best() -> float:
        found = [study(Problem(space), evaluate, 40, seed) for seed in range(2)]
        return float(np.mean([max(trial.metrics["top1"] for trial in trials) for trials in found]))

    bred = best()
    monkeypatch.setattr(predictor, "_GENERATIONS", 0)
    assert bred > best() + 0.5
