"""Starts what docker/compose.yaml starts, without containers, and runs a search through the service's API.

    python benchmarks/compose_without_containers.py [--n-trials 12] [--run RUN]

Commands, environment, health checks, secrets and numbers of replicas are read from compose.yaml. What containers bring
is replaced: host names and paths of secrets become this machine's, every process gets free ports and a folder of its
own. The search runs on the run folder RUN, which is copied, or on a digits supernet trained for it, and must have the
history of the same search in one process. Prints when each process was healthy and what the search came to; the exit
code is 1 where something is not as it should be. It ends the processes that it started, and no other.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker" / "compose.yaml"
SECONDS = 120.0  # until a process that was started must be healthy
SEARCH_SECONDS = 600.0


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The services of compose.yaml, variables replaced, commands and health checks as lists of words."""
    found = yaml.safe_load(interpolated(COMPOSE.read_text(), variables))["services"]
    for service in found.values():
        service["command"] = shlex.split(service["command"])
        kind, *words = service["healthcheck"]["test"]
        if kind != "CMD":
            raise ValueError(f"a health check of the kind {kind!r}; CMD is what can be run here")
        service["healthcheck"]["test"] = words
    return found


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`text` with $-expressions replaced as compose does; KeyError, with its message, for one that must be given."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match[1], match[2], match[3]
        if variables.get(name):
            return variables[name]
        if kind == ":-":
            return rest
        raise KeyError(f"{name}: {rest or 'not given'}")

    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, "\n".join(lines))


