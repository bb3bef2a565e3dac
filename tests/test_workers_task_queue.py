"""Which tasks go out together, and who is to blame when a call is lost."""

from __future__ import annotations

import numpy as np
import pytest
from search_cases import choice_space

from workers.pool import Result
from workers.task_queue import TRIES, TaskQueue

SPACE = choice_space()
ARCH = SPACE.sample(np.random.default_rng(0))


def queue_of(n: int, seconds: float | None = None, call_seconds: float = 0.03) -> TaskQueue:
    """`n` tasks queued, after an evaluation that took `seconds`."""
    queue = TaskQueue(call_seconds)
    if seconds is not None:
        queue.finished([Result(0, {}, None, "worker", seconds)])
    for number in range(n):
        queue.add(number, ARCH)
    return queue


def numbers(queue: TaskQueue, num_workers: int) -> list[list[int]]:
    """What goes out until nothing is left."""
    calls = []
    while queue:
        calls.append([task.number for task in queue.take(num_workers)])
    return calls


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, [[0], [1], [2], [3], [4], [5], [6], [7]]),  # not known yet
        (0.5, [[0], [1], [2], [3], [4], [5], [6], [7]]),
        (0.0, [[0, 1, 2, 3], [4, 5], [6], [7]]),  # as many as leaves as many for the other worker
        (0.01, [[0, 1, 2], [3, 4], [5], [6], [7]]),  # no more than take 0.03 s
    ],
)
def test_short_evaluations_share_a_call(seconds: float | None, expected: list[list[int]]) -> None:
    assert numbers(queue_of(8, seconds), 2) == expected


def test_one_long_evaluation_ends_the_sharing() -> None:
    queue = queue_of(8, 0.001)
    assert queue.batching
    queue.finished([Result(0, {}, None, "worker", 10.0)])
    assert not queue.batching


def test_after_a_lost_call_its_tasks_go_out_alone_and_none_is_blamed() -> None:
    queue = queue_of(8, 0.0)
    tasks = queue.take(2)
    assert len(tasks) == 4
    assert queue.lost(tasks, "died") == []
    again = [queue.take(2) for _ in tasks]
    assert [[(task.number, task.tries) for task in call] for call in again] == [[(0, 0)], [(1, 0)], [(2, 0)], [(3, 0)]]
    assert numbers(queue, 2) == [[4, 5], [6], [7]]


def test_an_evaluation_that_loses_three_workers_alone_fails() -> None:
    queue = queue_of(2)
    for _ in range(TRIES - 1):
        assert queue.lost(queue.take(1), "died") == []
    (result,) = queue.lost(queue.take(1), "died (ActorDiedError)")
    assert (result.number, result.metrics) == (0, None)
    assert result.error == f"3 workers were lost to {ARCH.key}; the last one died (ActorDiedError)"
    assert numbers(queue, 1) == [[1]]


def test_the_end_of_a_machine_is_nobodys_fault() -> None:
    queue = queue_of(1)
    for _ in range(3 * TRIES):
        assert queue.lost(queue.take(1), "died", blame=False) == []
    assert numbers(queue, 1) == [[0]]


def test_a_call_that_breaks_as_a_whole_fails_only_what_was_alone() -> None:
    queue = queue_of(4, 0.0)
    assert queue.broken(queue.take(2), "ModuleNotFoundError") == []
    assert [(result.number, result.error) for result in queue.broken(queue.take(2), "gone")] == [(0, "gone")]
    assert numbers(queue, 2) == [[1], [2], [3]]
