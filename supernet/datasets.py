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

from supernet.arrays import OPTIONS, PAIRS, SINGLE, array_names, raw_from_arrays
from supernet.callables import USAGE, is_function
from supernet.data import DataError, RawData, hold_out_test
from supernet.folders import ReadOptions, few, read_folder
from supernet.given import read_function

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
            ``npz:FILE``; ROOT defaults to ``./data``. Or a function, ``FILE.py:FUNCTION`` or
            ``PACKAGE.MODULE:FUNCTION`` (``supernet.given``).
        image_size: pixels a side that every image is resized to. By default images keep their size; those of a folder
            do when all are one square size up to 96, and become 32 otherwise. A folder whose images would then take
            more than 2 GiB stays on disk: ``ImageFiles`` stand for its tensors (``supernet.streaming``).
        download: fetch a missing torchvision data set into ROOT.
        skip_corrupt: leave unreadable images of a folder out and count them in ``RawData.skipped``.

    Raises:
        DataError: the spec is unknown, or what it names is missing, malformed or has fewer than two classes.
    """
    name, _, argument = spec.partition(":")
    if name not in DATASETS and not is_function(spec):
        usages = ", ".join(d.usage for d in DATASETS.values())
        raise DataError(f"unknown data set {name!r}; give one of {usages}, {USAGE}")
    if image_size is not None and image_size < 1:
        raise DataError(f"image size {image_size} is not a positive number of pixels")
    if is_function(spec):
        raw = read_function(spec)
    else:
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
        reason = str(error) or "its files are damaged"
        raise DataError(
            f"no complete {class_name} in {root / folder} ({reason}); give the folder that holds "
            f"{folder}/ as ROOT, after the data set's name and a colon, or fetch it with --download"
        ) from error
    parts = (train.data, train.targets, test.data, test.targets)
    arrays = {name: np.asarray(part) for name, part in zip(PAIRS, parts, strict=True)}
    return raw_from_arrays(f"{class_name} in {root / folder}", arrays, list(train.classes), flip=True)


def _npz(argument: str, options: ReadOptions) -> RawData:
    if not argument:
        raise DataError("npz needs a file: npz:FILE")
    path = Path(argument).expanduser()
    arrays, said = _read_npz(path)
    return raw_from_arrays(str(path), arrays, **said)


def _read_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of images and labels, and what else says something of them, as Python's own types."""
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = sorted(archive.files)
            arrays = {name: np.asarray(archive[name]) for name in array_names(set(found))}
            said = {name: archive[name].tolist() for name in OPTIONS if name in found}
    except Exception as error:  # numpy and zipfile raise nearly anything on bad bytes
        raise DataError(f"{path} is not a readable .npz file of plain arrays ({error})") from error
    if not arrays:
        raise DataError(f"{path} needs {', '.join(PAIRS)}, or {', '.join(SINGLE)}; it has {few(found) or 'none'}")
    return arrays, said


DATASETS: dict[str, DataSet] = {
    "digits": DataSet("digits", _digits),
    "cifar10": DataSet("cifar10[:ROOT]", functools.partial(_torchvision, "CIFAR10", "cifar-10-batches-py")),
    "cifar100": DataSet("cifar100[:ROOT]", functools.partial(_torchvision, "CIFAR100", "cifar-100-python")),
    "fashion_mnist": DataSet("fashion_mnist[:ROOT]", functools.partial(_torchvision, "FashionMNIST", "FashionMNIST")),
    "folder": DataSet("folder:DIR", read_folder),
    "npz": DataSet("npz:FILE", _npz),
}
