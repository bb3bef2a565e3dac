"""A trained network from outside that teaches the subnets: an exported model, or one of torchvision's."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from supernet.data import ImageData
from supernet.exported import ExportedError, read_exported
from supernet.folders import few
from supernet.subnet import resized

SPECS = "the folder of an exported model, torchvision:NAME or torchvision:NAME:WEIGHTS.safetensors"


class TeacherError(ValueError):
    """A teacher that cannot be found, read or used; the message names it."""


class Teacher(nn.Module):
    """A network fed with the very crops that the students see, in the normalisation and size that it was trained with.

    mean, std: per channel, in the scale of 0 to 1, of the students' images (first) and of the network's. resolution:
    pixels that the network takes; None leaves the images as they are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[Sequence[float], Sequence[float]],
        std: tuple[Sequence[float], Sequence[float]],
        resolution: int | None,
    ) -> None:
        super().__init__()
        self.network, self.resolution = network, resolution
        ours, theirs = ((torch.tensor(m), torch.tensor(s)) for m, s in zip(mean, std))
        self.register_buffer("scale", (ours[1] / theirs[1])[:, None, None])
        self.register_buffer("shift", ((ours[0] - theirs[0]) / theirs[1])[:, None, None])
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, classes] for images normalised as the students' are [batch, C, H, W]."""
        x = images * self.scale + self.shift
        return self.network(x if self.resolution is None else resized(x, self.resolution))


def load_teacher(spec: str, data: ImageData) -> Teacher:
    """The teacher named by `spec` (`SPECS`), in eval mode.

    Raises TeacherError when it cannot be read, cannot take images of the data's size, or has not the data's classes or
    channels.
    """
    name, _, rest = spec.partition(":")
    teacher = _torchvision(rest, data) if name == "torchvision" else _exported(Path(spec), data)
    teacher.eval()
    size = data.image_size
    try:
        with torch.no_grad():
            logits = teacher(torch.zeros(1, data.in_channels, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:  # each network refuses in its own way
        raise TeacherError(f"the teacher {spec} cannot take images of {size}x{size} pixels: {error}") from None
    if logits.shape[1] != data.num_classes:
        raise TeacherError(f"the teacher {spec} has {logits.shape[1]} classes, the data set {data.num_classes}")
    if not torch.isfinite(logits).all():
        raise TeacherError(f"the teacher {spec} computes no finite numbers")
    return teacher


def _exported(folder: Path, data: ImageData) -> Teacher:
    """From `config.json` and the weights: the folder's own code is not run."""
    try:
        model = read_exported(folder)
        trained = model.config["pretrained_cfg"]
        teacher = Teacher(
            model.subnet, (data.mean, trained["mean"]), (data.std, trained["std"]), model.subnet.plan.resolution
        )
    except ExportedError as error:
        raise TeacherError(f"the teacher cannot be used: {error}; valid: {SPECS}") from None
    except (KeyError, TypeError, RuntimeError) as error:
        raise TeacherError(f"{folder / 'config.json'} does not say how its images were normalised: {error}") from None
    names = model.config.get("label_names")
    if isinstance(names, list) and names != list(data.classes) and sorted(map(str, names)) == sorted(data.classes):
        raise TeacherError(
            f"the teacher {folder} has the data's classes in another order: {few(names)}; the data has "
            f"{few(data.classes)}"
        )
    if model.space.in_channels != data.in_channels:
        raise TeacherError(
            f"the teacher {folder} takes {model.space.in_channels} channels, the data has {data.in_channels}"
        )
    return teacher


def _torchvision(spec: str, data: ImageData) -> Teacher:
    """With torchvision's default weights, or from a file of weights trained on images normalised like these."""
    from torchvision import models

    name, colon, file = spec.partition(":")
    if colon and not Path(file).is_file():
        raise TeacherError(f"there is no file of weights {file!r} for torchvision:{name}; valid: {SPECS}")
    if name not in models.list_models(module=models):
        raise TeacherError(
            f"torchvision has no classifier {name!r}; valid: {', '.join(models.list_models(module=models))}"
        )
    if data.in_channels != 3:
        raise TeacherError(f"torchvision:{name} takes 3 channels, the data has {data.in_channels}")
    if file:
        network: nn.Module = models.get_model(name, weights=None, num_classes=data.num_classes)
        try:
            network.load_state_dict(load_file(file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise TeacherError(
                f"{file} does not hold the weights of {name} for {data.num_classes} classes: "
                + textwrap.shorten(str(error), 300)  # which may name every weight
            ) from None
        return Teacher(network, (data.mean, data.mean), (data.std, data.std), None)
    weights: Any = models.get_model_weights(name).DEFAULT
    preset, classes = weights.transforms(), len(weights.meta["categories"])
    if classes != data.num_classes:  # before they are downloaded
        raise TeacherError(
            f"the weights of torchvision:{name} know {classes} classes, the data set {data.num_classes}; give "
            f"weights for these as torchvision:{name}:WEIGHTS.safetensors"
        )
    try:
        network = models.get_model(name, weights=weights)
    except OSError as error:
        raise TeacherError(f"the weights of torchvision:{name} cannot be fetched: {error}") from None
    return Teacher(network, (data.mean, preset.mean), (data.std, preset.std), preset.crop_size[0])
