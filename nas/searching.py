"""`search_run`: searches the subnets of a trained run, and reads its studies."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nas import front_latency, pareto, strategies
from nas.calibrations import (
    concern_beyond_sample,
    is_recalibrated,
    load_calibration,
    require_calibration,
    require_calibration_of,
)
from nas.evaluating import check_evaluator, context_of, evaluator_spec
from nas.problem import Problem
from nas.profiles import Profile, contexts, contexts_of, costs_with, keep
from nas.quantities import LATENCY
from nas.run import Run, RunError
from search_spaces.arch import Arch
from search_spaces.feasible import preflight
from search_spaces.limits import Limit, bounds
from workers.pool import check_address, check_timeout

if TYPE_CHECKING:
    from nas.derived import Derivation
    from nas.loop import Outcome
    from nas.store import StoredStudy
    from nas.study import Study
    from nas.trial import Trial

log = logging.getLogger(__name__)

EVALUATED = ("top1",)
SCORES = ("inherited", "calibrated")
DEFAULT_OBJECTIVES = ("top1", "macs")
LOOKAHEAD = 8


def search_run(
    run: Run | str | Path,
    *,
    n_trials: int = 100,
    study_name: str = "default",
    strategy: str = strategies.DEFAULT_STRATEGY,
    limits: Mapping[str, Limit] | None = None,
    objectives: tuple[str, ...] | list[str] = DEFAULT_OBJECTIVES,
    num_workers: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    evaluation_timeout: float | None = None,
    lookahead: int = LOOKAHEAD,
    score: str = "inherited",
    evaluator: str | None = None,
    worker_memory: float | None = None,
    profiles: Sequence[Profile] = (),
    seed: int = 0,
    address: str = "local",
    on_trial: Callable[[Trial], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Study:
    """Searches the subnets of a trained supernet; an existing study of that name is continued to `n_trials`.

    run: opened, or its folder, or a URL that fsspec serves, where what is written is published as it goes.

    Each architecture is exported, its batch norms are recalibrated on the calibration split, and it is scored on the
    search-validation split: `top1` from 0 to 1. `macs`, `params`, `peak_memory` and `weight_bytes` (both in bytes) are
    known beforehand, and for each of the `profiles` a latency: what 95 % of architectures do not exceed on that device.
    It is called `latency_ms`, or where there are several profiles `latency_ms_<name>`.
    limits: upper limits on any of these, or pairs (lowest, highest). objectives: their names, the most important first.
    score: "inherited", or "calibrated": `top1` then is the stand-alone accuracy that the calibration of `nas trust`
    predicts, `top1_std` its standard deviation, and `top1_inherited` what was measured. A study has one of the two.
    evaluator: a name in `supernet.evaluators.EVALUATORS`; by default "fast", and "reference" on a GPU, where "fast" has
    not been measured. They give the same answers, so a study may go on with another one.
    worker_memory: bytes for the weights and activations of the subnets that "fast" evaluates at a time.
    num_workers: Ray actors; by default one for each CPU, but no more than `lookahead`; 0 evaluates in this process.
    num_gpus: where it is not 0, subnets are scored on a GPU. Such a study is another one than on the CPU, and shares no
    evaluations with it: accuracies may differ by an image.
    The other parameters, and what is raised beside RunError and CheckpointError: `nas.study.search`.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if num_workers is None:
        num_workers = min(os.cpu_count() or 1, lookahead)
    check_search(
        run, study_name=study_name, strategy=strategy, limits=limits, objectives=objectives, score=score, seed=seed,
        profiles=profiles, num_workers=num_workers, evaluation_timeout=evaluation_timeout, lookahead=lookahead,
        address=address, evaluator=evaluator, worker_memory=worker_memory,
    )  # fmt: skip
    storage = run.study(study_name)

    from nas.study import search

    with run.publishing(storage):
        keep(run, profiles)
        spec, context = evaluator_spec(run, "cuda" if num_gpus else "cpu", evaluator, worker_memory)
        derive = _derivation(run, study_name, context["weights"], limits or {}) if score == "calibrated" else None
        return search(
            run.space,
            spec,
            n_trials=n_trials,
            seed=seed,
            strategy=strategy,
            objectives=directions(objectives),
            limits=limits,
            cost=costs_with(run.space, profiles),
            metrics=EVALUATED,
            storage=storage,
            study_name=study_name,
            context=context,
            cost_context=contexts(profiles),
            derive=derive,
            cache=run.evaluations,
            num_workers=num_workers,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            address=address,
            evaluation_timeout=evaluation_timeout,
            lookahead=lookahead,
            on_trial=on_trial,
            stop=stop,
        )


def check_search(
    run: Run,
    *,
    study_name: str = "default",
    strategy: str = strategies.DEFAULT_STRATEGY,
    limits: Mapping[str, Limit] | None = None,
    objectives: tuple[str, ...] | list[str] = DEFAULT_OBJECTIVES,
    num_workers: int | None = None,
    evaluation_timeout: float | None = None,
    lookahead: int = LOOKAHEAD,
    score: str = "inherited",
    evaluator: str | None = None,
    worker_memory: float | None = None,
    profiles: Sequence[Profile] = (),
    seed: int = 0,
    address: str = "local",
    **others: Any,
) -> None:
    """Raises for everything in the parameters of `search_run` that can be refused before torch and ray are imported."""
    run.study(study_name)
    cost = costs_with(run.space, profiles)
    require_profile([*objectives, *(limits or {})], profiles)
    problem = Problem(run.space, directions(objectives), limits or {}, cost, EVALUATED)
    strategies.get(strategy, problem, seed)
    preflight(run.space, problem.limits, cost)
    check_timeout(evaluation_timeout, num_workers)
    if num_workers != 0:
        check_address(address)
    check_evaluator(evaluator, worker_memory)
    if score not in SCORES:
        raise ValueError(f"unknown score {score!r}; valid: {', '.join(SCORES)}")
    if score == "calibrated":
        require_calibration(run)
    settings = {
        "objectives": problem.objectives, "limits": problem.limits, "strategy": strategy, "seed": seed,
        "lookahead": lookahead,
    }  # fmt: skip
    _check_study(run, study_name, settings, score, contexts(profiles))


