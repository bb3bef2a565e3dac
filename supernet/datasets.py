"""Readers: a ``--data`` spec such as ``cifar10:ROOT`` becomes uint8 images and labels in memory.

Nothing is unpickled here. torchvision's own CIFAR reader unpickles, after checking each file's MD5.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.data import DataError, RawData, stratified_split
from supernet.decoding import try_decode
from supernet.streaming import ImageFiles

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CHANNELS = (1, 3, 4)
FOLDER_SIZE = 32  # pixels a side, where a folder's images don't agree on a small square
LARGEST_OWN_SIZE = 96  # pixels a side: bigger images are shrunk unless an image size is asked for
TEST_SPLIT_SEED = 20  # fixed: one test set for everybody, whatever seed a run has
RESIZE_CHUNK = 4096  # images
MEMORY_BOUND = 2 * 2**30  # bytes of decoded images: a folder of more stays on disk and is streamed


@dataclass(frozen=True)
class ReadOptions:
    """What ``load`` hands to every reader."""

    image_size: int | None
    """Pixels a side; None is the reader's default. Only readers of mixed sizes need it, ``load`` resizes the rest."""
    download: bool
    """Whether torchvision may fetch missing files."""
    skip_corrupt: bool
    """Whether unreadable images are counted rather than an error."""


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


