"""One contract for every strategy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest
from search_cases import (
    SLOW,
    choice_problem,
    choice_space,
    complete_trial,
    drive,
    even_score,
    failed_trial,
    flaky_score,
    history,
    length,
    make_strategy,
    network_problem,
    score,
    size_cost,
)

from nas import strategies
from nas.problem import Problem, batch_cost
from nas.strategies import STRATEGIES
from nas.strategies.base import Strategy
from nas.trial import Trial
from search_spaces.arch import ArchLike
from search_spaces.feasible import sample_feasible
from search_spaces.space import ChoiceSpace

PROBLEMS = {
    "choices": functools.partial(choice_problem),
    "choices_limited": functools.partial(choice_problem, 30),
    "resnet20_pooling": functools.partial(network_problem, "resnet20_pooling"),
    "digits_limited": functools.partial(network_problem, "digits", 4e6),
    "resnet_cifar_limited": functools.partial(network_problem, "resnet_cifar", 20e6),
}

pytestmark = pytest.mark.parametrize("name", STRATEGIES)
every_problem = pytest.mark.parametrize("problem_name", PROBLEMS)
N = 120  # trials of `driven`


@functools.cache
def driven(name: str, problem_name: str) -> list[Trial]:
    """What several tests look at: `N` trials with the seed 0. Fewer trials are the first of these."""
    return drive(make_strategy(name, PROBLEMS[problem_name]()), length(name, N))


@every_problem
def test_proposals_are_new_valid_and_within_the_limits(name: str, problem_name: str) -> None:
    problem, trials = PROBLEMS[problem_name](), driven(name, problem_name)
    assert len(trials) == min(length(name, N), problem.space.size())
    assert len({trial.arch.key for trial in trials}) == len(trials)
    for trial in trials:
        problem.space.validate(trial.arch)
        assert problem.space.decode(problem.space.encode(trial.arch)) == trial.arch
        assert all(trial.metrics[metric] <= limit for metric, limit in problem.limits.items())


@every_problem
def test_the_seed_decides_everything(name: str, problem_name: str) -> None:
    first = history(driven(name, problem_name)[: length(name, 60)])
    assert first == history(drive(make_strategy(name, PROBLEMS[problem_name]()), length(name, 60)))
    other = history(drive(make_strategy(name, PROBLEMS[problem_name](), seed=1), 5))
    assert first[:5] != other


@every_problem
@pytest.mark.parametrize("evaluate", [score, flaky_score])
def test_replay_resumes_to_the_same_proposals(
    name: str, problem_name: str, evaluate: Callable[[ArchLike], Mapping[str, float]]
) -> None:
    problem, n = PROBLEMS[problem_name](), length(name, 70)
    trials = driven(name, problem_name)[:n] if evaluate is score else drive(make_strategy(name, problem), n, evaluate)
    for recorded in (0, 1, n // 3, n - 1):
        strategy = make_strategy(name, problem)
        for trial in trials[:recorded]:
            strategy.tell(trial)
        taken = {trial.arch.key for trial in trials[:recorded]}
        expected = trials[recorded].arch if recorded < len(trials) else None
        assert strategy.ask(recorded, taken) == expected


def test_any_seed_will_do(name: str) -> None:
    """NumPy's generators take any integer that is not negative, and the libraries behind some strategies 32 bits."""
    n = length(name, 60)
    assert len(drive(make_strategy(name, choice_problem(), seed=2**70), n)) == n


def test_asking_twice_changes_nothing(name: str) -> None:
    problem = choice_problem(30)
    n = length(name, 40)
    trials = drive(make_strategy(name, problem), n)
    strategy = make_strategy(name, problem)
    for trial in trials:
        strategy.tell(trial)
    taken = {trial.arch.key for trial in trials}
    assert strategy.ask(n, taken) == strategy.ask(n, taken)
    assert strategy.ask(n + 1, taken) != strategy.ask(n, taken) or name == "gp"  # which has one best idea


def test_the_global_random_state_is_left_alone(name: str) -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    drive(make_strategy(name, choice_problem(30)), length(name, 40))
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


@pytest.mark.parametrize("limit", [None, 6])
def test_a_small_space_is_exhausted_and_ends(name: str, limit: float | None) -> None:
    problem = choice_problem(limit, genes=2 if name in SLOW else 3, choices=4)
    trials = drive(make_strategy(name, problem), 1000)
    inside = [a for a in problem.space.enumerate() if limit is None or size_cost(a)["macs"] <= limit]
    assert sorted(trial.arch.key for trial in trials) == sorted(arch.key for arch in inside)


