"""Run folders with studies in them, made without training: for what only reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from search_cases import network_problem, noise

from nas.data_options import DataOptions
from nas.problem import Problem
from nas.run import Run
from nas.store import Identity, JournalStore
from nas.trial import Trial
from search_spaces.catalog import SPACES
from supernet import checkpoint
from supernet.recipe import TrainConfig

SPACE = SPACES["digits"]()
PROBLEM = Problem(SPACE, {"top1": "maximize", "macs": "minimize"}, {}, network_problem("digits").cost)
CONTEXT = {"weights": "a" * 16, "data": "d" * 16, "split": "validation"}
IDENTITY = Identity("default", SPACE.to_dict(), PROBLEM.objectives, {}, "random", 0, 8, CONTEXT)


def make_run(folder: Path) -> Run:
    run = Run.create(folder, SPACE, DataOptions("digits"), TrainConfig(), [str(i) for i in range(10)])
    set_weights(run, "a")
    return run


def set_weights(run: Run, letter: str) -> None:
    """As a training leaves it: a checkpoint whose weights have the hash of 64 such letters."""
    checkpoint.save(run.checkpoint, {"weight": torch.zeros(3)}, {"weights_hash": letter * 64, "data": "d" * 64})


def make_trials(n: int, seed: int = 0, failed: Sequence[int] = (), problem: Problem = PROBLEM) -> list[Trial]:
    """Different random architectures; `top1` grows with the MACs, with noise."""
    rng, archs = np.random.default_rng(seed), dict[str, Any]()
    while len(archs) < n:
        arch = SPACE.sample(rng)
        archs.setdefault(arch.key, arch)
    trials = []
    for number, arch in enumerate(archs.values()):
        costs = problem.costs(arch)
        metrics = costs | ({} if number in failed else {"top1": costs["macs"] / 2e7 + 0.5 * noise(arch.key)})
        state, error = ("failed", "RuntimeError: no luck") if number in failed else ("complete", None)
        trials.append(
            Trial(number, arch, state, metrics, problem.constraints(metrics), "test", 0.0, error)  # type: ignore[arg-type]
        )
    return trials


def write_study(run: Run, name: str, trials: Sequence[Trial], n_trials: int | None = None, **changes: Any) -> None:
    """Writes a study into the run; `changes` to its identity."""
    identity = replace(IDENTITY, study_name=name, **changes)
    store = JournalStore(run.study(name), identity, SPACE, n_trials)
    for trial in trials:
        store.append(trial)
    store.close()
