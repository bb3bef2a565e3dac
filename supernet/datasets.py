"""Readers: a ``--data`` spec such as ``cifar10:ROOT`` becomes uint8 images and labels in memory.

Nothing is unpickled here. torchvision's own CIFAR reader unpickles, after checking each file's MD5.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.data import DataError, RawData, hold_out_test
from supernet.folders import ReadOptions, few, read_folder

CHANNELS = (1, 3, 4)
RESIZE_CHUNK = 4096  # images


@dataclass(frozen=True)
class DataSet:
    """One entry of ``DATASETS``."""

    usage: str
    """The spec as a user types it."""
    read: Callable[[str, ReadOptions], RawData]
    """Takes the part of the spec after the first colon ("" without one)."""


def load(spec: str, *, image_size: int | None = None, download: bool = False, skip_corrupt: bool = False) -> RawData:
    """Read a data set into memory.

    Args:
        spec: ``digits``, ``cifar10[:ROOT]``, ``cifar100[:ROOT]``, ``fashion_mnist[:ROOT]``, ``folder:DIR`` or
            ``npz:FILE``; ROOT defaults to ``./data``.
        image_size: pixels a side that every image is resized to. By default images keep their size; those of a folder
            do when all are one square size up to 96, and become 32 otherwise. A folder whose images would then take
            more than 2 GiB stays on disk: ``ImageFiles`` stand for its tensors (``supernet.streaming``).
        download: fetch a missing torchvision data set into ROOT.
        skip_corrupt: leave unreadable images of a folder out and count them in ``RawData.skipped``.

    Raises:
        DataError: the spec is unknown, or what it names is missing, malformed or has fewer than two classes.
    """
    name, _, argument = spec.partition(":")
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; give one of {', '.join(d.usage for d in DATASETS.values())}")
    if image_size is not None and image_size < 1:
        raise DataError(f"image size {image_size} is not a positive number of pixels")
    raw = DATASETS[name].read(argument, ReadOptions(image_size, download, skip_corrupt))
    if image_size is None or image_size == raw.train_images.shape[-1]:
        return raw
    return replace(
        raw, train_images=_resize(raw.train_images, image_size), test_images=_resize(raw.test_images, image_size)
    )


def _resize(images: Tensor, size: int) -> Tensor:
    """Antialiased bilinear, in chunks so that the working memory stays bounded."""
    resized = images.new_empty((*images.shape[:2], size, size))
    for start in range(0, len(images), RESIZE_CHUNK):
        chunk = slice(start, start + RESIZE_CHUNK)
        resized[chunk] = F.interpolate(images[chunk], size=(size, size), mode="bilinear", antialias=True)
    return resized


def _digits(argument: str, options: ReadOptions) -> RawData:
    from sklearn.datasets import load_digits

    if argument:
        raise DataError(f"digits takes no argument, got {argument!r}")
    digits = load_digits()
    images = np.rint(digits.images[:, None] * 255 / 16).astype(np.uint8)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    return hold_out_test(torch.from_numpy(images), labels, tuple(map(str, digits.target_names)), flip=False, skipped=0)


def _torchvision(class_name: str, folder: str, argument: str, options: ReadOptions) -> RawData:
    """Any torchvision set with ``data``, ``targets`` and ``classes``; ``folder`` is where it looks below ROOT."""
    from torchvision import datasets

    reader = getattr(datasets, class_name)
    root = Path(argument or "./data").expanduser()
    try:
        train, test = (reader(root, train=part, download=options.download) for part in (True, False))
    except (RuntimeError, OSError, ValueError, AssertionError) as error:  # what torchvision raises on bad files
        raise DataError(
            f"no complete {class_name} in {root / folder} ({error}); give the folder that holds {folder}/ "
            "as ROOT, after the data set's name and a colon, or fetch it with --download"
        ) from error
    return RawData(*_tensors(train), *_tensors(test), classes=tuple(train.classes), flip=True, skipped=0)


def _tensors(split: Any) -> tuple[Tensor, Tensor]:
    images = torch.as_tensor(split.data)
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous(), torch.as_tensor(split.targets, dtype=torch.int64)


def _npz(argument: str, options: ReadOptions) -> RawData:
    if not argument:
        raise DataError("npz needs a file: npz:FILE")
    path = Path(argument).expanduser()
    arrays = _read_npz(path)
    images, labels = ("x_train", "y_train") if "x_train" in arrays else ("images", "labels")
    train_images, train_labels = _npz_split(path, arrays, images, labels)
    seen = train_labels.unique()
    if not torch.equal(seen, torch.arange(len(seen))) or len(seen) < 2:
        raise DataError(f"{path}: {labels} must use every label of 0 to n-1, n at least 2; it has {few(seen.tolist())}")
    classes = tuple(str(label) for label in seen.tolist())
    flip = train_images.shape[1] == 3
    if images == "images":
        return hold_out_test(train_images, train_labels, classes, flip, skipped=0)
    test_images, test_labels = _npz_split(path, arrays, "x_test", "y_test")
    if test_images.shape[1:] != train_images.shape[1:]:
        raise DataError(
            f"{path}: x_train and x_test differ in shape, {arrays['x_train'].shape} and {arrays['x_test'].shape}"
        )
    if not bool(torch.isin(test_labels, seen).all()):
        raise DataError(f"{path}: y_test has {few(test_labels.unique().tolist())}, outside 0 to {len(seen) - 1}")
    return RawData(train_images, train_labels, test_images, test_labels, classes, flip, skipped=0)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    pairs, single = ("x_train", "y_train", "x_test", "y_test"), ("images", "labels")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = sorted(archive.files)
            wanted = next((keys for keys in (pairs, single) if set(keys) <= set(found)), ())
            arrays = {key: np.asarray(archive[key]) for key in wanted}
    except Exception as error:  # numpy and zipfile raise nearly anything on bad bytes
        raise DataError(f"{path} is not a readable .npz file of plain arrays ({error})") from error
    if not arrays:
        raise DataError(f"{path} needs {', '.join(pairs)}, or {', '.join(single)}; it has {few(found) or 'none'}")
    return arrays


def _npz_split(path: Path, arrays: dict[str, np.ndarray], image_key: str, label_key: str) -> tuple[Tensor, Tensor]:
    """One pair of arrays, checked: uint8 [N, C, H, H] and int64 [N]."""
    images, labels = arrays[image_key], arrays[label_key]
    if images.dtype != np.uint8:
        raise DataError(f"{path}: {image_key} must be uint8, 0 to 255, not {images.dtype}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in CHANNELS and images.shape[2] != images.shape[3]:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in CHANNELS or 0 in images.shape:
        raise DataError(
            f"{path}: {image_key} must be [N, H, W], [N, H, W, C] or [N, C, H, W] with C of 1, 3 or 4 and "
            f"N at least 1, not {list(arrays[image_key].shape)}"
        )
    if images.shape[2] != images.shape[3]:
        raise DataError(f"{path}: {image_key} must be square, not {images.shape[2]} x {images.shape[3]}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {label_key} must be integers, not {labels.dtype}")
    if labels.shape != (len(images),):
        raise DataError(f"{path}: {label_key} must be [{len(images)}], one label an image, not {list(labels.shape)}")
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))


DATASETS: dict[str, DataSet] = {
    "digits": DataSet("digits", _digits),
    "cifar10": DataSet("cifar10[:ROOT]", functools.partial(_torchvision, "CIFAR10", "cifar-10-batches-py")),
    "cifar100": DataSet("cifar100[:ROOT]", functools.partial(_torchvision, "CIFAR100", "cifar-100-python")),
    "fashion_mnist": DataSet("fashion_mnist[:ROOT]", functools.partial(_torchvision, "FashionMNIST", "FashionMNIST")),
    "folder": DataSet("folder:DIR", read_folder),
    "npz": DataSet("npz:FILE", _npz),
}
