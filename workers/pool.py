"""The interface of a worker pool, and `LocalPool`, its in-process twin that needs nothing else.

A pool takes numbered architectures and gives back one `Result` each, in any order. An evaluation that raises, or
answers with something that is not a mapping of finite numbers, is a failed result: it is never dropped and never
ends the search.
"""

from __future__ import annotations

import math
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

from search_spaces.arch import ArchLike
from workers.evaluator import Evaluator, EvaluatorSpec

_MOST_TEXT = 1000  # characters of an error's message that are kept


class WorkerStartError(RuntimeError):
    """A worker could not be started, for instance because the evaluator's factory raised; the message says why."""


@dataclass(frozen=True)
class Task:
    """One evaluation to do.

    tries: workers lost to it so far. machines: those lost with their machine. alone: whether it must go out in a call
        of its own.
    """

    number: int
    arch: ArchLike
    tries: int = 0
    machines: int = 0
    alone: bool = False


@dataclass(frozen=True)
class Result:
    """One evaluation done.

    metrics: finite values by name, or None when the evaluation failed.
    error: why it failed, in a line or two, or None.
    worker: `host:pid` of the process that ran it.
    seconds: wall time of the evaluation alone; of several in one call, each one's share.
    """

    number: int
    metrics: Mapping[str, float] | None
    error: str | None
    worker: str
    seconds: float


@dataclass(frozen=True)
class Workers:
    """The workers of a pool now: those that have started, those that evaluate, and how many were replaced so far."""

    alive: int
    busy: int
    restarted: int = 0


class Pool(Protocol):
    """Where evaluations run. A context manager that closes on leaving."""

    @property
    def size(self) -> int:
        """Evaluations that run at the same time."""
        ...

    def workers(self) -> Workers:
        """What the workers do now."""
        ...

    def submit(self, number: int, arch: ArchLike) -> None:
        """Queues an evaluation; never blocks."""
        ...

    def wait(self, timeout: float | None = None) -> list[Result]:
        """Blocks until at least one result is there, for at most `timeout` seconds; each result is given once.

        Empty when the time is over or nothing is queued. Raises WorkerStartError when no worker starts.
        """
        ...

    def close(self) -> None:
        """Gives the workers back; evaluations under way are abandoned. May be called twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class LocalPool:
    """Evaluates in this process, `spec.batch` architectures per `wait`.

    Raises WorkerStartError when the factory raises.
    """

    def __init__(self, spec: EvaluatorSpec) -> None:
        try:
            self._evaluator = spec.build()
        except Exception as error:
            raise WorkerStartError(f"the evaluator could not be built: {describe(error)}") from error
        self._batch = spec.batch
        self._tasks: deque[Task] = deque()

    @property
    def size(self) -> int:
        """Always 1."""
        return 1

    def workers(self) -> Workers:
        """This process, which is busy while evaluations are queued."""
        return Workers(1, int(bool(self._tasks)))

    def submit(self, number: int, arch: ArchLike) -> None:
        """Queues the evaluation until `wait` runs it."""
        self._tasks.append(Task(number, arch))

    def wait(self, timeout: float | None = None) -> list[Result]:
        """Runs the oldest evaluations to their end; nothing when `timeout` is 0."""
        if timeout == 0:
            return []
        tasks = [self._tasks.popleft() for _ in range(min(self._batch, len(self._tasks)))]
        return run_together(self._evaluator, tasks, worker_name())

    def close(self) -> None:
        """Forgets what is queued."""
        self._tasks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_timeout(seconds: float | None, num_workers: int | None) -> None:
    """Raises ValueError for an evaluation timeout that is not positive, or without workers that could be ended."""
    if seconds is None:
        return
    if not 0 < seconds < math.inf:
        raise ValueError(f"the evaluation timeout must be a positive number of seconds, got {seconds}")
    if num_workers == 0:
        raise ValueError("an evaluation timeout needs workers: a hanging evaluation in this process cannot be ended")


def check_address(address: str) -> None:
    """Raises ValueError for an address of Ray that is malformed; whether anything answers there is another matter."""
    host, _, port = address.rpartition(":")
    if address not in ("local", "auto") and (not host or "/" in host or not port.isdigit()):
        raise ValueError(f"address is {address!r}; valid: local, auto, or host:port, for example 10.0.0.5:6379")


def run_together(evaluator: Evaluator, tasks: Sequence[Task], worker: str) -> list[Result]:
    """Evaluates `tasks` here in one call. Where that raises, one by one, so that the others have their results."""
    if len(tasks) > 1:
        start = time.perf_counter()
        with suppress(Exception):
            outputs = evaluator.evaluate([task.arch for task in tasks])
            found = [_finite_metrics(output) for output in outputs]
            seconds = (time.perf_counter() - start) / len(tasks)
            return [
                Result(task.number, metrics, None, worker, seconds) for task, metrics in zip(tasks, found, strict=True)
            ]
    return [run_task(evaluator, task, worker) for task in tasks]


def run_task(evaluator: Evaluator, task: Task, worker: str) -> Result:
    """Evaluates `task` here. Whatever goes wrong, short of an interrupt, becomes a failed result."""
    start = time.perf_counter()
    metrics, error = None, None
    try:
        outputs = evaluator.evaluate([task.arch])
        if len(outputs) != 1:
            raise ValueError(f"the evaluator gave {len(outputs)} answers for 1 architecture")
        metrics = _finite_metrics(outputs[0])
    except KeyboardInterrupt:
        raise
    except BaseException as raised:  # a script's sys.exit must not end the search either
        error = describe(raised)
    return Result(task.number, metrics, error, worker, time.perf_counter() - start)


def _finite_metrics(output: Any) -> dict[str, float]:
    if not isinstance(output, Mapping):
        raise TypeError(f"the evaluator must give a mapping of metrics, not {output!r}")
    metrics = {}
    for name, value in output.items():
        try:
            metrics[str(name)] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"metric {name!r} is {value!r}, not a number") from None
        if not math.isfinite(metrics[str(name)]):
            raise ValueError(f"metric {name!r} is {metrics[str(name)]}")
    return metrics


def describe(error: BaseException) -> str:
    """For example `ValueError: bad shape (model.py:12)`: what was raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    try:
        text = str(error)
    except Exception:  # the error is the user's, and so is its __str__
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text[:_MOST_TEXT]}{where}"


def worker_name() -> str:
    """`host:pid` of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
