"""Optuna and optuna-dashboard on a study file that a search has left: everything there, and not one byte changed."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from search_cases import choice_space, noise, score, size_cost

import nas
from nas.study import Study

LIMITS = {"macs": 40.0, "error_rate": 0.8}  # the second is known after evaluation alone, so some trials are infeasible


def evaluate(arch: Any) -> dict[str, float]:
    if noise(arch.key) < 0.1:
        raise RuntimeError("no luck")
    return score(arch)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Study]:
    file = tmp_path_factory.mktemp("study") / "study.journal"
    study = nas.search(
        choice_space(), evaluate, n_trials=60, seed=3, cost=size_cost, limits=LIMITS,
        objectives={"top1": "maximize", "macs": "minimize"}, storage=file, study_name="choices",
    )  # fmt: skip
    states = {(trial.state, trial.feasible) for trial in study.trials}
    assert states == {("complete", True), ("complete", False), ("failed", False)}
    return file, study


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.loads(answer.read())


@pytest.fixture(scope="module")
def dashboard(searched: tuple[Path, Study]) -> Iterator[str]:
    """Address of a real optuna-dashboard on the study file as it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [str(program), str(searched[0]), "--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, process.communicate()[0]
            try:
                get(f"{address}/api/meta")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.communicate()


def test_the_dashboard_shows_the_study_and_leaves_the_file_alone(searched: tuple[Path, Study], dashboard: str) -> None:
    file, study = searched
    before, files = file.read_bytes(), sorted(file.parent.iterdir())
    (entry,) = get(f"{dashboard}/api/studies")["study_summaries"]
    assert entry["study_name"] == "choices"
    assert entry["directions"] == ["maximize", "minimize"]
    detail = get(f"{dashboard}/api/studies/{entry['study_id']}?after=0")
    assert detail["objective_names"] == ["top1", "macs"]
    assert len(detail["trials"]) == len(study.trials) == 60
    for shown, trial in zip(detail["trials"], study.trials, strict=True):
        assert shown["number"] == trial.number
        assert shown["state"] == ("Complete" if trial.state == "complete" else "Fail")
        if trial.state == "complete":
            assert shown["values"] == [trial.metrics["top1"], trial.metrics["macs"]]
        assert {p["name"]: p["param_external_value"] for p in shown["params"]} == {
            name: str(value) for name, value in trial.arch.to_dict().items()
        }
        assert shown["constraints"] == list(trial.constraints.values())
    page = urllib.request.urlopen(f"{dashboard}/dashboard/studies/{entry['study_id']}", timeout=30)
    assert page.status == 200
    assert file.read_bytes() == before
    assert sorted(file.parent.iterdir()) == files


def optunas(file: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(file))
    return optuna.load_study(study_name="choices", storage=optuna.storages.JournalStorage(backend))


def test_optunas_front_is_ours(searched: tuple[Path, Study]) -> None:
    file, study = searched
    assert [t.number for t in optunas(file).best_trials] == [t.number for t in study.front()]


def test_the_data_frame_holds_every_trial(searched: tuple[Path, Study]) -> None:
    file, study = searched
    before = file.read_bytes()
    frame = optunas(file).trials_dataframe()
    assert frame["number"].tolist() == list(range(60))
    assert frame["state"].tolist() == ["COMPLETE" if t.state == "complete" else "FAIL" for t in study.trials]
    for name in ("top1", "macs"):
        for value, trial in zip(frame[f"values_{name}"], study.trials, strict=True):
            assert value == trial.metrics[name] if trial.state == "complete" else math.isnan(value)
    for gene in study.trials[0].arch.to_dict():
        assert frame[f"params_{gene}"].tolist() == [t.arch.to_dict()[gene] for t in study.trials]
    assert file.read_bytes() == before
