"""The searchers that ours are held against, used as their own documentation does: one evaluation after another.

Each gives the architectures that it evaluates, in order; some come more than once. Where there is a limit, what is
beyond it is evaluated and marked infeasible, for these searchers learn of costs no sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import ElementwiseProblem
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from search_tables import Task

Rival = Callable[[Task, int, int], list[Any]]


def points(task: Task, arch: Any) -> tuple[list[float], dict[str, float]]:
    """Objective values to be minimised, and the excess over each limit."""
    metrics = {**task.evaluate(arch), **task.problem.costs(arch)}
    signs = {"maximize": -1.0, "minimize": 1.0}
    values = [signs[direction] * metrics[name] for name, direction in task.problem.objectives.items()]
    return values, task.problem.constraints(metrics)


def with_optuna(make: Callable[[int], optuna.samplers.BaseSampler]) -> Rival:
    """`study.ask` and `study.tell` over one categorical parameter a gene."""

    def run(task: Task, n: int, seed: int) -> list[Any]:
        space, archs = task.problem.space, []
        study = optuna.create_study(directions=["minimize"] * len(task.problem.objectives), sampler=make(seed))
        for _ in range(n):
            trial = study.ask()
            genes = [trial.suggest_categorical(g.name, range(len(g.choices))) for g in space.genes]
            archs.append(space.decode(genes))
            values, excess = points(task, archs[-1])
            for name, value in excess.items():
                trial.set_constraint(name, value)
            study.tell(trial, values)
        return archs

    return run


def with_pymoo(task: Task, n: int, seed: int) -> list[Any]:
    """pymoo's NSGA-II over integers, population 20."""
    space, archs = task.problem.space, []

    class Table(ElementwiseProblem):
        def __init__(self) -> None:
            upper = [len(gene.choices) - 1 for gene in space.genes]
            super().__init__(
                n_var=len(upper), n_obj=len(task.problem.objectives), n_ieq_constr=len(task.problem.limits),
                xl=0, xu=np.array(upper), vtype=int,
            )  # fmt: skip

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            archs.append(space.decode([int(i) for i in x]))
            values, excess = points(task, archs[-1])
            out["F"], out["G"] = values, list(excess.values())

    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=UX(repair=RoundingRepair()),
        mutation=PM(vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    minimize(Table(), algorithm, ("n_eval", n), seed=seed)
    return archs[:n]


def regularized_evolution(task: Task, n: int, seed: int) -> list[Any]:
    """Real et al. 2019: population 20, tournaments of 5, one changed gene a child, the oldest dies. First objective."""
    space, rng, archs = task.problem.space, np.random.default_rng(seed), []
    population: deque[tuple[float, Any]] = deque(maxlen=20)
    for number in range(n):
        if number < 20:
            arch = space.sample(rng)
        else:
            tournament = [population[i] for i in rng.integers(len(population), size=5)]
            genes = list(space.encode(min(tournament, key=lambda member: member[0])[1]))
            i = int(rng.choice([i for i, gene in enumerate(space.genes) if len(gene.choices) > 1]))
            genes[i] = int(rng.choice([c for c in range(len(space.genes[i].choices)) if c != genes[i]]))
            arch = space.decode(genes)
        archs.append(arch)
        values, excess = points(task, arch)
        population.append((values[0] + 10 * max([0.0, *excess.values()]), arch))
    return archs


RIVALS: dict[str, Rival] = {
    "Optuna TPE": with_optuna(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "Optuna NSGA-II": with_optuna(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "pymoo NSGA-II": with_pymoo,
    "regularized evolution": regularized_evolution,
}