class Machine:
    """What stands for a container: ports, paths and the processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # below the ports that the system gives to outgoing connections, in an order of this process's own
        self._ports = iter(random.Random(os.getpid()).sample(range(20_000, 32_000), 12_000))
        self.gcs, self.dashboard, self.web = self.port(), self.port(), self.port()

    def port(self) -> int:
        for port in self._ports:
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
        raise RuntimeError("no port is free")

    def here(self, word: str) -> str:
        """A word of a command, a variable or a health check as it is without containers."""
        for there, here in (
            ("head:6379", f"127.0.0.1:{self.gcs}"),
            ("head:8265", f"127.0.0.1:{self.dashboard}"),
            (":8390", f":{self.web}"),
            ("/run/secrets/", f"{self.folder}/"),
        ):
            word = word.replace(there, here)
        return {"8390": str(self.web), "0.0.0.0": "127.0.0.1"}.get(word, word)

    def command(self, words: list[str], name: str) -> list[str]:
        """The command of a container; Ray's also say which ports and folder to use."""
        program = {
            "ray": [str(Path(sys.executable).parent / "ray")],
            "nas": [sys.executable, "-m", "nas.cli"],
            "python": [sys.executable],
        }[words[0]]
        command = [*program, *map(self.here, words[1:])]
        if words[:2] == ["ray", "start"]:
            command += ["--temp-dir", str(self.folder / name), "--object-store-memory", str(10**8)]
            for port in ("dashboard-agent-listen", "dashboard-agent-grpc", "runtime-env-agent", "metrics-export"):
                command += [f"--{port}-port", str(self.port())]
            command += ["--node-manager-port", str(self.port()), "--object-manager-port", str(self.port())]
            command += ["--worker-port-list", ",".join(str(self.port()) for _ in range(16))]
            if "--head" in words:
                command += ["--port", str(self.gcs), "--dashboard-port", str(self.dashboard)]
                command += ["--ray-client-server-port", str(self.port())]
        if words == ["ray", "health-check"]:
            command += ["--address", f"127.0.0.1:{self.gcs}"]
        return command

    def environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """Of a container: nothing of Ray's or ours is inherited."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "NAS_"))}
        own = {name: self.here(value) for name, value in service["environment"].items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # a job's `python` is this one
        return {**inherited, "HOME": str(self.folder), "PATH": path, "PYTHONPATH": str(ROOT), **own}

    def start(self, stack: ExitStack, name: str, service: Mapping[str, Any]) -> None:
        """Starts it and waits until it is healthy. Raises RuntimeError with its last words where it is not."""
        began, log = time.monotonic(), self.folder / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                self.command(service["command"], name), env=self.environment(service), cwd=self.folder,
                stdout=out, stderr=out,
            )  # fmt: skip
        stack.callback(end, process)
        check = self.command(service["healthcheck"]["test"], name)
        while subprocess.run(check, env=self.environment(service), capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() - began > SECONDS:
                raise RuntimeError(f"{name} is not healthy:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
        print(f"{name}: healthy after {time.monotonic() - began:.0f} s", flush=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, with which `ray start --block` ends its node, and SIGKILL where that is not enough."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run folder to search in a copy; default: a digits supernet")
    parser.add_argument("--n-trials", type=int, default=12)
    options = parser.parse_args()
    # a short path: Ray's sockets lie deep in it, and their names may have 107 characters
    folder = Path(tempfile.mkdtemp(prefix="nas", dir="/tmp"))
    try:
        with ExitStack() as stack:
            problems = check(stack, folder, options.run, options.n_trials)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for problem in problems:
        print(f"wrong: {problem}")
    sys.exit(1 if problems else 0)


def check(stack: ExitStack, folder: Path, run: Path | None, n_trials: int) -> list[str]:
    """Starts everything, searches, and gives what is wrong. The processes end with `stack`."""
    from nas.client import Client, ServiceError

    files = folder / "files"
    files.mkdir()
    machine, found = Machine(folder), services({"NAS_FILES": str(files)})
    tokens = {name: secrets.token_hex(32) for name in ("ray_token", "nas_token")}
    for name, token in tokens.items():
        (folder / name).write_text(token)
        (folder / name).chmod(0o600)
    make_run(run, files / "run", machine.environment(found["service"]))

    machine.start(stack, "head", found["head"])
    for number in range(found["worker"]["deploy"]["replicas"]):
        machine.start(stack, f"worker-{number + 1}", found["worker"])
    machine.start(stack, "service", found["service"])

    url, problems = f"http://127.0.0.1:{machine.web}", list[str]()
    for name, client in (("no", Client(url)), ("a wrong", Client(url, "0" * 64))):
        try:
            client.runs()
            problems.append(f"the API answers to {name} token")
        except ServiceError as error:
            if error.code != 401:
                problems.append(f"the API answers {error.code} to {name} token")
    client = Client(url, tokens["nas_token"])
    names = [entry["id"] for entry in client.runs()]
    if names != ["run"]:
        problems.append(f"runs are {names}")

    began = time.monotonic()
    job = client.start("run", study="compose", n_trials=n_trials, num_workers=2, seed=3)
    if not job["ray_id"]:
        problems.append("the search is no job of the cluster")
    ended = client.wait(job["id"], SEARCH_SECONDS)
    summary, trials = client.study("run", "compose"), list(client.trials("run", "compose"))
    print(
        f"search: {ended['state']}, {len(trials)} trials in {time.monotonic() - began:.0f} s, the job's start included"
    )
    if ended["state"] != "succeeded" or len(trials) != n_trials:
        problems.append(f"job {ended}, {len(trials)} trials")
    workers = {trial["worker"] for trial in trials}
    print(f"state {summary['state']}, best {summary['best']}, evaluated by {', '.join(sorted(map(str, workers)))}")
    return problems + same_as_local(files / "run", trials, n_trials, machine.environment(found["service"]))


def make_run(source: Path | None, run: Path, environment: Mapping[str, str]) -> None:
    if source is not None:
        shutil.copytree(source, run, ignore=shutil.ignore_patterns("studies", "evaluations.jsonl"))
        return
    train = ["train", "--space", "digits", "--data", "digits", "--epochs", "1", "-o", str(run)]
    subprocess.run([sys.executable, "-m", "nas.cli", *train], env=environment, check=True, capture_output=True)


def same_as_local(run: Path, trials: list[dict[str, Any]], n_trials: int, environment: Mapping[str, str]) -> list[str]:
    """The same search in one process, without the cluster's evaluations, must have the same history."""
    from nas.store import read_study

    alone = run.parent / "alone"
    make_run(run, alone, environment)
    search = ["search", str(alone), "--n-trials", str(n_trials), "--num-workers", "0", "--seed", "3"]
    subprocess.run([sys.executable, "-m", "nas.cli", *search], env=environment, check=True, capture_output=True)
    local = [trial.arch.key for trial in read_study(alone / "studies" / "default.journal").trials]
    cluster = [trial["key"] for trial in trials]
    print(f"history equal to that of one process: {local == cluster}")
    return [] if local == cluster else [f"the cluster tried {cluster}, one process {local}"]


if __name__ == "__main__":
    main()