def directions(objectives: Sequence[str]) -> dict[str, str]:
    """Which way each metric is better: accuracy up, whatever it costs down."""
    return {name: "maximize" if name in EVALUATED else "minimize" for name in objectives}


def require_profile(metrics: Sequence[str], profiles: Sequence[Profile]) -> None:
    """Raises ValueError naming a metric that is a latency, where there is no profile of a device."""
    if not profiles and (asked := [name for name in metrics if name.startswith(LATENCY)]):
        raise ValueError(f"{asked[0]} needs a device profile: --profile FILE, which `nas profile RUN -o FILE` makes")


def is_stale(run: Run, context: Mapping[str, str]) -> bool:
    """Whether a study of this context was searched on other weights, or images, than the run has now.

    Reads the head of the checkpoint alone; one that cannot be read tells nothing, and is left to who needs it.
    """
    from supernet.header import CheckpointError

    try:
        now = context_of(run.checkpoint_state())
    except (CheckpointError, LookupError, TypeError):
        return False
    return any(context.get(name) != value for name, value in now.items())


def _derivation(run: Run, study_name: str, weights: str, limits: Mapping[str, Limit]) -> Derivation:
    """By the run's calibration. Raises RunError where the study was searched with another one.

    Warns where the limits allow more MACs than the sample that the calibration was made of.
    """
    from nas.derived import calibrated
    from nas.store import StudyError

    calibration = load_calibration(run, weights)
    try:
        before = read_run_study(run, study_name).identity.context.get("calibration")
    except (RunError, StudyError):  # there is none, or not a whole one: whoever writes it begins it, or refuses it
        before = None
    require_calibration_of(run, study_name, before, calibration)
    if concern := concern_beyond_sample(run, calibration, bounds(limits.get("macs", math.inf))[1]):
        log.warning(concern)
    return calibrated(calibration)


def open_study(run: Run | str | Path, study_name: str = "default") -> Study:
    """A study of the run, without torch or ray; one of other weights or another calibration than the run's warns.

    Raises RunError listing the studies there are for an unknown name.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    stored = read_run_study(run, study_name)
    if is_stale(run, stored.identity.context):
        log.warning(
            "study %r was searched on weights that %s no longer has (trained further since): "
            "its scores are not those of an exported subnet",
            study_name, run.path,
        )  # fmt: skip
    elif is_recalibrated(run, stored.identity.context):
        log.warning(
            "study %r was scored by another calibration than %s has now (`nas trust` ran since)", study_name, run.path
        )  # fmt: skip

    from nas.study import Study

    outcome: Outcome = "exhausted" if stored.exhausted else "finished"
    return Study(stored.identity.objectives, stored.identity.limits, stored.trials, outcome)


def read_run_study(run: Run, study_name: str) -> StoredStudy:
    """As it is stored. Raises RunError listing the studies there are for an unknown name, StudyError for a bad file."""
    from nas.store import read_study

    if not run.study(study_name).exists():
        known = ", ".join(run.study_names()) or "none yet; make one with `nas search`"
        raise RunError(f"{run} has no study {study_name!r}; studies: {known}")
    return read_study(run.study(study_name), study_name)


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
        return cast(Arch, _best_measured(run, study_name, study).arch)
    if not 0 <= cast(int, trial) < len(study.trials):
        raise RunError(f"study {study_name!r} has no trial {trial}; valid: 0 to {len(study.trials) - 1}")
    return cast(Arch, study.trials[cast(int, trial)].arch)


def _best_measured(run: Run, study_name: str, study: Study) -> Trial:
    """The best trial, but for those that turned out to be over a latency limit where not all of the front did."""
    times = front_latency.of_front(run, study_name, study)
    over = {number for number, ms in times.items() if front_latency.over_budget(study.limits, ms)}
    left = [trial for trial in study.trials if trial.number not in over]
    return cast("Trial", pareto.best(left, study.objectives) or study.best)


def _check_study(
    run: Run, study_name: str, settings: Mapping[str, Any], score: str, profiles: Mapping[str, str]
) -> None:
    """Refuses to go on with a study that was searched with other settings, the other score or on other weights."""
    from nas.store import StudyError, require_same

    try:
        stored = read_run_study(run, study_name)
    except (RunError, StudyError):  # there is none, or not a whole one: to begin, or to refuse, by whoever writes it
        return
    if not stored.trials:
        return
    before = stored.identity.context.get("score", "inherited")
    if before != score:
        raise RunError(
            f"study {study_name!r} was searched with the {before} score and cannot go on with the {score} one; "
            f"use --score {before}, or another --study-name"
        )
    known = stored.identity.context
    others = {name: value for name, value in known.items() if name not in contexts_of(known)}
    now = replace(stored.identity, **settings, context={**others, **profiles})
    require_same(run.study(study_name), now, asdict(stored.identity))
