"""`RayPool`: one Ray actor per worker, in a local Ray of its own or on a cluster."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from search_spaces.arch import ArchLike
from workers.evaluator import Evaluator, EvaluatorSpec
from workers.pool import Result, Task, Workers, WorkerStartError, check_timeout, describe, run_together, worker_name
from workers.ray_connect import connect, environment, warn_if_short_of
from workers.task_queue import TaskQueue

log = logging.getLogger(__name__)

_START_TRIES = 3  # workers that may die in a row while starting
_CALL_SECONDS = 0.03  # of short evaluations that share a call: hides what a call costs, and holds up nobody
_NODE_DIED = "its node has died"  # in Ray's message; it has no type or attribute for that


class _Worker:
    """Lives in its own process; returns what goes wrong, for a raising constructor looks like a dead process."""

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None
        self._batch = 1

    def start(self, factory: Any, shared: Any, batch: int) -> str | None:
        """Builds the evaluator; returns the error, or None."""
        self._batch = batch
        try:
            self._evaluator = EvaluatorSpec(factory, shared).build()
        except Exception as error:
            return describe(error)
        return None

    def evaluate(self, tasks: tuple[Task, ...]) -> list[Result]:
        assert self._evaluator is not None
        results: list[Result] = []
        for i in range(0, len(tasks), self._batch):
            results += run_together(self._evaluator, tasks[i : i + self._batch], worker_name())
        return results


@dataclass(frozen=True)
class _Call:
    """What an actor is doing: evaluating `tasks`, or starting where there are none.

    deadline: on the monotonic clock; infinite where it may take as long as it takes.
    """

    actor: Any
    tasks: tuple[Task, ...] = ()
    deadline: float = math.inf


class RayPool:
    """`num_workers` actors with one call under way each; all share one copy of `spec.shared` per machine.

    Actors for which the cluster has no room yet wait, and work as soon as a machine joins. One whose process dies,
    whose machine is gone or that hangs is replaced and its evaluations queued again, up to three tries; then the
    evaluation is a failed result that names the architecture. What the end of a machine interrupts is always tried
    again, ten times at most. Evaluations of a few milliseconds go out several at a time: see `TaskQueue`.

    num_cpus, num_gpus: what Ray reserves for one actor; fractions are allowed. An actor computes with
        max(1, floor(num_cpus)) threads, whatever the machine has, so that results do not depend on it.
    address: "local" starts a private Ray and ends it on closing; "auto" or "host:6379" connects to a cluster. Where
        this process is connected to Ray already, that connection is used and left alone.
    evaluation_timeout: seconds, times the evaluations of a batch, after which it hangs; None lets it run. It also
        bounds how long a machine that vanished without closing its connections goes unnoticed, which takes Ray about
        a minute.
    Raises ConnectionError when no cluster answers at `address`, WorkerStartError when the factory cannot be pickled
    or a private Ray has not the GPUs for one actor.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        num_workers: int,
        num_cpus: float = 1,
        num_gpus: float = 0,
        address: str = "local",
        evaluation_timeout: float | None = None,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        check_timeout(evaluation_timeout, num_workers)
        self._size, self._spec = num_workers, spec
        self._timeout = math.inf if evaluation_timeout is None else evaluation_timeout
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            connect(address, math.ceil(num_workers * num_cpus), None if num_gpus else 0)
        self._shared: ray.ObjectRef | None = None
        self._queue = TaskQueue(min(_CALL_SECONDS, self._timeout / 10), spec.batch)
        self._idle: list[Any] = []
        self._busy: dict[ray.ObjectRef, _Call] = {}
        self._failed_starts = self._restarted = 0
        try:
            if self._owns_ray and address == "local":
                _require_gpus(num_gpus)
            self._shared = None if spec.shared is None else ray.put(dict(spec.shared))
            warn_if_short_of(num_workers, {"CPU": num_cpus, "GPU": num_gpus})
            self._actor_class: Any = ray.remote(_Worker).options(
                num_cpus=num_cpus, num_gpus=num_gpus, runtime_env={"env_vars": environment(num_cpus, address)}
            )
            for _ in range(num_workers):
                self._start_actor()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Number of actors."""
        return self._size

    def workers(self) -> Workers:
        """What the actors do now."""
        busy = sum(bool(call.tasks) for call in self._busy.values())
        return Workers(len(self._idle) + busy, busy, self._restarted)

    def submit(self, number: int, arch: ArchLike) -> None:
        """Queues the evaluation for the next idle actor; a short one waits for `wait`, which may find it company."""
        self._queue.add(number, arch)
        if not self._queue.batching:
            self._assign()

    def wait(self, timeout: float | None = None) -> list[Result]:
        """Gives what has finished; see `Pool.wait`. Raises WorkerStartError when actors cannot start."""
        end = math.inf if timeout is None else time.monotonic() + timeout
        results: list[Result] = []
        self._assign()
        while not results and (self._queue or any(call.tasks for call in self._busy.values())):
            for ref in self._ready(end):
                results += self._finish(ref)
            for ref in [ref for ref, call in self._busy.items() if call.deadline <= time.monotonic()]:
                results += self._end_hanging(ref)
            self._assign()
            if time.monotonic() >= end:
                break
        return results

    def close(self) -> None:
        """Ends the actors, and Ray where this pool started it."""
        for actor in [*self._idle, *(call.actor for call in self._busy.values())]:
            ray.kill(actor)
        self._idle, self._busy, self._shared = [], {}, None
        self._queue.clear()
        if self._owns_ray:
            self._owns_ray = False
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _assign(self) -> None:
        while self._idle and self._queue:
            under_way = sum(len(call.tasks) for call in self._busy.values())
            tasks = self._queue.take(self._size, len(self._idle), under_way)
            actor = self._idle.pop()
            deadline = time.monotonic() + self._timeout * min(len(tasks), self._spec.batch)
            self._busy[actor.evaluate.remote(tasks)] = _Call(actor, tasks, deadline)

    def _start_actor(self) -> None:
        actor = self._actor_class.remote()
        try:
            started = actor.start.remote(self._spec.factory, self._shared, self._spec.batch)
        except TypeError as error:
            raise WorkerStartError(f"the evaluator cannot be sent to a worker: {error}") from error
        self._busy[started] = _Call(actor)

    def _ready(self, end: float) -> list[ray.ObjectRef]:
        """The calls that are over; waits for one until `end`, or until a call becomes overdue."""
        until = min([end, *(call.deadline for call in self._busy.values())])
        seconds = None if until == math.inf else max(0.0, until - time.monotonic())
        ready, _ = ray.wait(list(self._busy), timeout=seconds, fetch_local=False)
        if ready:  # with one, others may have ended
            ready, _ = ray.wait(list(self._busy), num_returns=len(self._busy), timeout=0, fetch_local=False)
        return ready

    def _finish(self, ref: ray.ObjectRef) -> list[Result]:
        call = self._busy.pop(ref)
        try:
            answer = ray.get(ref)
        except RayTaskError as error:  # outside of what the worker catches: what was sent cannot be unpickled there
            answer = describe(error.cause or error)
        except RayError as error:
            return self._lose(call, error)
        if not call.tasks and answer is not None:
            raise WorkerStartError(f"the evaluator could not be built: {answer}")
        self._idle.append(call.actor)
        if not call.tasks:
            self._failed_starts = 0
            return []
        return self._queue.broken(call.tasks, answer) if isinstance(answer, str) else self._queue.finished(answer)

    def _lose(self, call: _Call, error: RayError) -> list[Result]:
        """Replaces an actor that died."""
        machine_gone = isinstance(error, ActorUnavailableError) or _NODE_DIED in str(error)
        cause = "its machine is gone or out of reach" if machine_gone else type(error).__name__
        log.warning("a worker died (%s) and is replaced", cause)
        # not with its machine: one end takes every start there, and the next one waits until there is room elsewhere
        if not call.tasks and not machine_gone:
            self._failed_starts += 1
            if self._failed_starts >= _START_TRIES:
                raise WorkerStartError(f"{_START_TRIES} workers in a row died while starting: {error}")
        self._replace(call.actor)
        return self._queue.lost(call.tasks, f"died ({cause})", blame=not machine_gone)

    def _end_hanging(self, ref: ray.ObjectRef) -> list[Result]:
        call = self._busy.pop(ref)
        keys = ", ".join(task.arch.key for task in call.tasks)
        log.warning("a worker is replaced: it did not finish within %g s: %s", self._timeout, keys)
        self._replace(call.actor)
        return self._queue.lost(call.tasks, f"took longer than the evaluation timeout of {self._timeout:g} s")

    def _replace(self, actor: Any) -> None:
        ray.kill(actor)  # it may only hang or be out of reach, and must not go on
        self._restarted += 1
        self._start_actor()


def _require_gpus(num_gpus: float) -> None:
    """Nothing ever joins a private Ray, so an actor that does not fit would wait for ever."""
    there = ray.cluster_resources().get("GPU", 0)
    if num_gpus > there:
        raise WorkerStartError(f"a worker needs {num_gpus:g} GPU and this machine has {there:g}")
