"""A real search process, killed at random moments and started again, has the history of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python
from search_cases import history

from nas.store import read_study

ROOT = Path(__file__).parent.parent
N_TRIALS = 100

SCRIPT = """
import hashlib, signal, sys, time
import nas
from search_spaces.space import ChoiceSpace

storage, n_trials, num_workers, address, evaluations = sys.argv[1:]  # here, for workers have arguments of their own

def evaluate(arch):
    noise = int.from_bytes(hashlib.sha256(arch.key.encode()).digest()[:4], "big") / 2**32
    with open(evaluations, "a") as evaluated:
        evaluated.write(arch.key + "\\n")
    time.sleep(0.02 * noise)  # evaluations of different length, so that workers finish out of order
    if noise < 0.1:
        raise RuntimeError("no luck")
    return {"top1": noise}

stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
study = nas.search(
    ChoiceSpace({f"g{i}": (0, 1, 2, 3) for i in range(8)}), evaluate, n_trials=int(n_trials), seed=5,
    cost=lambda arch: {"macs": sum(arch.values())}, limits={"macs": 15},
    storage=storage, num_workers=int(num_workers), address=address,
    on_trial=lambda trial: print(trial.number, flush=True), stop=lambda: bool(stopped),
)
print(study.outcome, flush=True)
"""


class Search:
    """The script on one study file, as often as it takes."""

    def __init__(self, folder: Path, num_workers: int, address: str, python: str | None = None) -> None:
        self.storage, self.evaluated = folder / "study.log", folder / "evaluated"
        self._python = python or warm_python.python()
        self._script = folder / "search.py"
        self._script.write_text(SCRIPT)
        self._workers = (str(num_workers), address)

    def start(self) -> subprocess.Popen[str]:
        arguments = [str(self.storage), str(N_TRIALS), *self._workers, str(self.evaluated)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
        return subprocess.Popen(
            [self._python, str(self._script), *arguments], stdout=subprocess.PIPE, text=True, env=environment
        )

    def signal_after(self, trials: int, number: int) -> tuple[list[str], int]:
        """Starts it, sends the signal once so many new trials were reported; what it printed and its exit code."""
        with self.start() as process:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line.strip())
                if len(lines) == trials:
                    process.send_signal(number)
            return lines, process.wait()

    def finish(self) -> None:
        with self.start() as process:
            output, _ = process.communicate()
        assert process.returncode == 0
        assert output.splitlines()[-1] == "finished"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, str, dict[str, float]]]:
    # with another seed of hashes than the processes that are forked from one: no order may depend on it
    search = Search(tmp_path_factory.mktemp("undisturbed"), 0, "local", sys.executable)
    search.finish()
    trials = history(read_study(search.storage).trials)
    assert len(trials) == N_TRIALS
    assert {state for _, _, state, _ in trials} == {"complete", "failed"}
    return trials


@pytest.mark.parametrize(("num_workers", "kills"), [(0, 3), (1, 1), (2, 2)])
def test_killed_and_resumed_is_the_same_history(
    tmp_path: Path, request: pytest.FixtureRequest, undisturbed: list[object], num_workers: int, kills: int
) -> None:
    address = request.getfixturevalue("ray_address") if num_workers else "local"
    search = Search(tmp_path, num_workers, address)
    moments = random.Random(num_workers)
    for _ in range(kills):
        _, code = search.signal_after(moments.randint(1, 25), signal.SIGKILL)
        assert code in (-signal.SIGKILL, 0)  # 0: it was done before the signal came
        trials = history(read_study(search.storage).trials)
        assert trials == undisturbed[: len(trials)]
    search.finish()
    assert history(read_study(search.storage).trials) == undisturbed


def test_terminated_keeps_what_has_finished(tmp_path: Path, ray_address: str, undisturbed: list[object]) -> None:
    """SIGTERM reaches the program's own handler although Ray installs one, and the search ends cleanly."""
    search = Search(tmp_path, 2, ray_address)
    lines, code = search.signal_after(10, signal.SIGTERM)
    assert code == 0
    assert lines[-1] == "stopped"
    assert 10 <= len(read_study(search.storage).trials) < N_TRIALS
    search.finish()
    assert history(read_study(search.storage).trials) == undisturbed


def test_a_private_ray_comes_and_goes_with_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[object]
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    search = Search(tmp_path, 2, "local")
    search.finish()
    assert history(read_study(search.storage).trials) == undisturbed
    assert not (tmp_path / "home" / ".ray").exists()
    evaluated = search.evaluated.read_text().split()
    assert len(evaluated) == len(set(evaluated)) == N_TRIALS