def _hold_out_test(images: Tensor, labels: Tensor, classes: tuple[str, ...], flip: bool, skipped: int) -> RawData:
    """The fixed 20% test split of a data set that comes without one."""
    rng = np.random.default_rng(TEST_SPLIT_SEED)
    parts = stratified_split(labels, classes, {"test": len(labels) // 5}, rng)
    train, test = parts["train"], parts["test"]
    return RawData(images[train], labels[train], images[test], labels[test], classes, flip, skipped)


def _digits(argument: str, options: ReadOptions) -> RawData:
    from sklearn.datasets import load_digits

    if argument:
        raise DataError(f"digits takes no argument, got {argument!r}")
    digits = load_digits()
    images = np.rint(digits.images[:, None] * 255 / 16).astype(np.uint8)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    return _hold_out_test(torch.from_numpy(images), labels, tuple(map(str, digits.target_names)), flip=False, skipped=0)


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


def _folder(argument: str, options: ReadOptions) -> RawData:
    if not argument:
        raise DataError("folder needs a directory: folder:DIR")
    root = Path(argument).expanduser()
    if not root.is_dir():
        raise DataError(f"no such directory: {root}")
    _check_names(root)
    held_out = next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if held_out is None or not (root / "train").is_dir():
        files = _list_images(root)
        size = options.image_size or _default_size(files)
        images, labels, skipped = _read_images(root, files, size, options.skip_corrupt, _is_large(size, files))
        return _hold_out_test(images, labels, tuple(files), flip=True, skipped=skipped)
    files, test_files = _list_images(root / "train"), _list_images(held_out)
    if odd := sorted(files.keys() ^ test_files.keys()):
        raise DataError(f"{root / 'train'} and {held_out} must have the same classes; only one has {_few(odd)}")
    size = options.image_size or _default_size(files)
    read = functools.partial(
        _read_images, root, size=size, skip_corrupt=options.skip_corrupt, large=_is_large(size, files, test_files)
    )
    images, labels, skipped = read(files)
    test_images, test_labels, test_skipped = read(test_files)
    return RawData(images, labels, test_images, test_labels, tuple(files), flip=True, skipped=skipped + test_skipped)


def _check_names(root: Path) -> None:
    """Folders that look like splits but are not named as we read them would silently become classes."""
    names = {path.name for path in root.iterdir() if path.is_dir()}
    splits = {n for n in names if n.lower() in ("train", "training", "test", "testing", "val", "valid", "validation")}
    if splits and not ("train" in names and {"test", "val"} & names):
        raise DataError(
            f"{root} has {_few(sorted(splits))}: name the splits train/ and test/ (or val/), or have neither"
        )


def _list_images(root: Path) -> dict[str, list[Path]]:
    """The image files below each class folder, hidden files and folders left out."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        found = ", ".join(path.name for path in folders) or "none"
        raise DataError(f"{root} needs a sub-folder for each of two or more classes; found {found}")
    files: dict[str, list[Path]] = {}
    for folder in folders:
        paths = []
        for parent, below, names in os.walk(folder):
            below[:] = [name for name in below if not name.startswith(".")]
            paths += [Path(parent, name) for name in names if not name.startswith(".")]
        files[folder.name] = sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files[folder.name]:
            raise DataError(f"no image in class folder {folder} (read are {' '.join(IMAGE_SUFFIXES)})")
    return files


def _default_size(files: dict[str, list[Path]]) -> int:
    """The images' own size when all are one small square, else 32; reads headers alone."""
    from PIL import Image

    common: tuple[int, int] | None = None
    for path in (path for paths in files.values() for path in paths):
        try:
            with Image.open(path) as image:
                size = image.size
        except Exception:  # reported or skipped when its pixels are read
            continue
        if size[0] != size[1] or size[0] > LARGEST_OWN_SIZE or size != (common or size):
            return FOLDER_SIZE
        common = size
    return common[0] if common else FOLDER_SIZE


def _is_large(size: int, *parts: dict[str, list[Path]]) -> bool:
    return 3 * size**2 * sum(len(group) for files in parts for group in files.values()) > MEMORY_BOUND


def _read_images(
    root: Path, files: dict[str, list[Path]], size: int, skip_corrupt: bool, large: bool
) -> tuple[Tensor, Tensor, int]:
    """Images uint8 [N, 3, size, size], labels int64 [N] in the order of ``files``, and how many were skipped.

    Where they are ``large`` together, the images are ``ImageFiles`` and only decoded here to find the corrupt ones.
    """
    paths = [path for group in files.values() for path in group]
    labels = [label for label, group in enumerate(files.values()) for _ in group]
    if large and not skip_corrupt:
        return _in_files(root, paths, size), torch.tensor(labels), 0
    images = torch.empty((0 if large else len(paths), 3, size, size), dtype=torch.uint8)
    kept: list[int] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes outside the interpreter lock
        for index, pixels in enumerate(pool.map(functools.partial(try_decode, size=size), paths)):
            if isinstance(pixels, DataError):
                if not skip_corrupt:
                    pool.shutdown(wait=False, cancel_futures=True)  # or the error waits for all the other images
                    raise pixels
                continue
            if not large:
                images[len(kept)] = torch.from_numpy(pixels)
            kept.append(index)
    targets = torch.tensor([labels[index] for index in kept], dtype=torch.int64)
    for label, count in enumerate(torch.bincount(targets, minlength=len(files)).tolist()):
        if not count:
            name = list(files)[label]
            raise DataError(f"every image of class {name!r} is corrupt, {files[name][0]} for one")
    if large:
        images = _in_files(root, [paths[index] for index in kept], size)
    return images[: len(kept)], targets, len(paths) - len(kept)


def _in_files(root: Path, paths: list[Path], size: int) -> Tensor:
    return cast(Tensor, ImageFiles.of(root, paths, size))  # has what of a tensor's interface a split of images needs


def _npz(argument: str, options: ReadOptions) -> RawData:
    if not argument:
        raise DataError("npz needs a file: npz:FILE")
    path = Path(argument).expanduser()
    arrays = _read_npz(path)
    images, labels = ("x_train", "y_train") if "x_train" in arrays else ("images", "labels")
    train_images, train_labels = _npz_split(path, arrays, images, labels)
    seen = train_labels.unique()
    if not torch.equal(seen, torch.arange(len(seen))) or len(seen) < 2:
        raise DataError(
            f"{path}: {labels} must use every label of 0 to n-1, n at least 2; it has {_few(seen.tolist())}"
        )
    classes = tuple(str(label) for label in seen.tolist())
    flip = train_images.shape[1] == 3
    if images == "images":
        return _hold_out_test(train_images, train_labels, classes, flip, skipped=0)
    test_images, test_labels = _npz_split(path, arrays, "x_test", "y_test")
    if test_images.shape[1:] != train_images.shape[1:]:
        raise DataError(
            f"{path}: x_train and x_test differ in shape, {arrays['x_train'].shape} and {arrays['x_test'].shape}"
        )
    if not bool(torch.isin(test_labels, seen).all()):
        raise DataError(f"{path}: y_test has {_few(test_labels.unique().tolist())}, outside 0 to {len(seen) - 1}")
    return RawData(train_images, train_labels, test_images, test_labels, classes, flip, skipped=0)


def _few(values: Iterable[Any]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:12]) + (" …" if len(shown) > 12 else "")


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
        raise DataError(f"{path} needs {', '.join(pairs)}, or {', '.join(single)}; it has {_few(found) or 'none'}")
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
    "folder": DataSet("folder:DIR", _folder),
    "npz": DataSet("npz:FILE", _npz),
}
