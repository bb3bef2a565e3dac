"""Kills workers, machines and the driver of a real search at random moments, and compares with an undisturbed search.

    python benchmarks/fault_injection.py RUN [--kills 20] [--seed 0] [-o report.json]

RUN: a run folder of `nas train`, which is copied and left alone; the digits space will do. Two copies are searched by
`nas search` with equal settings: one in process and undisturbed, the other on a Ray cluster of two one-CPU nodes. Of
each kind as many are killed with SIGKILL, in an order and after numbers of further evaluations that the seed decides:
a worker; a machine, that is every process of a node, after which another one joins; the driver, after which the same
command is given again. At the end both histories must be equal, and the evaluation cache must hold every
architecture of the study exactly once. The report has every kill; the exit code is 1 where something differs.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from nas.run import Run
from nas.store import read_study

PYTHON = sys.executable  # what runs the searches
KINDS = ("worker", "machine", "driver")
MOST_BETWEEN = 4  # evaluations between two kills
PATIENCE = 300.0  # seconds without an evaluation after which the search counts as stuck
# seconds instead of a minute until a machine that is gone counts as dead
QUICK_HEALTH_CHECK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--kills", type=int, default=20, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    from machine import describe

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory() as folder:
        report = {"machine": describe(), "load": os.getloadavg()[0]} | inject(
            args.run, Path(folder), args.kills, args.seed, say=print
        )
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    print({name: value for name, value in report.items() if name != "kills"})
    sys.exit(0 if report["equal_histories"] and report["each_evaluated_once"] else 1)


def inject(run: Path, folder: Path, kills: int, seed: int, say: Any = lambda text: None) -> dict[str, Any]:
    """What was killed, and how the disturbed search compares. Raises RuntimeError when it gets stuck or fails."""
    rng = random.Random(seed)
    kinds = [*KINDS] * kills
    rng.shuffle(kinds)
    n_trials = (MOST_BETWEEN + 2) * len(kinds)
    expected = Search(Run(shutil.copytree(run, folder / "undisturbed")), n_trials, ["--num-workers", "0"])
    expected.start()
    expected.finish()
    cluster = start_cluster(num_nodes=2)
    search = Search(
        Run(shutil.copytree(run, folder / "disturbed")),
        n_trials,
        ["--num-workers", "2", "--address", cluster.address],
    )
    began, done = time.monotonic(), []
    try:
        search.start()
        for kind in kinds:
            search.wait_for(search.evaluations() + rng.randint(1, MOST_BETWEEN))
            at, victim = search.evaluations(), kill(kind, search, cluster, rng)
            done.append({"kind": kind, "after_evaluations": at, "victim": victim})
            say(f"{time.monotonic() - began:.0f} s: {done[-1]}")
        search.finish()
    finally:
        search.end()
        cluster.shutdown()
    return {
        "seed": seed,
        "n_trials": n_trials,
        "kills": done,
        "seconds": round(time.monotonic() - began),
        "equal_histories": search.history() == expected.history(),
        "failed_trials": sum(state == "failed" for _, _, state, _ in search.history()),
        "each_evaluated_once": search.cached() == collections.Counter(key for _, key, _, _ in search.history()),
    }


class Search:
    """`nas search` on one run folder, as often as it takes."""

    def __init__(self, run: Run, n_trials: int, options: list[str]) -> None:
        self.run, self.process = run, None
        self._command = [
            PYTHON,
            "-m",
            "nas.cli",
            "search",
            str(run.path),
            "--n-trials",
            str(n_trials),
            *options,
        ]
        self._log = run.path / "search.log"

    def start(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
        with open(self._log, "a") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environment)

    def log(self) -> str:
        return self._log.read_text()

    def finish(self) -> None:
        assert self.process is not None
        if self.process.wait() != 0:
            raise RuntimeError(f"the search failed:\n{self.log()}")

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def evaluations(self) -> int:
        """How many are in the cache now."""
        return self.run.evaluations.read_bytes().count(b"\n") if self.run.evaluations.exists() else 0

    def wait_for(self, evaluations: int) -> None:
        """Until so many are in the cache."""
        assert self.process is not None
        since, before = time.monotonic(), self.evaluations()
        while (now := self.evaluations()) < evaluations:
            if self.process.poll() is not None or time.monotonic() - since > PATIENCE:
                raise RuntimeError(f"the search stopped after {now} evaluations:\n{self.log()}")
            if now > before:
                since, before = time.monotonic(), now
            time.sleep(0.01)

    def history(self) -> list[tuple[int, str, str, dict[str, float]]]:
        trials = read_study(self.run.study("default")).trials
        return [(trial.number, trial.arch.key, trial.state, dict(trial.metrics)) for trial in trials]

    def workers(self) -> set[str]:
        return {trial.worker for trial in read_study(self.run.study("default")).trials}

    def cached(self) -> collections.Counter[str]:
        """How often each architecture is in the cache; every line must be whole."""
        return collections.Counter(json.loads(line)["key"] for line in self.run.evaluations.read_text().splitlines())


def start_cluster(num_nodes: int) -> Cluster:
    """A head without CPUs, and `num_nodes` nodes with one CPU each, all on this machine."""
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK_HEALTH_CHECK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(num_nodes):
        cluster.add_node(num_cpus=1)
    return cluster


def kill(kind: str, search: Search, cluster: Cluster, rng: random.Random) -> str:
    """Kills one at random; says which. A machine is replaced, a driver started again."""
    if kind == "driver":
        assert search.process is not None
        name = f"process {search.process.pid}"
        search.end()
        search.start()
        return name
    raylets = [raylet(node) for node in cluster.worker_nodes if alive(raylet(node))]
    if kind == "machine":
        name = kill_machine(rng.choice(raylets))
        cluster.add_node(num_cpus=1)
        return name
    since = time.monotonic()
    while not (workers := [pid for parent in raylets for pid in children(parent) if "_Worker" in command(pid)]):
        if time.monotonic() - since > PATIENCE:
            raise RuntimeError(f"no worker came back:\n{search.log()}")
        time.sleep(0.01)  # all have just been killed
    victim = rng.choice(sorted(workers))
    os.kill(victim, signal.SIGKILL)
    return f"process {victim}"


def kill_machine(raylet_pid: int) -> str:
    """Every process of a node at once; says which node."""
    victims = [raylet_pid, *children(raylet_pid)]
    for pid in victims:
        os.kill(pid, signal.SIGSTOP)  # none may see another one die
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    return f"raylet {raylet_pid} and {len(victims) - 1} processes"


def raylet(node: Any) -> int:
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def children(parent: int) -> list[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def command(pid: int) -> str:
    """Ray names a worker after the class of its actor."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    main()
