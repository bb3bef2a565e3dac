"""Which tasks go out together, and who is to blame when a call is lost."""

from __future__ import annotations

import numpy as np
import pytest
from search_cases import choice_space

from workers.pool import Result
from workers.task_queue import MACHINES, TRIES, TaskQueue

SPACE = choice_space()
ARCH = SPACE.sample(np.random.default_rng(0))


def queue_of(n: int, seconds: float | None = None, call_seconds: float = 0.03, batch: int = 1) -> TaskQueue:
    """`n` tasks queued, after an evaluation that took `seconds`."""
    queue = TaskQueue(call_seconds, batch)
    if seconds is not None:
        queue.finished([Result(0, {}, None, "worker", seconds)])
    for number in range(n):
        queue.add(number, ARCH)
    return queue


def calls(queue: TaskQueue, num_workers: int) -> list[list[int]]:
    """What idle workers are given, one after the other, until nothing is left or each has a call."""
    given: list[list[int]] = []
    while queue and len(given) < num_workers:
        under_way = sum(map(len, given))
        given.append([task.number for task in queue.take(num_workers, num_workers - len(given), under_way)])
    return given


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, [[0], [1]]),  # not known yet
        (0.5, [[0], [1]]),
        (0.0, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (0.01, [[0, 1, 2], [3, 4, 5]]),  # no more than take 0.03 s
    ],
)
def test_short_evaluations_share_a_call(seconds: float | None, expected: list[list[int]]) -> None:
    assert calls(queue_of(8, seconds), 2) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, [[0, 1, 2], [3, 4, 5]]), (10.0, [[0, 1, 2], [3, 4, 5]]), (0.0, [[0, 1, 2, 3]])]
)
def test_a_batch_shares_a_call_however_long_it_takes(seconds: float | None, expected: list[list[int]]) -> None:
    queue = queue_of(8, seconds, batch=3)
    assert calls(queue, 2)[: len(expected)] == expected


def test_a_batch_is_no_reason_to_leave_a_worker_idle() -> None:
    assert calls(queue_of(4, 10.0, batch=8), 2) == [[0, 1], [2, 3]]


def test_the_share_of_a_worker_is_that_of_all_work() -> None:
    assert [task.number for task in queue_of(4, 0.0).take(2, 1, 4)] == [0, 1, 2, 3]  # the other has as many
    assert [task.number for task in queue_of(4, 0.0).take(2, 1, 2)] == [0, 1, 2]
    assert [task.number for task in queue_of(4, 0.0).take(3, 2, 5)] == [0, 1]  # as many for the other idle one
    assert [task.number for task in queue_of(1, 0.0).take(100, 99, 1)] == [0]


def test_one_long_evaluation_ends_the_sharing() -> None:
    queue = queue_of(8, 0.001)
    assert queue.batching
    queue.finished([Result(0, {}, None, "worker", 10.0)])
    assert not queue.batching


def test_after_a_lost_call_its_tasks_go_out_alone_and_none_is_blamed() -> None:
    queue = queue_of(8, 0.0)
    tasks = queue.take(2, 2, 0)
    assert len(tasks) == 4
    assert queue.lost(tasks, "died") == []
    again = [queue.take(2, 2, 0) for _ in tasks]
    assert [[(task.number, task.tries) for task in call] for call in again] == [[(0, 0)], [(1, 0)], [(2, 0)], [(3, 0)]]
    assert calls(queue, 2) == [[4, 5], [6, 7]]


def test_an_evaluation_that_loses_three_workers_alone_fails() -> None:
    queue = queue_of(2)
    for _ in range(TRIES - 1):
        assert queue.lost(queue.take(1, 1, 0), "died") == []
    (result,) = queue.lost(queue.take(1, 1, 0), "died (ActorDiedError)")
    assert (result.number, result.metrics) == (0, None)
    assert result.error == f"3 workers were lost to {ARCH.key}; the last one died (ActorDiedError)"
    assert calls(queue, 1) == [[1]]


def test_the_end_of_a_machine_is_nobodys_fault_until_ten_have_ended() -> None:
    queue = queue_of(2)
    for _ in range(TRIES - 1):
        assert queue.lost(queue.take(1, 1, 0), "died") == []
    for _ in range(MACHINES - 1):
        assert queue.lost(queue.take(1, 1, 0), "died", blame=False) == []
    (result,) = queue.lost(queue.take(1, 1, 0), "died (its machine is gone or out of reach)", blame=False)
    assert result.error == (
        f"10 machines were lost to {ARCH.key}; the last one died (its machine is gone or out of reach)"
    )
    assert calls(queue, 1) == [[1]]


def test_a_call_that_breaks_as_a_whole_fails_only_what_was_alone() -> None:
    queue = queue_of(4, 0.0)
    assert queue.broken(queue.take(2, 2, 0), "ModuleNotFoundError") == []
    assert [(result.number, result.error) for result in queue.broken(queue.take(2, 2, 0), "gone")] == [(0, "gone")]
    assert calls(queue, 3) == [[1], [2], [3]]
