"""What the search itself costs, beside its evaluations.

    python benchmarks/search_overhead.py driver [--n-trials 10000] [--num-workers 2]
    python benchmarks/search_overhead.py scale [--factors 1 1.25 1.5] [--num-workers 1000] [--n-trials 10000]

Both search a space of 45 genes with two objectives and a limit by evolution, and keep the study in a journal file.
driver: an evaluation that does nothing, on local Ray actors. Trials per second (600 or more is the aim), the time of
    a proposal at the end (under 3 ms), the driver's memory a trial (15 KB at most), and how long a new process takes
    from its start to its first proposal when it continues the study (5 s at most).
scale: simulated workers on a virtual clock, evaluations of 1 s ± 50 % (uniform). The share of worker time that is used
    until the last evaluation starts, by lookahead as a multiple of the workers (95 % is the aim): first as if the
    driver took no time, then with the time it takes added to the clock.
"""

from __future__ import annotations

import argparse
import heapq
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

import nas
from nas import loop
from nas.problem import Problem, batch_cost
from nas.store import Identity, JournalStore
from nas.strategies import STRATEGIES
from nas.strategies.base import Strategy
from search_spaces.space import ChoiceSpace
from workers.pool import Result

SPACE = ChoiceSpace({f"g{i}": (0, 1, 2, 3) for i in range(45)})
OBJECTIVES = {"top1": "maximize", "macs": "minimize"}
LIMITS = {"macs": 70.0}


def macs(archs: Sequence[Any]) -> dict[str, np.ndarray]:
    return {"macs": np.array([sum(arch.values()) for arch in archs], dtype=float)}


macs.batched = True  # type: ignore[attr-defined]


