"""`search`: the whole search as one function, and the `Study` that it returns."""

from __future__ import annotations

import functools
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nas import loop, pareto, strategies
from nas.cache import EvaluationCache
from nas.derived import Derivation, DerivingStore
from nas.problem import Problem, batch_cost
from nas.status import reporting
from nas.store import Identity, JournalStore, MemoryStore, read_study
from nas.trial import Trial
from search_spaces import cost as network_cost
from search_spaces.feasible import preflight
from search_spaces.limits import BatchCost, Limit
from search_spaces.network import NetworkSpace
from search_spaces.space import Space
from workers.evaluator import CallableEvaluator, EvaluatorSpec
from workers.pool import LocalPool, Pool, check_timeout

Evaluate = Callable[[Any], float | Mapping[str, float]]


@dataclass(frozen=True)
class Study:
    """The trials of a search, and what they were searched for.

    outcome: "finished", "exhausted" (the space has no further architecture) or "stopped".
    report: what the strategy says of itself after a search, such as `kendall_top1` of a predictor.
    """

    objectives: Mapping[str, str]
    limits: Mapping[str, Limit]
    trials: Sequence[Trial]
    outcome: loop.Outcome = "finished"
    report: Mapping[str, float] = field(default_factory=dict)

    def front(self) -> list[Trial]:
        """The feasible trials that no other dominates, in order of number."""
        return pareto.front(self.trials, self.objectives)

    @property
    def best(self) -> Trial | None:
        """The feasible trial that is best by the first objective; None when there is none."""
        return pareto.best(self.trials, self.objectives)


