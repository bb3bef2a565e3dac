"""How much faster two workers search than one.

    python benchmarks/search_scaling.py RUN [--workers 1 2] [--n-trials 24] [--repeats 4] [--seed 0] [--evaluator fast]

RUN: a run folder of `nas train`, CIFAR-10's for instance; how well it is trained does not matter. The evaluator is the
reference unless told: the fast one computes what a call's subnets begin with once, so that one worker, which gets more
of them in a call, does less in all than two do. For every repeat and
number of workers a copy of it, without its evaluations, is searched with a seed of that repeat's own: so the numbers
of workers evaluate the same subnets, in turns. The time is from the fourth trial recorded to the last, without the
start of Ray and of the workers. Prints the seconds and the speed-up of each repeat over the first number of workers and
their median (1.8 on two cores is the aim for two workers). Beside it what the machine gives: so many processes that
evaluate subnets side by side, without a search and without Ray, over one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from machine import describe

import nas
from nas.evaluating import evaluator_spec
from nas.run import Run
from nas.trial import Trial

SKIPPED = 4  # trials
BARE = 8  # evaluations of each process without a search
IGNORED = shutil.ignore_patterns("evaluations.jsonl", "studies", "tensorboard", "*.png")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--n-trials", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-macs", type=float, help="such as 40e6, for shorter evaluations")
    parser.add_argument("--evaluator", choices=("reference", "fast"), default="reference")
    parser.add_argument("--bare", type=int, help="evaluate so many subnets and print the seconds; what the rest starts")
    args = parser.parse_args()
    if args.bare:
        print(bare_seconds(args.run, args.bare, args.seed, args.evaluator))
        return
    limits = {} if args.max_macs is None else {"macs": args.max_macs}
    print(f"load {os.getloadavg()[0]:.1f}, {describe()}, Ray {version('ray')}; n {args.n_trials} trials, {args.run}")
    speed_ups: dict[int, list[float]] = {workers: [] for workers in args.workers[1:]}
    ceilings: dict[int, list[float]] = {workers: [] for workers in args.workers[1:]}
    for repeat in range(args.repeats):
        seed = args.seed + repeat
        turns = args.workers if repeat % 2 == 0 else args.workers[::-1]  # what drifts meets all alike
        seconds = {workers: timed(args.run, workers, args.n_trials, seed, limits, args.evaluator) for workers in turns}
        base = seconds[args.workers[0]]
        for workers in args.workers[1:]:
            speed_ups[workers].append(base / seconds[workers])
            ceilings[workers].append(ceiling(args.run, workers, seed, args.evaluator))
        print(f"seed {seed}: " + ", ".join(f"{w} workers {seconds[w]:.1f} s" for w in args.workers), flush=True)
    for workers, ratios in speed_ups.items():
        listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{workers} workers over {args.workers[0]}: {np.median(ratios):.2f} ({listed})")
        listed = ", ".join(f"{ratio:.2f}" for ratio in ceilings[workers])
        print(f"{workers} processes without a search over one: {np.median(ceilings[workers]):.2f} ({listed})")


def ceiling(run: Path, processes: int, seed: int, evaluator: str) -> float:
    """How much more so many processes evaluate than one, each by itself."""
    command = [
        sys.executable, __file__, str(run), "--bare", str(BARE), "--seed", str(seed), "--evaluator", evaluator
    ]  # fmt: skip
    alone = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    together = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    seconds = [float(process.communicate()[0]) for process in together]
    return processes * alone / float(np.mean(seconds))


def bare_seconds(run: Path, n: int, seed: int, name: str) -> float:
    """Seconds for `n` random subnets, after one that is not timed."""
    opened = Run.open(run)
    evaluator = evaluator_spec(opened, evaluator=name)[0].build()
    rng = np.random.default_rng(seed)
    archs = [opened.space.sample(rng) for _ in range(n + 1)]
    evaluator.evaluate(archs[:1])
    start = time.perf_counter()
    evaluator.evaluate(archs[1:])
    return time.perf_counter() - start


def timed(run: Path, num_workers: int, n_trials: int, seed: int, limits: dict[str, float], evaluator: str) -> float:
    """Seconds from the record of trial SKIPPED - 1, when every worker is at work, to that of the last one."""
    times: list[float] = []

    def note(trial: Trial) -> None:
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(run, Path(folder) / "run", ignore=IGNORED))
        nas.search_run(
            copy, n_trials=n_trials, strategy="random", seed=seed, limits=limits, num_workers=num_workers,
            on_trial=note, evaluator=evaluator,
        )  # fmt: skip
    return times[-1] - times[SKIPPED - 1]


if __name__ == "__main__":
    main()
