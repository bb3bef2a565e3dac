"""`RayPool`: one Ray actor per worker, in a local Ray of its own or on a cluster.

With `ray_train` and `ray_jobs` the only place that knows Ray.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import grpc  # type: ignore[import-untyped]
import ray
from ray.exceptions import RayError, RayTaskError

from search_spaces.arch import ArchLike
from workers.evaluator import Evaluator, EvaluatorSpec
from workers.pool import Result, Task, WorkerStartError, describe, run_task, worker_name

log = logging.getLogger(__name__)

_TRIES = 3  # workers that may die of one evaluation, or in a row while starting, before that is given up
_CONNECT_SECONDS = 5.0  # for an address that answers at all
TOKEN_HINT = "where it asks for a token: RAY_AUTH_MODE=token, with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"


class _Worker:
    """Lives in its own process; returns what goes wrong, for a raising constructor looks like a dead process."""

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None

    def start(self, factory: Any, shared: Any) -> str | None:
        """Builds the evaluator; returns the error, or None."""
        try:
            self._evaluator = EvaluatorSpec(factory, shared).build()
        except Exception as error:
            return describe(error)
        return None

    def evaluate(self, task: Task) -> Result:
        assert self._evaluator is not None
        return run_task(self._evaluator, task, worker_name())


class RayPool:
    """`num_workers` actors with one evaluation under way each; all share one copy of `spec.shared` per machine.

    An actor whose process dies is replaced and its evaluation queued again, up to three tries; then the evaluation
    is a failed result that names the architecture.

    num_cpus, num_gpus: what Ray reserves for one actor; fractions are allowed. An actor computes with
        max(1, floor(num_cpus)) threads, whatever the machine has, so that results do not depend on it.
    address: "local" starts a private Ray and ends it on closing; "auto" or "host:6379" connects to a cluster. Where
        this process is connected to Ray already, that connection is used and left alone.
    Raises ConnectionError when no cluster answers at `address`, WorkerStartError when the factory cannot be pickled.
    """

    def __init__(
        self,
        spec: EvaluatorSpec,
        num_workers: int,
        num_cpus: float = 1,
        num_gpus: float = 0,
        address: str = "local",
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        self._size, self._spec = num_workers, spec
        self._owns_ray = not ray.is_initialized()
        if self._owns_ray:
            connect(address, math.ceil(num_workers * num_cpus), math.ceil(num_workers * num_gpus))
        self._shared: ray.ObjectRef | None = None
        self._tasks: deque[Task] = deque()
        self._idle: list[Any] = []
        self._busy: dict[ray.ObjectRef, tuple[Any, Task | None]] = {}  # no task: the actor is starting
        self._failed_starts = 0
        try:
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

    def submit(self, number: int, arch: ArchLike) -> None:
        """Queues the evaluation for the next idle actor."""
        self._tasks.append(Task(number, arch))
        self._assign()

    def wait(self, timeout: float | None = None) -> list[Result]:
        """Gives what has finished; see `Pool.wait`. Raises WorkerStartError when actors cannot start."""
        results: list[Result] = []
        while not results and (self._tasks or any(task for _, task in self._busy.values())):
            ready, _ = ray.wait(list(self._busy), timeout=timeout, fetch_local=False)
            if not ready:
                break
            ready, _ = ray.wait(list(self._busy), num_returns=len(self._busy), timeout=0, fetch_local=False)
            for ref in ready:
                results += self._finish(ref)
            self._assign()
        return results

    def close(self) -> None:
        """Ends the actors, and Ray where this pool started it."""
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor)
        self._idle, self._busy, self._shared = [], {}, None
        self._tasks.clear()
        if self._owns_ray:
            self._owns_ray = False
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _assign(self) -> None:
        while self._idle and self._tasks:
            actor, task = self._idle.pop(), self._tasks.popleft()
            self._busy[actor.evaluate.remote(task)] = (actor, task)

    def _start_actor(self) -> None:
        actor = self._actor_class.remote()
        try:
            started = actor.start.remote(self._spec.factory, self._shared)
        except TypeError as error:
            raise WorkerStartError(f"the evaluator cannot be sent to a worker: {error}") from error
        self._busy[started] = (actor, None)

    def _finish(self, ref: ray.ObjectRef) -> list[Result]:
        actor, task = self._busy.pop(ref)
        try:
            answer = ray.get(ref)
        except RayTaskError as error:  # outside of what the worker catches: the answer could not be pickled
            answer = describe(error.cause or error)
        except RayError as error:
            self._replace(actor, task, error)
            return self._retry(task, error)
        if task is None:
            if answer is not None:
                raise WorkerStartError(f"the evaluator could not be built: {answer}")
            self._failed_starts = 0
        self._idle.append(actor)
        if task is None:
            return []
        return [answer if isinstance(answer, Result) else Result(task.number, None, answer, "unknown", 0.0)]

    def _replace(self, actor: Any, task: Task | None, error: RayError) -> None:
        log.warning("a worker died (%s) and is replaced", type(error).__name__)
        ray.kill(actor)  # it may only be out of reach, and must not go on
        if task is None:
            self._failed_starts += 1
            if self._failed_starts >= _TRIES:
                raise WorkerStartError(f"{_TRIES} workers in a row died while starting: {error}")
        self._start_actor()

    def _retry(self, task: Task | None, error: RayError) -> list[Result]:
        if task is None:
            return []
        if task.tries + 1 < _TRIES:
            self._tasks.appendleft(replace(task, tries=task.tries + 1))
            return []
        text = f"{_TRIES} workers died evaluating {task.arch.key}: {type(error).__name__}"
        return [Result(task.number, None, text, "unknown", 0.0)]


def connect(address: str, num_cpus: int, num_gpus: int) -> None:
    """Connects this process to the Ray at `address`; "local" starts one with these resources.

    Raises ValueError for a malformed address, ConnectionError when no cluster answers there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with _sigterm_handler_kept():
        if address == "local":
            # Left unset, Ray writes a token to the home directory that later clients do not send.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            ray.init("local", num_cpus=num_cpus, num_gpus=num_gpus, include_dashboard=False, **quiet)
            return
        if address != "auto":
            _check_reachable(address)
        # Seconds to be let in by a cluster that answers; Ray takes 20, and a wrong token does not get better.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "5")
        try:
            ray.init(address, **quiet)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, or its own, by what is missing
            hint = f" ({TOKEN_HINT})" if isinstance(error, ConnectionError) else ""
            raise ConnectionError(f"cannot join the Ray cluster at {address!r}: {str(error).strip()}{hint}") from error


