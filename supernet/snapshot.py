"""A training run as one file: everything that decides how it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from supernet import checkpoint
from supernet.spikes import SpikeDetector

if TYPE_CHECKING:
    from supernet.train import Trainer


class TrainingError(RuntimeError):
    """Training cannot go on or be resumed; the message says why and what to do."""


def save(trainer: Trainer, path: Path) -> None:
    """Writes everything that `restore` needs, atomically; raises OSError when the disk is full."""
    ready = trainer.ready.state_dict()
    tensors = {f"model.{name}": t for name, t in ready.items()} | optimizer_state(trainer)
    if trainer.average:
        tensors |= {f"trained.{name}": t for name, t in trainer.supernet.state_dict().items()}
    tensors |= {f"sampler.{name}": torch.from_numpy(np.asarray(a)) for name, a in trainer.sampler.state().items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if trainer.device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(trainer.device)
    state = trainer.identity() | {
        "step": trainer.step,
        "total_steps": trainer.total_steps,
        "rollbacks": trainer.rollbacks,
        "rolled_back_to": trainer.rolled_back_to,
        "averaged": int(trainer.average.n_averaged) if trainer.average else 0,
        "spikes": asdict(trainer.spikes),
        "weights_hash": checkpoint.weights_hash(ready),
    }
    checkpoint.save(path, tensors, state)


def restore(trainer: Trainer, path: Path) -> None:
    """Takes up the run saved at `path`.

    Raises TrainingError naming what differs when it is a run of another space, recipe or data set, and
    CheckpointError naming the file when it cannot be read.
    """
    tensors, state = checkpoint.load(path)
    if differs := _differences(state, trainer.identity()):
        raise TrainingError(f"cannot resume {path}: {'; '.join(differs)}")
    trainer.ready.load_state_dict(checkpoint.select(tensors, "model"))
    if trainer.average:
        trainer.supernet.load_state_dict(checkpoint.select(tensors, "trained"))
        trainer.average.n_averaged.fill_(state["averaged"])
    _load_optimizer_state(trainer, tensors)
    trainer.step = int(state["step"])
    trainer.rollbacks = int(state["rollbacks"])
    trainer.rolled_back_to = int(state.get("rolled_back_to", -1))  # not in runs of older versions
    trainer.spikes = SpikeDetector(**state["spikes"])
    trainer.sampler = trainer.sampler_of(trainer.schedule.phase(max(trainer.step - 1, 0)).space)
    trainer.sampler.load({name: t.numpy() for name, t in checkpoint.select(tensors, "sampler").items()})
    torch.set_rng_state(tensors["rng.cpu"])
    if trainer.device.type == "cuda" and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"], trainer.device)


def optimizer_state(trainer: Trainer) -> dict[str, Tensor]:
    """The optimizer's tensors as `optimizer.KIND.PARAMETER`."""
    return {
        f"optimizer.{kind}.{name}": value
        for name, p in trainer.supernet.named_parameters()
        for kind, value in trainer.optimizer.state.get(p, {}).items()
        if isinstance(value, Tensor)
    }


def _load_optimizer_state(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    params = dict(trainer.supernet.named_parameters())
    trainer.optimizer.state.clear()
    for key, value in checkpoint.select(tensors, "optimizer").items():
        kind, _, name = key.partition(".")
        device = "cpu" if kind == "step" else trainer.device  # AdamW counts its steps on the CPU
        trainer.optimizer.state[params[name]][kind] = value.to(device)


def recipe_changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`changes` of a recipe. Not a teacher's place: it may have moved, and its weights say whether it is the same."""
    if saved.get("teacher") and now.get("teacher"):
        saved = {**saved, "teacher": now["teacher"]}
    return changes("recipe", saved, now)


def changes(part: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of `part` is not as it was, as `recipe lr was 0.1 and is now 0.2`."""
    names = sorted(name for name in saved.keys() | now.keys() if saved.get(name) != now.get(name))
    return [f"{part} {name} was {saved.get(name)!r} and is now {now.get(name)!r}" for name in names]


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = changes("space", saved["space"], now["space"]) + recipe_changes(saved["recipe"], now["recipe"])
    if saved["data"] != now["data"]:
        found.append("the images, labels or splits are not those it was trained on")
    if saved["teacher"] != now["teacher"]:
        found.append("the teacher's weights are not those it was trained with")
    return found