def search(
    space: Space[Any],
    evaluate: Evaluate | EvaluatorSpec,
    *,
    n_trials: int,
    seed: int = 0,
    strategy: str = strategies.DEFAULT_STRATEGY,
    objectives: Mapping[str, str] | None = None,
    limits: Mapping[str, Limit] | None = None,
    cost: Callable[[Any], Mapping[str, float]] | BatchCost | None = None,
    metrics: Sequence[str] | None = None,
    storage: Path | str | None = None,
    study_name: str = "default",
    context: Mapping[str, str] | None = None,
    cost_context: Mapping[str, str] | None = None,
    derive: Derivation | None = None,
    cache: Path | str | None = None,
    num_workers: int = 0,
    num_cpus: float = 1,
    num_gpus: float = 0,
    address: str = "local",
    evaluation_timeout: float | None = None,
    lookahead: int = 8,
    on_trial: Callable[[Trial], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Study:
    """Searches `space` until the study has `n_trials` trials; an existing study of the same identity is continued.

    evaluate: a function of one architecture that returns metrics by name, or a number (then the first objective).
        It must give equal metrics for equal architectures. Or an `EvaluatorSpec`. What raises or is not finite is
        recorded as a failed trial.
    n_trials: trials in all, those of earlier runs included.
    strategy: a name in `nas.strategies.STRATEGIES`.
    objectives: metric to "maximize" or "minimize", the most important first; default {"top1": "maximize"}.
    limits: metric to upper limit, or to (lowest, highest), of which one may be None.
    cost: metrics known without evaluation, of one architecture; or of many at once where the function has a true
        attribute `batched`. A `NetworkSpace` has `macs` and `params` by default.
    metrics: what `evaluate` returns, where that is known: a misspelt objective or limit is then refused at once.
    storage: journal file of the study; None keeps it in memory.
    context: what else the results depend on, such as a checkpoint's hash; part of the study's identity.
    cost_context: what `cost` depends on; part of the identity, too, but not of what evaluations are shared by.
    derive: metrics that this process computes from an evaluation's, which the cache keeps as it was.
    cache: file of evaluations to share with other searches of the same `context`, which then must be given. By
        default a study with a `storage` has a file beside it of its own.
    num_workers: 0 evaluates in this process, otherwise the number of Ray actors, each with `num_cpus` and `num_gpus`.
    address: of Ray: "local" starts one for this search, "auto" or "host:6379" connects.
    evaluation_timeout: seconds after which a worker is ended and its evaluation tried again, three times in all; then
        the trial is a failed one. None waits as long as it takes.
    lookahead: trial n may depend on trials 0 to n - lookahead; see `nas.loop.run`, also for `on_trial` and `stop`.

    Raises ValueError for settings that make no sense, InfeasibleLimitsError (with the nearest reachable values) before
    anything is started, StudyError when the study exists with other settings or is in use, AllTrialsFailedError when
    no evaluation succeeds, WorkerStartError when the evaluator cannot be built.
    """
    n_trials, num_workers = _integer("n_trials", n_trials, 0), _integer("num_workers", num_workers, 0)
    seed, lookahead = _integer("seed", seed, 0), _integer("lookahead", lookahead, 1)
    if cache is not None and not context:
        raise ValueError("a shared cache needs a context that tells one evaluator's results from another's")
    if isinstance(metrics, str):
        raise ValueError(f"metrics must be a sequence of names, for example ['top1'], got {metrics!r}")
    check_timeout(evaluation_timeout, num_workers)
    problem = Problem(
        space,
        objectives or {"top1": "maximize"},
        limits or {},
        _batch_cost(space, cost),
        None if metrics is None else tuple(metrics),
    )
    searcher = strategies.get(strategy, problem, seed)
    preflight(space, problem.limits, problem.cost)
    identity = Identity(
        study_name, space.to_dict(), problem.objectives, problem.limits, strategy, seed, lookahead,
        {**(context or {}), **(cost_context or {}), **(derive.context if derive else {})},
    )  # fmt: skip
    spec = _spec(evaluate, next(iter(problem.objectives)))
    with ExitStack() as stack:
        store = MemoryStore() if storage is None else JournalStore(storage, identity, space, n_trials)
        stack.callback(store.close)
        evaluations = stack.enter_context(closing(_cache(cache, context, storage, store.uid)))
        pool = stack.enter_context(_pool(spec, num_workers, num_cpus, num_gpus, address, evaluation_timeout))
        recorded = DerivingStore(store, problem, derive) if derive else store
        outcome = loop.run(
            problem, searcher, pool, recorded, n_trials, lookahead, evaluations,
            on_trial=on_trial and (lambda trial: on_trial(store.trials[trial.number])),
            stop=stop if storage is None else reporting(Path(storage), pool, stop or (lambda: False)),
        )  # fmt: skip
        if outcome == "exhausted":
            store.exhaust()
    return Study(problem.objectives, problem.limits, store.trials, outcome, searcher.report())


def load_study(storage: Path | str, study_name: str | None = None) -> Study:
    """The study in a journal file, read without disturbing a search that writes it. Raises StudyError."""
    stored = read_study(storage, study_name)
    return Study(stored.identity.objectives, stored.identity.limits, stored.trials)


def _integer(name: str, value: Any, low: int) -> int:
    """`value` as an int; numpy's integers are integers too."""
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if number < low or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")
    return number


def _batch_cost(space: Space[Any], cost: Callable[[Any], Mapping[str, float]] | BatchCost | None) -> BatchCost | None:
    if cost is not None:
        return batch_cost(cast(Callable[[Any], Mapping[str, float]], cost))
    return functools.partial(network_cost.costs, space) if isinstance(space, NetworkSpace) else None


def _spec(evaluate: Evaluate | EvaluatorSpec, metric: str) -> EvaluatorSpec:
    if isinstance(evaluate, EvaluatorSpec):
        return evaluate
    return EvaluatorSpec(functools.partial(CallableEvaluator, evaluate, metric))


def _cache(
    cache: Path | str | None, context: Mapping[str, str] | None, storage: Path | str | None, uid: str
) -> EvaluationCache:
    if cache is not None:
        return EvaluationCache(cache, json.dumps(context, sort_keys=True))
    if storage is None:
        return EvaluationCache()
    return EvaluationCache(f"{storage}.evaluations", uid)


def _pool(
    spec: EvaluatorSpec, num_workers: int, num_cpus: float, num_gpus: float, address: str, timeout: float | None
) -> Pool:
    if num_workers == 0:
        return LocalPool(spec)
    from workers.ray_pool import RayPool  # slow to import, and not needed in process

    return RayPool(spec, num_workers, num_cpus, num_gpus, address, timeout)