def _check_reachable(address: str) -> None:
    """Fails in seconds where Ray would go on trying for up to two minutes: nothing there, or no Ray."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ValueError(f"address is {address!r}; valid: local, auto, or host:port, for example 10.0.0.5:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
            with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=_CONNECT_SECONDS)
    except (OSError, OverflowError, grpc.RpcError) as error:
        reason = error.details() if isinstance(error, grpc.Call) else error
        raise ConnectionError(f"no Ray cluster answers at {address!r}: {reason}") from error


def warn_if_short_of(num_workers: int, needs: dict[str, float]) -> None:
    """Warns where Ray lacks resources for workers with these `needs` each: they would wait without a word."""
    there = ray.cluster_resources()
    for name, need in needs.items():
        if num_workers * need > there.get(name, 0):
            log.warning(
                "%d workers of %g %s each are wanted, Ray has %g in all: some have to wait until there are more",
                num_workers, need, name, there.get(name, 0),
            )  # fmt: skip


@contextlib.contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """`ray.init` installs its own SIGTERM handler; the program's must survive, for it ends a search cleanly."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and callable(before):
        signal.signal(signal.SIGTERM, before)


def environment(num_cpus: float, address: str) -> dict[str, str]:
    """Environment variables of a worker: its threads, and in a local Ray where the driver's modules are."""
    threads = str(max(1, math.floor(num_cpus)))
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    if address == "local":  # this machine: what the driver can import, the actors can, installed or not
        root = str(Path(__file__).resolve().parent.parent)
        variables["PYTHONPATH"] = os.pathsep.join([root, *(path or os.getcwd() for path in sys.path)])
    return variables