def no_op(arch: Any) -> dict[str, float]:
    return {"top1": zlib.crc32(arch.key.encode()) / 2**32}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=["driver", "scale", "resume"], help="resume is what driver starts")
    parser.add_argument("--n-trials", type=int, default=10_000)
    parser.add_argument("--num-workers", type=int)
    parser.add_argument("--factors", type=float, nargs="+", default=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
    parser.add_argument("--lookahead", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path)
    args = parser.parse_args()
    if args.part == "resume":
        resume(args.journal, args.n_trials, args.seed, args.lookahead)
        return
    from machine import describe  # imports torch, which `resume` does without

    print(f"load {os.getloadavg()[0]:.1f}, {describe()}, Ray {version('ray')}, Optuna {version('optuna')}")
    with tempfile.TemporaryDirectory() as folder:
        if args.part == "driver":
            driver(Path(folder) / "study.journal", args.n_trials, args.num_workers or 2, args.seed, args.lookahead)
        else:
            for factor in args.factors:
                path = Path(folder) / f"{factor}.journal"
                scale(path, args.n_trials, args.num_workers or 1000, factor, args.seed)


def search(journal: Path, n_trials: int, seed: int, **options: Any) -> None:
    nas.search(
        SPACE, no_op, strategy="evolution", n_trials=n_trials, seed=seed, objectives=OBJECTIVES, limits=LIMITS,
        cost=macs, storage=journal, **options,
    )  # fmt: skip


def driver(journal: Path, n_trials: int, num_workers: int, seed: int, lookahead: int) -> None:
    asks = timed_asks()
    times: list[float] = []
    memory: list[int] = []

    def note(trial: Any) -> None:
        times.append(time.perf_counter())
        memory.append(resident_bytes())

    processor = time.process_time()
    search(journal, n_trials, seed, num_workers=num_workers, lookahead=lookahead, on_trial=note)
    processor = time.process_time() - processor
    tenth = n_trials // 10
    seconds = times[-1] - times[tenth]
    last = np.array(asks[-tenth:]) * 1000
    print(f"n {n_trials} trials, {num_workers} Ray actors, lookahead {lookahead}, seed {seed}, from trial {tenth} on:")
    print(f"trials per second: {(n_trials - 1 - tenth) / seconds:.0f}")
    print(f"driver processor time a trial, start and end included: {1000 * processor / n_trials:.2f} ms")
    print(f"proposal, last {tenth}: median {np.median(last):.2f} ms, 90 % {np.quantile(last, 0.9):.2f} ms")
    print(f"driver memory a trial: {(memory[-1] - memory[tenth]) / (n_trials - 1 - tenth) / 1024:.1f} KiB")
    command = [sys.executable, __file__, "resume", "--journal", str(journal), "--n-trials", str(n_trials)]
    command += ["--seed", str(seed), "--lookahead", str(lookahead)]
    started = time.time()
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    print(
        f"continuing: {float(lines[0]) - started:.2f} s from process start to proposal, {lines[1]} s of it `nas.search`"
    )


def timed_asks() -> list[float]:
    """Seconds of each proposal from now on."""
    ask, seconds = Strategy.ask, []

    def timed(self: Strategy, number: int, taken: Any) -> Any:
        before = time.perf_counter()
        arch = ask(self, number, taken)
        seconds.append(time.perf_counter() - before)
        return arch

    Strategy.ask = timed  # type: ignore[method-assign]
    return seconds


def resume(journal: Path, n_trials: int, seed: int, lookahead: int) -> None:
    """In a process of its own: prints when the first proposal was asked for, and the seconds since the search began."""
    asked: list[float] = []
    ask = Strategy.ask

    def note(self: Strategy, number: int, taken: Any) -> Any:
        arch = ask(self, number, taken)
        asked.append(time.time())
        return arch

    Strategy.ask = note  # type: ignore[method-assign]
    began = time.time()
    search(journal, n_trials + 1, seed, lookahead=lookahead)
    print(asked[0], round(asked[0] - began, 2))


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class SimulatedPool:
    """Workers on a virtual clock, which `wait` moves on to when the next evaluation ends."""

    def __init__(self, size: int, seed: int, count_driver: bool, n_trials: int) -> None:
        self.size, self.clock, self.used = size, 0.0, 0.0
        self._started, self._n_trials = 0, n_trials
        self._busy_seconds = 0.0  # of what has started, up to its end
        self._rng = np.random.default_rng(seed)
        self._count_driver, self._returned = count_driver, time.perf_counter()
        self._queue: deque[tuple[int, Any]] = deque()
        self._running: list[tuple[float, int, Any]] = []

    def submit(self, number: int, arch: Any) -> None:
        self._add_driver_time()
        self._queue.append((number, arch))
        self._assign()

    def wait(self, timeout: float | None = None) -> list[Result]:
        self._add_driver_time()
        if timeout == 0 or not self._running:
            return []
        results = []
        self.clock = max(self.clock, self._running[0][0])
        while self._running and self._running[0][0] <= self.clock:
            _, number, arch = heapq.heappop(self._running)
            results.append(Result(number, no_op(arch), None, "simulated", 1.0))
        self._assign()
        self._returned = time.perf_counter()
        return results

    def _assign(self) -> None:
        while self._queue and len(self._running) < self.size:
            seconds = self._rng.uniform(0.5, 1.5)
            self._busy_seconds += seconds
            self._started += 1
            heapq.heappush(self._running, (self.clock + seconds, *self._queue.popleft()))
            if self._started == self._n_trials:
                to_come = sum(end - self.clock for end, _, _ in self._running)
                self.used = (self._busy_seconds - to_come) / (self.size * self.clock)

    def _add_driver_time(self) -> None:
        now = time.perf_counter()
        if self._count_driver:
            self.clock += now - self._returned
        self._returned = now

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...


def scale(journal: Path, n_trials: int, num_workers: int, factor: float, seed: int) -> None:
    lookahead = round(factor * num_workers)
    shares = []
    for count_driver in (False, True):
        problem = Problem(SPACE, OBJECTIVES, LIMITS, batch_cost(macs))
        path = journal.with_name(f"{journal.name}.{count_driver}")
        store = JournalStore(
            path, Identity("scale", SPACE.to_dict(), OBJECTIVES, LIMITS, "evolution", seed, lookahead), SPACE
        )
        pool = SimulatedPool(num_workers, seed, count_driver, n_trials)
        loop.run(problem, STRATEGIES["evolution"](problem, seed), pool, store, n_trials, lookahead)
        store.close()
        shares.append(pool.used)
    print(
        f"{num_workers} workers, lookahead {factor:g} x, n {n_trials} trials, seed {seed}: used {shares[0]:.1%}, "
        f"with the driver's time {shares[1]:.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
