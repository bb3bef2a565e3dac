"""Reading a folder of images with a sub-folder for each class."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from supernet.data import DataError, RawData, hold_out_test
from supernet.decoding import decode_all
from supernet.streaming import ImageFiles

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FOLDER_SIZE = 32  # pixels a side, where a folder's images don't agree on a small square
LARGEST_OWN_SIZE = 96  # pixels a side: bigger images are shrunk unless an image size is asked for
MEMORY_BOUND = 2 * 2**30  # bytes of decoded images: a folder of more stays on disk and is streamed


@dataclass(frozen=True)
class ReadOptions:
    """What ``supernet.datasets.load`` hands to every reader."""

    image_size: int | None
    """Pixels a side; None is the reader's default. Only readers of mixed sizes need it, ``load`` resizes the rest."""
    download: bool
    """Whether torchvision may fetch missing files."""
    skip_corrupt: bool
    """Whether unreadable images are counted rather than an error."""


def read_folder(argument: str, options: ReadOptions) -> RawData:
    """The images below `argument`. Raises DataError naming what is missing, malformed or not two classes."""
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
        return hold_out_test(images, labels, tuple(files), flip=True, skipped=skipped)
    files, test_files = _list_images(root / "train"), _list_images(held_out)
    if odd := sorted(files.keys() ^ test_files.keys()):
        raise DataError(f"{root / 'train'} and {held_out} must have the same classes; only one has {few(odd)}")
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
            f"{root} has {few(sorted(splits))}: name the splits train/ and test/ (or val/), or have neither"
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
    for index, pixels in enumerate(decode_all(paths, size)):
        if isinstance(pixels, DataError):
            if not skip_corrupt:
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


def few(values: Iterable[Any]) -> str:
    """The first dozen, for a message."""
    shown = [str(value) for value in values]
    return ", ".join(shown[:12]) + (" …" if len(shown) > 12 else "")
