"""`TaskQueue`: what a pool of processes has still to do, handed out in calls, and taken back when a call is lost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from search_spaces.arch import ArchLike
from workers.pool import Result, Task

TRIES = 3  # workers that may be lost to one evaluation before it is given up
MACHINES = 10  # machines, likewise: they end for reasons of their own, but an evaluation may also use up their memory
_MEMORY = 0.1  # weight of the newest evaluation in the running mean of their seconds


class TaskQueue:
    """Evaluations in order of submission; several go out in one call where they are short, or faster together.

    A lost call of several tasks does not tell which of them is to blame. So none is: each goes out alone from then
    on, and only a worker that is lost to a single evaluation counts against it.

    call_seconds: what a call of several short evaluations should take.
    batch: as many go out in one call however long they take.
    """

    def __init__(self, call_seconds: float, batch: int = 1) -> None:
        self._batch = batch
        self._tasks: deque[Task] = deque()
        self._call_seconds = call_seconds
        self._mean_seconds: float | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def batching(self) -> bool:
        """Whether more than one evaluation may go out in a call."""
        return self._most() > 1

    def add(self, number: int, arch: ArchLike) -> None:
        """Queues an evaluation behind all others."""
        self._tasks.append(Task(number, arch))

    def take(self, num_workers: int, num_idle: int, under_way: int) -> tuple[Task, ...]:
        """The next call's tasks, for one of `num_idle` idle workers.

        A worker's share is that of all work, `under_way` included: workers of which one is idle at a time then keep
        calls of the same size, where a share of the queue alone would halve them again and again.
        """
        share = (len(self._tasks) + under_way) // num_workers
        most = min(self._most(), share, math.ceil(len(self._tasks) / num_idle))
        tasks = [self._tasks.popleft()]
        while len(tasks) < most and not tasks[0].alone and not self._tasks[0].alone:
            tasks.append(self._tasks.popleft())
        return tuple(tasks)

    def finished(self, results: list[Result]) -> list[Result]:
        """Learns from the results of a call how long evaluations take, and gives them back."""
        for result in results:
            before = result.seconds if self._mean_seconds is None else self._mean_seconds
            self._mean_seconds = before + _MEMORY * (result.seconds - before)
        return results

    def broken(self, tasks: Sequence[Task], error: str) -> list[Result]:
        """Takes back the tasks of a call that failed as a whole; gives the failed result of a single one."""
        if len(tasks) == 1:
            return [_failed(tasks[0], error)]
        self._again(tasks)
        return []

    def lost(self, tasks: Sequence[Task], reason: str, blame: bool = True) -> list[Result]:
        """Takes back the tasks of a call whose worker is gone; gives the failed result of one that is given up.

        reason: completes "3 workers were lost to ARCH; the last one …". blame: False where the machine was gone, which
        counts on its own, against a higher bound.
        """
        if len(tasks) == 1:
            task = tasks[0]
            task = replace(task, tries=task.tries + blame, machines=task.machines + (not blame))
            for count, most, what in ((task.tries, TRIES, "workers"), (task.machines, MACHINES, "machines")):
                if count == most:
                    return [_failed(task, f"{most} {what} were lost to {task.arch.key}; the last one {reason}")]
            tasks = [task]
        self._again(tasks)
        return []

    def clear(self) -> None:
        """Forgets everything."""
        self._tasks.clear()

    def _again(self, tasks: Sequence[Task]) -> None:
        self._tasks.extendleft(replace(task, alone=True) for task in reversed(tasks))

    def _most(self) -> int:
        """Evaluations that fit into a call; no more than the batch until it is known how long they take."""
        if self._mean_seconds is None:
            return self._batch
        return max(self._batch, int(self._call_seconds / max(self._mean_seconds, 1e-6)))


def _failed(task: Task, error: str) -> Result:
    return Result(task.number, None, error, "unknown", 0.0)
