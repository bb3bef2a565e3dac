"""`search_run`: searches the subnets of a trained run, and reads its studies."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas import strategies
from nas.problem import Problem
from nas.run import Run, RunError
from search_spaces import cost as network_cost
from search_spaces.arch import Arch
from search_spaces.feasible import preflight

if TYPE_CHECKING:
    from nas.study import Study
    from nas.trial import Trial
    from workers.evaluator import EvaluatorSpec

EVALUATED = ("top1",)
DIRECTIONS = {"top1": "maximize", "macs": "minimize", "params": "minimize"}
DEFAULT_OBJECTIVES = ("top1", "macs")
LOOKAHEAD = 8


def search_run(
    run: Run | str | Path,
    *,
    n_trials: int = 100,
    study_name: str = "default",
    strategy: str = "evolution",
    limits: Mapping[str, float] | None = None,
    objectives: tuple[str, ...] | list[str] = DEFAULT_OBJECTIVES,
    num_workers: int | None = None,
    seed: int = 0,
    address: str = "local",
    on_trial: Callable[[Trial], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Study:
    """Searches the subnets of a trained supernet; an existing study of that name is continued to `n_trials`.

    Each architecture is exported, its batch norms are recalibrated on the calibration split, and it is scored on the
    search-validation split: `top1` from 0 to 1. `macs` and `params` are known beforehand.
    limits: upper limits on any of these. objectives: their names, the most important first.
    num_workers: Ray actors of one CPU each; by default one for each CPU, 0 evaluates in this process.
    The other parameters, and what is raised beside RunError and CheckpointError: `nas.study.search`.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    storage = run.study(study_name)
    if unknown := [name for name in objectives if name not in DIRECTIONS]:
        raise ValueError(f"unknown metric {unknown[0]!r}; valid: {', '.join(DIRECTIONS)}")
    directions = {name: DIRECTIONS[name] for name in objectives}
    # everything that can be refused is, before torch and ray are even imported
    cost = functools.partial(network_cost.costs, run.space)
    problem = Problem(run.space, directions, limits or {}, cost, EVALUATED)
    strategies.get(strategy, problem, seed)
    preflight(run.space, problem.limits, cost)
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, LOOKAHEAD)

    from nas.study import search

    spec, context = evaluator_spec(run)
    return search(
        run.space,
        spec,
        n_trials=n_trials,
        seed=seed,
        strategy=strategy,
        objectives=directions,
        limits=limits,
        metrics=EVALUATED,
        storage=storage,
        study_name=study_name,
        context=context,
        cache=run.evaluations,
        num_workers=num_workers,
        address=address,
        lookahead=LOOKAHEAD,
        on_trial=on_trial,
        stop=stop,
    )


def evaluator_spec(run: Run) -> tuple[EvaluatorSpec, dict[str, str]]:
    """How workers build the run's evaluator, and what its results depend on: the weights and the split."""
    from nas.training import load_trained
    from supernet.evaluate import evaluator_from_arrays, shared_arrays
    from workers.evaluator import EvaluatorSpec

    supernet, state, data = load_trained(run)
    factory = functools.partial(evaluator_from_arrays, run.space.to_dict(), data.mean, data.std, "cpu")
    spec = EvaluatorSpec(factory, shared_arrays(supernet.state_dict(), data))
    return spec, {"weights": state["weights_hash"][:16], "data": state["data"][:16], "split": "validation"}


def open_study(run: Run | str | Path, study_name: str = "default") -> Study:
    """A study of the run, without torch or ray. Raises RunError listing the studies there are for an unknown name."""
    run = run if isinstance(run, Run) else Run.open(run)
    if not run.study(study_name).exists():
        known = ", ".join(run.study_names()) or "none yet; make one with `nas search`"
        raise RunError(f"{run.path} has no study {study_name!r}; studies: {known}")

    from nas.study import load_study

    return load_study(run.study(study_name), study_name)


def pick_arch(
    run: Run, study_name: str = "default", *, trial: int | None = None, best: bool = False, arch: str | None = None
) -> Arch:
    """The architecture meant by exactly one of a trial's number, the best feasible trial, or a JSON text.

    Raises ValueError naming what is missing, unknown or ill-formed, with the valid values.
    """
    if (trial is not None) + best + (arch is not None) != 1:
        raise ValueError("say which architecture: exactly one of --trial N, --best and --arch JSON")
    if arch is not None:
        try:
            data = json.loads(arch)
        except ValueError as error:
            raise ValueError(f"--arch is not JSON: {error}") from None
        return run.space.arch_from_dict(data)
    study = open_study(run, study_name)
    if best:
        if study.best is None:
            raise RunError(f"study {study_name!r} has no feasible trial among its {len(study.trials)}")
        return cast(Arch, study.best.arch)
    if not 0 <= cast(int, trial) < len(study.trials):
        raise RunError(f"study {study_name!r} has no trial {trial}; valid: 0 to {len(study.trials) - 1}")
    return cast(Arch, study.trials[cast(int, trial)].arch)


def summarize(study: Study) -> dict[str, Any]:
    """The study as plain JSON types: objectives, limits, number of trials by state, and the front."""
    front = [
        {"number": t.number, "key": t.arch.key, "metrics": dict(t.metrics), "arch": t.arch.to_dict()}
        for t in study.front()
    ]
    return {
        "objectives": dict(study.objectives),
        "limits": dict(study.limits),
        "n_trials": len(study.trials),
        "n_failed": sum(t.state == "failed" for t in study.trials),
        "best": study.best.number if study.best else None,
        "front": front,
    }
