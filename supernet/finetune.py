"""Fine-tuning one subnet from the weights that it has in the supernet, on whatever machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from search_spaces.plan import Plan
from supernet.data import ImageData, Split
from supernet.evaluate import NotFiniteError, count_correct, readonly, recalibrate
from supernet.recipe import TrainConfig
from supernet.standalone import train_alone
from supernet.subnet import Subnet
from supernet.train import TrainingError


@dataclass(frozen=True)
class Images:
    """What fine-tuning needs to know of a run's images beside the arrays of `shared_images`; no test image is in it.

    files: the training images where they are streamed from files that every machine must see, else None.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    flip: bool
    files: Any = None

    @classmethod
    def of(cls, data: ImageData) -> Images:
        """Of a run's data."""
        files = None if isinstance(data.train.images, Tensor) else data.train.images
        return cls(data.mean, data.std, data.classes, data.flip, files)

    def data(self, shared: Mapping[str, np.ndarray]) -> ImageData:
        """The splits over `shared_images`, whose memory is used in place and never written to; `test` is empty."""
        arrays = {name: readonly(array) for name, array in shared.items() if name.startswith("images.")}
        splits = {
            name: Split(arrays.get(f"images.{name}", self.files), arrays[f"images.{name}.labels"])
            for name in ("train", "calibration", "validation")
        }
        empty = Split(splits["validation"].images[:0], splits["validation"].labels[:0])
        return ImageData(**splits, test=empty, mean=self.mean, std=self.std, classes=self.classes, flip=self.flip,
                         skipped=0)  # fmt: skip


def shared_images(data: ImageData) -> dict[str, np.ndarray]:
    """The images and labels to train, recalibrate and score with, as arrays that an object store shares."""
    arrays = {}
    for name in ("train", "calibration", "validation"):
        split: Split = getattr(data, name)
        arrays[f"images.{name}.labels"] = split.labels.numpy()
        if isinstance(split.images, Tensor):
            arrays[f"images.{name}"] = split.images.numpy()
    return arrays


def scored(subnet: Subnet, data: ImageData) -> tuple[Subnet, int]:
    """A copy of `subnet` with recalibrated batch norms, in eval mode and on the CPU, and how many images of the
    search-validation split it gets right: as a search scores. Raises NotFiniteError when a logit is not finite.
    """
    ready = copy.deepcopy(subnet)
    recalibrate(ready, data.calibration.images, data.mean, data.std)
    correct = count_correct(ready, data.validation, data.mean, data.std)
    return ready.cpu(), correct


def fine_tune(
    plan: Plan,
    weights: Mapping[str, Tensor],
    data: ImageData,
    config: TrainConfig,
    epochs: int,
    seed: int,
    on_epoch: Callable[[Subnet, int], None],
    *,
    device: str = "cpu",
    largest: bool = False,
    teacher: nn.Module | None = None,
) -> None:
    """Trains on from `weights`, the state dict of a `Subnet` of `plan`, with the recipe `config`.

    on_epoch: after each epoch, with what `scored` returns. The other arguments: of `supernet.standalone.train_alone`.
    Raises TrainingError when the training diverges.
    """
    start = Subnet(plan)
    start.load_state_dict(weights)

    def score(subnet: Subnet) -> None:
        try:
            result = scored(subnet, data)
        except NotFiniteError as error:
            raise TrainingError(str(error)) from None
        on_epoch(*result)

    train_alone(plan, data, config, epochs, seed, device, largest=largest, teacher=teacher, start=start, on_epoch=score)
