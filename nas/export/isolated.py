"""Runs an exported model in a process that has nothing of this project, and of the runtimes only the format's own."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nas.export import probe
from nas.export.formats import ALWAYS, FORMATS
from supernet.data import Split
from supernet.evaluate import BATCH
from supernet.subnet import resized

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON = sys.executable
PROJECT = ("nas", "workers", "supernet", "search_spaces")


class StandaloneError(RuntimeError):
    """The exported model did not run on its own; the message holds what its process printed."""


@dataclass(frozen=True)
class Question:
    """Images with labels for processes that have no reader of ours. file: pixels, uint8 of `shape` [n, C, H, W]."""

    file: Path
    shape: tuple[int, ...]
    labels: list[int]

    @classmethod
    def write(cls, file: Path, split: Split, resolution: int) -> Question:
        """Images of another size than `resolution` pixels are resized, and rounded to uint8 as picture files are."""
        with open(file, "wb") as pixels:
            for batch in _resized_batches(split, resolution):
                pixels.write(batch.numpy().tobytes())
        n, channels = split.images.shape[:2]
        return cls(file, (n, channels, resolution, resolution), split.labels.tolist())

    def head(self, count: int) -> Tensor:
        """The first images, uint8 [at most count, C, H, W]."""
        size = self.shape[1:]
        return torch.from_numpy(np.fromfile(self.file, np.uint8, count * int(np.prod(size))).reshape(-1, *size))


@dataclass(frozen=True)
class Answer:
    """What a model computed. logits: float32 [images asked for, classes].

    calls: wall and processor milliseconds of batches of one image, for `workers.latency.timing`.
    """

    logits: Tensor
    correct: int
    calls: list[tuple[float, float]]
    versions: dict[str, str]


def ask(name: str, folder: Path, question: Question, *, logits: int, threads: int = 1, runs: int = 30) -> Answer:
    """Has the format `name` of a folder answer all images, from a fresh process.

    logits: for how many images to return them. threads: CPU threads, of the latency alone. runs: calls to time.
    Raises StandaloneError with that process's last line when it fails.
    """
    chosen = FORMATS[name]
    with tempfile.TemporaryDirectory() as scratch:
        settings = {
            "source": inspect.getsource(chosen.opened), "refused": [*PROJECT, *chosen.refused],
            "folder": str(folder.resolve()), "images": str(question.file.resolve()), "shape": question.shape,
            "labels": question.labels, "logits": logits, "threads": threads, "runs": runs, "out": scratch,
        }  # fmt: skip
        (Path(scratch) / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [PYTHON, "-I", "-B", probe.__file__, f"{scratch}/settings.json"]
        # in a session of its own: a Ctrl-C in the terminal is for the command, which decides what it ends
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, check=False, start_new_session=True)
        if done.returncode:
            last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise StandaloneError(f"{chosen.file} does not run on its own: {last}")
        answer = json.loads((Path(scratch) / "answer.json").read_text(encoding="utf-8"))
        values = torch.from_numpy(np.fromfile(Path(scratch) / "logits.bin", np.float32))
    return Answer(values.view(min(logits, len(question.labels)), -1), **answer)


def predict_isolated(folder: Path, images: Tensor) -> Tensor:
    """Logits [n, classes] of an exported `model.py` for uint8 images [n, C, H, W]. Raises StandaloneError as `ask`."""
    with tempfile.TemporaryDirectory() as scratch:
        split = Split(images, torch.zeros(len(images), dtype=torch.int64))
        question = Question.write(Path(scratch) / "images.bin", split, images.shape[-1])
        return ask(ALWAYS, folder, question, logits=len(images), runs=0).logits


def _resized_batches(split: Split, resolution: int) -> Iterator[Tensor]:
    for batch in split.images.split(BATCH):
        if batch.shape[-1] == resolution:
            yield batch.cpu()
        else:
            yield resized(batch.float(), resolution).round().clamp(0, 255).to(torch.uint8).cpu()