def test_needles_are_all_found_before_a_space_counts_as_exhausted(name: str) -> None:
    """Nine of a thousand are within the limit, where neither samples nor descents come across all of them."""
    space = ChoiceSpace({gene: tuple(range(10)) for gene in "abc"})
    cost = batch_cost(lambda arch: {"macs": 1.0 if arch["a"] == arch["b"] == arch["c"] > 0 else 100.0})
    trials = drive(make_strategy(name, Problem(space, {"top1": "maximize"}, {"macs": 5.0}, cost)), 60)
    assert sorted(trial.arch.to_dict()["a"] for trial in trials) == list(range(1, 10))


def test_one_architecture_is_one_trial(name: str) -> None:
    assert len(drive(make_strategy(name, choice_problem(genes=2, choices=1)), 10)) == 1


def test_a_tight_limit_in_a_large_space_ends(name: str) -> None:
    """Of 4^20 architectures, 4 are within the limit."""
    problem = choice_problem(limit=2, genes=20)
    trials = drive(make_strategy(name, problem), 50)
    assert sorted(trial.metrics["macs"] for trial in trials) == [0, 1, 2, 2]


def test_a_cost_is_never_asked_about_no_architecture(name: str) -> None:
    """Of 4^20 architectures, one is within the limit, and `np.stack` refuses an empty list."""
    space = choice_space(20)

    def cost(archs: Sequence[Mapping[str, int]]) -> dict[str, np.ndarray]:
        return {"macs": np.stack([np.float64(size_cost(arch)["macs"]) for arch in archs])}

    assert len(drive(make_strategy(name, Problem(space, {"top1": "maximize"}, {"macs": 0}, cost)), 10)) == 1


def test_a_limit_without_any_architecture_ends(name: str) -> None:
    assert make_strategy(name, choice_problem(limit=-1, genes=20)).ask(0, set()) is None


def test_a_limit_on_an_evaluated_metric_leaves_infeasible_trials(name: str) -> None:
    problem = Problem(choice_space(), {"top1": "maximize"}, {"error_rate": 0.3})
    trials = drive(make_strategy(name, problem), length(name, 80))
    assert {trial.feasible for trial in trials} == {True, False}
    assert all(trial.feasible == (trial.metrics["error_rate"] <= 0.3) for trial in trials)


def test_failures_alone_do_not_end_a_search(name: str) -> None:
    problem = choice_problem()
    strategy, taken = make_strategy(name, problem), set[str]()
    for number in range(length(name, 60)):
        arch = strategy.ask(number, taken)
        assert arch is not None
        taken.add(arch.key)
        strategy.tell(failed_trial(problem, number, arch))


def test_ties_everywhere_are_no_trouble(name: str) -> None:
    n = length(name, 60)
    assert len(drive(make_strategy(name, choice_problem()), n, lambda arch: {"top1": 0.5})) == n


def test_the_registry_makes_it(name: str) -> None:
    assert type(strategies.get(name, choice_problem(), 0)) is STRATEGIES[name]
    with pytest.raises(ValueError, match=r"unknown strategy 'annealing'; valid: random, evolution"):
        strategies.get("annealing", choice_problem(), 0)
    with pytest.raises(ValueError, match="seed must not be negative"):
        strategies.get(name, choice_problem(), -1)


def mean_of_best(name: str, problem: Problem, n: int) -> float:
    runs = [drive(make_strategy(name, problem, seed), n, even_score) for seed in range(3)]
    return float(np.mean([max(t.metrics["top1"] for t in trials if t.feasible) for trials in runs]))


def test_it_is_no_worse_than_random(name: str) -> None:
    problem = Problem(choice_space(20), {"top1": "maximize"}, {"macs": 300.0}, batch_cost(size_cost))
    n = length(name, 100) if name in SLOW else 100  # as many as a model needs to have an advantage
    assert mean_of_best(name, problem, n) >= mean_of_best("random", problem, n)


def test_a_population_prefers_less_violation(name: str) -> None:
    """Where nothing is feasible yet, learning strategies move towards the limit."""
    problem = Problem(choice_space(10), {"top1": "maximize"}, {"size": 5.0})
    trials = drive(
        make_strategy(name, problem), 20 if name in SLOW else 100, lambda a: {"top1": 1.0, "size": size_cost(a)["macs"]}
    )  # type: ignore[arg-type]
    early, late = (np.mean([t.violation for t in part]) for part in (trials[:10], trials[-10:]))
    assert late < early or name == "random"


class Stubborn(Strategy):
    """Always has the same idea."""

    def candidates(self, number: int, rng: np.random.Generator) -> Iterator[ArchLike]:
        while True:
            yield self.problem.space.smallest()


def test_an_unhelpful_strategy_still_gets_everywhere(name: str) -> None:
    problem = choice_problem(genes=2)
    assert len(drive(Stubborn(problem, 0), 100)) == 16
    large = choice_problem(genes=20)
    assert len(drive(Stubborn(large, 0), 30)) == 30
    arch = sample_feasible(large.space, np.random.default_rng(0), {}, None)
    assert complete_trial(large, 0, arch, {"top1": 1.0}).feasible
