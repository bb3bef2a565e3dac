"""Strategies against one another on published tables: regret and hypervolume at equal evaluations.

    python benchmarks/search_efficiency.py TABLES -o RESULTS.jsonl --seeds 30 [--only NAME …] [--tasks NAME …]

Searched: all 15,625 cells of NAS-Bench-201 (Dong and Yang 2020) by the validation accuracy after 12 epochs on CIFAR-10,
judged by the test accuracy after 200; the same under a limit on multiply-adds; the same with multiply-adds as a second
objective, by the hypervolume of what was seen; the same cells on CIFAR-100 and ImageNet16-120, on which nothing was
chosen; Once-for-All's MobileNetV3, of which a model answers (`search_ofa.py`); the 36 pooling configurations of
ResNet-20 (Javan et al. 2023); and problems of known structure (`search_synthetic.py`).
Our strategies run as a study does, with results 8 trials late. The rivals get every result at once.
Finished runs are kept in RESULTS.jsonl and not repeated. `--report` prints the tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from machine import describe
from search_rivals import RIVALS
from search_tables import Task, load_tasks, regrets

from nas import pareto, strategies
from nas.loop import run
from nas.store import MemoryStore
from nas.trial import Trial
from workers.evaluator import CallableEvaluator, EvaluatorSpec
from workers.pool import LocalPool

LOOKAHEAD = 8
_NONE = 1e9  # stands for an infinite regret, of which no quantile can be taken


def study(task: Task, name: str, n: int, seed: int) -> list[Trial]:
    """Our search loop with an evaluator that looks up."""
    store = MemoryStore()
    with LocalPool(EvaluatorSpec(lambda: CallableEvaluator(task.evaluate))) as pool:
        run(task.problem, strategies.get(name, task.problem, seed), pool, store, n, LOOKAHEAD)
    return list(store.trials)


def rival(task: Task, name: str, n: int, seed: int) -> list[Trial]:
    trials = []
    for number, arch in enumerate(RIVALS[name](task, n, seed)):
        metrics = {**task.evaluate(arch), **task.problem.costs(arch)}
        trials.append(Trial(number, arch, "complete", metrics, task.problem.constraints(metrics), "", 0.0))
    return trials


def measure(task: Task, name: str, seed: int) -> dict[str, Any]:
    start = time.perf_counter()
    n = task.budgets[-1]
    trials = rival(task, name, n, seed) if name in RIVALS else study(task, name, n, seed)
    seconds = time.perf_counter() - start
    found: dict[str, Any] = {"task": task.name, "name": name, "seed": seed, "n": n, "seconds": seconds}
    if len(task.problem.objectives) > 1:
        box = (1 - task.worst["top1"]) * task.worst["macs"]
        found["hypervolume"] = [
            pareto.hypervolume(trials[:b], task.problem.objectives, task.worst) / box for b in task.budgets
        ]
        return found
    seen = np.array([trial.metrics["top1"] if trial.feasible else -math.inf for trial in trials])
    found["regret"] = regrets(task, [trial.arch for trial in trials], seen)
    return found


def report(rows: list[dict[str, Any]], tasks: dict[str, Task]) -> None:
    for task in tasks.values():
        mine = [row for row in rows if row["task"] == task.name]
        if not mine:
            continue
        figure = "hypervolume, share of the box" if "hypervolume" in mine[0] else "regret, points of accuracy"
        print(f"\n{task.name}: {figure}; median (25 % to 75 % of seeds)\n")
        print("| | n | " + " | ".join(map(str, task.budgets)) + " | ms a trial |")
        print("|---|---|" + "---|" * (len(task.budgets) + 1))
        for name in dict.fromkeys(row["name"] for row in mine):
            runs = [row for row in mine if row["name"] == name]
            values = np.array([row.get("hypervolume") or row["regret"] for row in runs])
            quartiles = np.quantile(np.minimum(values, _NONE), [0.25, 0.5, 0.75], axis=0)
            low, middle, high = np.where(quartiles > 100, np.inf, quartiles)  # between some and none is none
            digits = 4 if "hypervolume" in runs[0] else 2
            cells = [f"{m:.{digits}f} ({a:.{digits}f} to {b:.{digits}f})" for a, m, b in zip(low, middle, high)]
            pace = 1000 * np.median([row["seconds"] / row["n"] for row in runs])
            print(f"| {name} | {len(runs)} | {' | '.join(cells)} | {pace:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--only", nargs="+", default=[*strategies.STRATEGIES, *RIVALS])
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tasks = load_tasks(options.tables)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(row["task"], row["name"], row["seed"]) for row in rows}
    wanted = [] if options.report else [
        (task, name, seed)
        for task in tasks.values()
        for name in options.only
        for seed in range(options.seeds)
        if task.name in (options.tasks or tasks) and (task.name, name, seed) not in done
    ]  # fmt: skip
    for task, name, seed in wanted:
        rows.append(measure(task, name, seed))
        with options.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    report(rows, tasks)
    print(f"\n{describe()}, Optuna {optuna.__version__}; lookahead {LOOKAHEAD} for ours, none for the rivals")


if __name__ == "__main__":
    main()
