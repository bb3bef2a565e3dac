"""Whole commands on a run in a bucket of a real S3 server: killed, continued, on one machine and on another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
import torch
import warm_python

from nas.remote_storage import Storage
from nas.run import Run, folder_of
from nas.searching import open_study, search_run
from supernet import checkpoint

ROOT = Path(__file__).parent.parent


@pytest.fixture
def machine(s3, tmp_path, monkeypatch):
    """Makes this process and the commands that it starts those of a machine with mirrors of its own."""
    for name, value in s3.items():
        monkeypatch.setenv(name, value)

    def move(name):
        monkeypatch.setenv("NAS_CACHE", str(tmp_path / name))

    move("first")
    return move


def start(*arguments, python=sys.executable):
    command = [python, "-m", "nas.cli", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=os.environ.copy(), stderr=pipe, stdout=pipe, text=True)


def wait_for_lines(file, number, process):
    """Blocks until `file` has this many lines; fails when the process ends before."""
    while not file.exists() or len(file.read_bytes().splitlines()) < number:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def history(study):
    return [(t.number, t.arch.key, t.state, dict(t.metrics)) for t in study.trials]


def test_a_search_in_a_bucket(machine, nas, trained_run, run_copy, tmp_path):
    """Killed, continued on this machine, refused to another one meanwhile, continued there and exported."""
    expected = history(search_run(run_copy, n_trials=30, num_workers=0, limits={"macs": 3e6}))
    url = f"s3://bucket/{tmp_path.name}"
    fsspec.filesystem("s3").put(f"{trained_run}/", f"bucket/{tmp_path.name}/", recursive=True)
    command = ["search", url, "--num-workers", 0, "--max-macs", "3M", "--n-trials"]

    process = start(*command, 24)
    wait_for_lines(folder_of(url) / "evaluations.jsonl", 8, process)
    process.send_signal(signal.SIGSTOP)
    machine("second")
    code, _, err = nas(*command, 24)
    assert (code, f"studies/default.journal is being written by process {process.pid} on" in err) == (2, True)
    process.kill()
    process.communicate()

    machine("first")
    code, out, err = nas(*command, 24)
    assert code == 0, err
    assert out.splitlines()[-1] == f"picture: {url}/front.png"
    assert history(open_study(url)) == expected[:24]

    machine("second")
    code, out, err = nas("pareto", url, "--json")
    assert (code, json.loads(out)["n_trials"]) == (0, 24), err
    assert not (folder_of(url) / "checkpoint.safetensors").exists()
    assert nas(*command, 30)[0] == 0
    assert history(open_study(url)) == expected
    code, out, err = nas("export", url, "--best", "-o", tmp_path / "model", "--json")
    assert code == 0, err
    assert json.loads(out)["max_delta"] <= 1e-5


def test_a_training_in_a_bucket(machine, nas, trained_run, tmp_path):
    """Stopped, refused a second start, and continued on another machine to what it would have been."""
    url = f"s3://bucket/{tmp_path.name}"
    recipe = ["--space", "digits", "--data", "digits", "--epochs", 3, "--batch-size", 64]
    process = start("train", *recipe, "-o", url, python=warm_python.python())
    wait_for_lines(folder_of(url) / "metrics.jsonl", 4, process)  # inside the second epoch
    process.terminate()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert f"continue with: nas train -o {url} --resume" in err
    assert Storage(url).read("checkpoint.safetensors") == (folder_of(url) / "checkpoint.safetensors").read_bytes()

    machine("second")
    code, _, err = nas("train", *recipe, "-o", url)
    assert (code, "is not empty; continue that run with --resume" in err) == (2, True)
    code, _, err = nas("train", "-o", url, "--resume")
    assert code == 0, err
    assert f"next: nas search {url} --max-macs" in err

    machine("third")
    tensors, state = checkpoint.load(Run.open(url).checkpoint)
    expected, expected_state = checkpoint.load(trained_run / "checkpoint.safetensors")
    assert state == expected_state
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    names = set(Storage(url).list(depth=1))
    assert names == {"run.json", "checkpoint.safetensors", "last-good.safetensors", "metrics.jsonl", "training.png"}
