"""How the service bears size: opening a study of many trials, browsers that follow a live one, and its memory.

    python benchmarks/service_scale.py --trials 10000 --clients 50 --minutes 5

The study is written by the project's own store with made-up accuracies. The service is a process of its own, called
over HTTP as a browser's page or a program would; bytes are those of the answers' bodies as sent.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from machine import describe
from services import free_port, serving

from nas.data_options import DataOptions
from nas.problem import Problem
from nas.run import Run
from nas.store import Identity, JournalStore
from nas.trial import Trial
from search_spaces import catalog, cost
from supernet.recipe import TrainConfig

SPACE = catalog.get("resnet_cifar", in_channels=3, image_size=32, num_classes=10)
PROBLEM = Problem(SPACE, {"top1": "maximize", "macs": "minimize"}, {"macs": 60e6})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--per-second", type=float, default=10.0, help="trials that the live study grows by")
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        run, store, trials = live_study(root, options.trials, int(options.minutes * 60 * options.per_second) + 100)
        size = run.study("live").stat().st_size
        print(f"study: {options.trials} trials, a journal of {size / 1e6:.1f} MB")
        port = free_port()
        with serving(root, port=port):
            open_study(port)
            follow(port, options, store, trials)
        store.close()


def live_study(root: Path, n: int, more: int) -> tuple[Run, JournalStore, list[Trial]]:
    """A run with a study of `n` trials, open for more: the trials are those and `more` that can follow."""
    run = Run.create(root / "run", SPACE, DataOptions("digits"), TrainConfig(), [str(n) for n in range(10)])
    store, trials = make_study(run, n + more)
    for trial in trials[:n]:
        store.append(trial)
    return run, store, trials


def make_study(run: Run, n: int) -> tuple[JournalStore, list[Trial]]:
    rng, archs = np.random.default_rng(0), {}
    while len(archs) < n:
        arch = SPACE.sample(rng)
        archs.setdefault(arch.key, arch)
    known = cost.costs(SPACE, list(archs.values()))
    identity = Identity(
        "live", SPACE.to_dict(), PROBLEM.objectives, PROBLEM.limits, "random", 0, 8, {"score": "inherited"}
    )
    trials = []
    for number, arch in enumerate(archs.values()):
        metrics = {name: float(values[number]) for name, values in known.items()}
        metrics["top1"] = float(
            np.clip(0.5 + 0.05 * np.log(metrics["macs"] / 1e6) + 0.03 * rng.standard_normal(), 0, 1)
        )
        trials.append(Trial(number, arch, "complete", metrics, PROBLEM.constraints(metrics), f"node:{number % 8}", 1.0))
    return JournalStore(run.study("live"), replace(identity), SPACE, n), trials


def get(port: int, path: str) -> tuple[float, int]:
    """Seconds and bytes of one answer, compressed where the service does so."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path, headers={"Accept-Encoding": "gzip", "Accept": "text/html,*/*"})
    answer = connection.getresponse()
    size = len(answer.read())
    assert answer.status == 200, (path, answer.status)
    connection.close()
    return time.perf_counter() - started, size


def open_study(port: int) -> None:
    place, pid = "/api/v1/runs/run/studies/live", service_of(port)
    for what, path in (
        ("first opening (reads the journal)", place),
        ("again", place),
        ("points of every trial", f"{place}/points"),
        ("front", f"{place}/front"),
        ("page of 100 trials", f"{place}/trials?offset=5000"),
        ("page of the search", "/search/run/live"),
        ("page of all runs", "/"),
    ):
        before = processor(pid)
        seconds, size = get(port, path)
        print(f"{what}: {seconds:.3f} s, of the processor {processor(pid) - before:.2f} s, {size / 1e3:.1f} kB")


def follow(port: int, options: argparse.Namespace, store: JournalStore, trials: list[Trial]) -> None:
    """Clients follow the study while it grows; how late each trial reached them, and what the service came to hold."""
    written: dict[int, float] = {}
    delays: list[float] = []
    received = [0] * options.clients
    done = threading.Event()

    def listen(client: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", f"/api/v1/runs/run/studies/live/events?since={options.trials}")
        answer = connection.getresponse()
        while not done.is_set():
            line = answer.readline()
            received[client] += len(line)
            if line.startswith(b"data: "):
                now = time.monotonic()
                event = json.loads(line[6:])
                delays.extend(now - written[trial["number"]] for trial in event["trials"])

    threads = [threading.Thread(target=listen, args=(n,), daemon=True) for n in range(options.clients)]
    for thread in threads:
        thread.start()
    pid = service_of(port)
    time.sleep(2)
    memory, end = [resident(pid)], time.monotonic() + options.minutes * 60
    cpu, started, look = processor(pid), time.monotonic(), time.monotonic()
    for trial in trials[options.trials :]:
        written[trial.number] = time.monotonic()
        store.append(trial)
        time.sleep(1 / options.per_second)
        if time.monotonic() - look > 15:
            look = time.monotonic()
            memory.append(resident(pid))
        if time.monotonic() > end:
            break
    busy = (processor(pid) - cpu) / (time.monotonic() - started)
    time.sleep(2)
    done.set()
    ordered = sorted(delays)
    wanted = len(written) * options.clients
    print(f"{options.clients} clients, {len(written)} new trials in {options.minutes:g} minutes:")
    print(f"received {len(delays)} of {wanted}")
    late = {"median": statistics.median(ordered), "p99": ordered[int(0.99 * len(ordered))], "most": ordered[-1]}
    print("from the store to a client: " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in late.items()))
    size = statistics.mean(received) / max(1, len(written))
    print(f"{size:.0f} bytes a trial for a client; the service took {busy:.0%} of a core")
    print("resident memory in MB, every 15 s: " + " ".join(f"{value:.0f}" for value in memory))


def service_of(port: int) -> int:
    command = ["pgrep", "-f", f"nas.cli serve .*--port {port}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1e3


def processor(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
