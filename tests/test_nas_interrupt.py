"""Signals to real processes: whatever ends a training or a search, going on gives what no interruption would have."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import warm_python

from nas.searching import open_study, search_run
from supernet import checkpoint

ROOT = Path(__file__).parent.parent
ENVIRONMENT = os.environ | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def start(*arguments, largest_file=resource.RLIM_INFINITY):
    """`largest_file`, in bytes, stands for a full disk: a write beyond it fails half way."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest_file}, {largest_file}))"
    # as from a terminal: what a shell starts in the background has SIGINT ignored, and its children inherit that
    terminal = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [
        warm_python.python(),
        "-c",
        f"{limit}; {terminal}; from nas import cli; cli.main()",
        *map(str, arguments),
    ]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stderr=pipe, stdout=pipe, text=True)


@pytest.fixture
def finish(nas):
    """Runs a command to its end, in this process: signals are for the one before it."""

    def run(*arguments):
        code, _, err = nas(*arguments)
        assert code == 0, err

    return run


def wait_for_lines(file, number, process):
    """Blocks until `file` has this many lines; fails when the process ends before."""
    while not file.exists() or len(file.read_bytes().splitlines()) < number:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


TRAIN = ["--space", "digits", "--data", "digits", "--epochs", 3, "--batch-size", 128]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    process = start("train", *TRAIN, "-o", folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(trained, tmp_path, finish, number):
    run = tmp_path / "run"
    process = start("train", *TRAIN, "-o", run)
    wait_for_lines(run / "metrics.jsonl", 3, process)  # inside the second epoch
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, err
        assert f"continue with: nas train -o {run} --resume" in err
    finish("train", "-o", run, "--resume")
    tensors, state = checkpoint.load(run / "checkpoint.safetensors")
    expected, expected_state = checkpoint.load(trained / "checkpoint.safetensors")
    assert state == expected_state
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)

    def steps(folder):
        return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    assert steps(run) == steps(trained)


def history(run):
    return [(t.number, t.arch.key, t.state, dict(t.metrics)) for t in open_study(run).trials]


SEARCH = ["--n-trials", 24, "--max-macs", "3M", "--seed", 5]


@pytest.fixture(scope="module")
def searched(trained, tmp_path_factory):
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("searched") / "run"))
    search_run(run, n_trials=24, limits={"macs": 3e6}, seed=5, num_workers=0)
    return history(run)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGKILL, 1), (signal.SIGINT, 2)], ids=["SIGKILL", "SIGINT"])
def test_an_interrupted_search_of_a_supernet_has_the_same_history(
    trained, searched, tmp_path, finish, ray_address, number, workers
):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    process = start("search", run, *SEARCH, "--num-workers", workers)
    evaluated = random.Random(workers).randint(1, 20)
    wait_for_lines(run / "evaluations.jsonl", evaluated, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), err
    killed = number == signal.SIGKILL and open_study(run).trials  # and its settings are recorded
    again = ["resume", run] if killed else ["search", run, *SEARCH]
    finish(*again, "--num-workers", 3 - workers, "--address", ray_address)
    assert history(run) == searched


def test_a_full_disk_during_training_loses_nothing(trained, tmp_path, finish):
    run = tmp_path / "run"
    process = start("train", *TRAIN, "-o", run, largest_file=100_000)  # the checkpoint needs more
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"cannot write {run}" in err
    assert "Traceback" not in err
    assert not list(run.glob("*.tmp"))
    finish("train", "-o", run, "--resume")
    tensors, expected = (checkpoint.load(folder / "checkpoint.safetensors")[0] for folder in (run, trained))
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("largest_file", [2_000, 9_000, 15_000])
def test_a_full_disk_during_a_search_loses_nothing(trained, searched, tmp_path, finish, largest_file):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    process = start("search", run, *SEARCH, "--num-workers", 0, largest_file=largest_file)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert str(run) in err
    assert "Traceback" not in err
    finish("search", run, *SEARCH, "--num-workers", 0)
    assert history(run) == searched


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_an_interrupted_export_leaves_nothing(trained, tmp_path, number):
    genes = {"depth": [1, 1], "width": [16, 32], "kernel": [3, 3, 3, 3], "pool": [0]}
    process = start("export", trained, "--arch", json.dumps(genes), "-o", tmp_path / "model")
    while not list(tmp_path.iterdir()):  # the staging folder
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert list(tmp_path.iterdir()) == []
