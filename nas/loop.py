"""The search loop: asks a strategy, has a pool evaluate, records trials in order. Knows no torch, ray or optuna.

A proposal may depend on results up to `lookahead` trials back and on no other. So workers may finish in any order,
die, or change in number, and the history stays identical; a restart replays the store and goes on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from nas.cache import EvaluationCache
from nas.problem import Problem
from nas.strategies.base import Strategy
from nas.trial import State, Trial
from search_spaces.arch import ArchLike
from workers.pool import Pool, Result

log = logging.getLogger(__name__)

Outcome = Literal["finished", "exhausted", "stopped"]

_STOP_INTERVAL = 0.5  # seconds between two looks at `stop` while evaluations run
_BUSY = 1.5  # lookahead over workers from which on nearly all are busy: benchmarks/search_overhead.py
_HOPELESS = 8  # failures, without a success in the whole study, after which a run gives up


class AllTrialsFailedError(RuntimeError):
    """Not one evaluation of the study succeeded, so the evaluator itself is at fault; the trials stay recorded."""


class Store(Protocol):
    """Where the trials of a study are kept, in order of number."""

    @property
    def trials(self) -> Sequence[Trial]:
        """Every trial recorded so far."""
        ...

    def append(self, trial: Trial) -> None:
        """Records the next trial, durably where the store is a file."""
        ...


def run(
    problem: Problem,
    strategy: Strategy,
    pool: Pool,
    store: Store,
    n_trials: int,
    lookahead: int,
    cache: EvaluationCache | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Searches until `store` holds `n_trials` trials, the space is exhausted, or `stop` says so.

    strategy: fresh; the trials in the store are told to it first.
    lookahead: trial n is proposed from the results of trials 0 to n - lookahead, so no more evaluations than that can
        be under way. At least 1; 1.5 times the number of workers keeps 97 % of them busy where evaluations take
        1 s ± 50 %, as many as there are workers 67 %. It belongs to the study and must not change between runs.
    cache: results found here that have every metric are not evaluated again; what is evaluated enters at once, so a
        crash loses none.
    on_trial: called with each new trial after it was recorded.
    stop: asked between evaluations; when true, what has finished is kept and nothing new begins.
    Raises AllTrialsFailedError when the evaluator never succeeds, and WorkerStartError when no worker starts.
    """
    if lookahead < 1:
        raise ValueError(f"lookahead must be at least 1, got {lookahead}")
    if pool.size > lookahead:
        log.warning(
            "only %d of %d workers can be busy: the study's lookahead is %d; with %d or more, in a new study, all are",
            lookahead, pool.size, lookahead, math.ceil(_BUSY * pool.size),
        )  # fmt: skip
    loop = _Loop(problem, strategy, pool, store, n_trials, lookahead, cache or EvaluationCache())
    for trial in loop.trials(stop or (lambda: False)):
        if on_trial:
            on_trial(trial)
    return loop.outcome


class _Loop:
    """One run: trials below `len(store.trials)` are recorded, the ones from there to `next` are under way."""

    def __init__(
        self,
        problem: Problem,
        strategy: Strategy,
        pool: Pool,
        store: Store,
        n_trials: int,
        lookahead: int,
        cache: EvaluationCache,
    ) -> None:
        self.problem, self.strategy, self.pool, self.store, self.cache = problem, strategy, pool, store, cache
        self.lookahead, self.end = lookahead, n_trials
        self.outcome: Outcome = "finished"
        self.next = len(store.trials)
        self.told = 0
        self.taken = {trial.arch.key for trial in store.trials}
        self.running: dict[int, ArchLike] = {}
        self.finished: dict[int, Trial] = {}  # complete, but behind a trial that is not
        self.failures = 0  # recorded by this run
        self.hopeless = all(trial.state == "failed" for trial in store.trials)

    def trials(self, stop: Callable[[], bool]) -> Iterator[Trial]:
        """Yields each trial once it is recorded."""
        while not stop():
            self._propose()
            recorded = False
            for trial in self._record():
                recorded = True
                yield trial
            if recorded:
                continue  # which may allow further proposals
            if not self.running:
                return
            self._collect(_STOP_INTERVAL)
        self.outcome = "stopped"
        self._collect(0)
        yield from self._record()

    def _propose(self) -> None:
        while self.next < self.end and self.next - self.lookahead < len(self.store.trials):
            while self.told <= self.next - self.lookahead:
                self.strategy.tell(self.store.trials[self.told])
                self.told += 1
            arch = self.strategy.ask(self.next, self.taken)
            if arch is None:
                log.info("no further architecture is left after %d trials", self.next)
                self.end, self.outcome = self.next, "exhausted"
                return
            self.taken.add(arch.key)
            known = self.cache.get(arch.key)
            if known is None or not known.keys() >= set(self.problem.required):
                self.running[self.next] = arch
                self.pool.submit(self.next, arch)
            else:
                self.finished[self.next] = self._trial(arch, Result(self.next, known, None, "cache", 0.0))
            self.next += 1

    def _collect(self, timeout: float) -> None:
        for result in self.pool.wait(timeout):
            arch = self.running.pop(result.number)
            if result.metrics is not None:
                self.cache.put(arch.key, result.metrics)
            self.finished[result.number] = self._trial(arch, result)

    def _record(self) -> Iterator[Trial]:
        while trial := self.finished.pop(len(self.store.trials), None):
            self.store.append(trial)
            yield trial
            self._give_up_if_hopeless(trial)

    def _give_up_if_hopeless(self, trial: Trial) -> None:
        self.hopeless &= trial.state == "failed"
        self.failures += 1
        if self.hopeless and self.failures == _HOPELESS:
            first = self.store.trials[0]
            raise AllTrialsFailedError(
                f"all of the first {len(self.store.trials)} trials failed; trial 0: {first.error}"
            )

    def _trial(self, arch: ArchLike, result: Result) -> Trial:
        costs = self.problem.costs(arch)
        error = result.error
        if result.metrics is not None:
            missing = [name for name in self.problem.required if name not in result.metrics]
            if missing:
                names = ", ".join(result.metrics) or "none"
                error = f"the evaluator did not return metric {missing[0]!r}; it returned: {names}"
        metrics = costs if error else {**(result.metrics or {}), **costs}
        constraints = self.problem.constraints(metrics)
        state: State = "failed" if error else "complete"
        return Trial(result.number, arch, state, metrics, constraints, result.worker, result.seconds, error)
