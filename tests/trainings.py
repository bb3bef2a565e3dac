"""Trainings of a tiny supernet on digits: to their end, or stopped and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from search_spaces.network import NetworkSpace, Stage
from supernet import checkpoint, datasets
from supernet.data import ImageData, prepare
from supernet.fit import Hooks, fit
from supernet.model import Supernet
from supernet.recipe import TrainConfig
from supernet.train import Trainer

TINY = NetworkSpace("tiny", (Stage((1, 2), (4, 8), (1, 3)), Stage((1,), (8,), (3,))), 1, 1, 8, 10)
CONFIG = TrainConfig(epochs=2, batch_size=128, lr=0.1, seed=3, step_plan="sandwich")


def digits(images: int | None = None) -> ImageData:
    """Prepared with seed 0; of so many training images, or all."""
    raw = datasets.load("digits")
    raw = replace(raw, train_images=raw.train_images[:images], train_labels=raw.train_labels[:images])
    return prepare(raw, seed=0)


def new_trainer(data: ImageData, config: TrainConfig = CONFIG, space: NetworkSpace | None = None) -> Trainer:
    torch.manual_seed(config.seed)
    return Trainer(Supernet(space or TINY), data, config, device="cpu")


def train_all(trainer: Trainer, folder: Path, stop_at: int | None = None) -> bool:
    """Trains in `folder` to the end, or until so many steps are done; whether it is finished."""
    folder.mkdir(exist_ok=True)
    hooks = Hooks(should_stop=lambda: trainer.step == stop_at)
    return fit(trainer, folder / "checkpoint.safetensors", folder / "metrics.jsonl", hooks)


def records(folder: Path) -> list[dict[str, Any]]:
    """What was recorded of the training, but for its speed."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_s"} for line in lines]


def assert_same_run(folder: Path, expected_folder: Path) -> None:
    tensors, state = checkpoint.load(folder / "checkpoint.safetensors")
    expected, expected_state = checkpoint.load(expected_folder / "checkpoint.safetensors")
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name
    assert state == expected_state
    assert records(folder) == records(expected_folder)
