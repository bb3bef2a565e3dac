"""A data set given as arrays: in an .npz file, or returned by a function of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supernet.data import DataError, RawData, hold_out_test
from supernet.folders import few

CHANNELS = (1, 3, 4)
PAIRS = ("x_train", "y_train", "x_test", "y_test")
SINGLE = ("images", "labels")
OPTIONS = ("classes", "flip")  # may be there, too


def array_names(found: Mapping[str, Any] | set[str]) -> tuple[str, ...]:
    """Which arrays to read of those found: two splits, or one; none where neither is complete."""
    return next((names for names in (PAIRS, SINGLE) if set(names) <= set(found)), ())


def raw_from_arrays(where: str, arrays: Mapping[str, np.ndarray], classes: Any = None, flip: Any = None) -> RawData:
    """The data set that these arrays are.

    Args:
        where: the file or function they come from, for errors.
        arrays: ``x_train``, ``y_train``, ``x_test``, ``y_test``, or ``images`` and ``labels``, of which a fixed fifth
            becomes the test set. Images are uint8 [N, H, H], [N, H, H, C] or [N, C, H, H] with C of 1, 3 or 4, labels
            integers [N] from 0, each of which has training images.
        classes: a list of their names; the numbers by default.
        flip: a bool, whether a mirrored image is still one of its class; by default where there are three channels.

    Raises:
        DataError: names the array and what it should be.
    """
    classes, flip = _classes(where, classes), _flip(where, flip)
    images, labels = SINGLE if SINGLE[0] in arrays else PAIRS[:2]
    train_images, train_labels = _split(where, arrays, images, labels)
    seen = train_labels.unique()
    if classes is None:
        if not torch.equal(seen, torch.arange(len(seen))) or len(seen) < 2:
            raise DataError(
                f"{where}: {labels} must use every label of 0 to n-1, n at least 2; it has {few(seen.tolist())}"
            )
        classes = tuple(str(label) for label in seen.tolist())
    elif not bool(torch.isin(seen, torch.arange(len(classes))).all()):
        raise DataError(
            f"{where}: {labels} has {few(seen.tolist())}; valid for {len(classes)} classes: 0 to {len(classes) - 1}"
        )
    elif missing := [name for label, name in enumerate(classes) if label not in seen]:
        raise DataError(f"{where}: {labels} has no image of the classes {few(missing)}; each needs some")
    flip = train_images.shape[1] == 3 if flip is None else flip
    if images == SINGLE[0]:
        return hold_out_test(train_images, train_labels, classes, flip, skipped=0)
    test_images, test_labels = _split(where, arrays, *PAIRS[2:])
    if test_images.shape[1:] != train_images.shape[1:]:
        raise DataError(
            f"{where}: x_train and x_test differ in shape, {arrays['x_train'].shape} and {arrays['x_test'].shape}"
        )
    if not bool(torch.isin(test_labels, torch.arange(len(classes))).all()):
        raise DataError(f"{where}: y_test has {few(test_labels.unique().tolist())}, outside 0 to {len(classes) - 1}")
    return RawData(train_images, train_labels, test_images, test_labels, classes, flip, skipped=0)


def _classes(where: str, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    valid = "a list of two or more different names"
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{where}: classes is {names!r}; valid: {valid}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"{where}: classes has {few(names) or 'none'}; valid: {valid}")
    return tuple(names)


def _flip(where: str, flip: Any) -> bool | None:
    if flip is not None and not isinstance(flip, bool):
        raise DataError(f"{where}: flip is {flip!r}; valid: True, False")
    return flip


def _split(where: str, arrays: Mapping[str, np.ndarray], image_key: str, label_key: str) -> tuple[Tensor, Tensor]:
    """One pair of arrays, checked: uint8 [N, C, H, H] and int64 [N]."""
    images, labels = arrays[image_key], arrays[label_key]
    if images.dtype != np.uint8:
        raise DataError(f"{where}: {image_key} must be uint8, 0 to 255, not {images.dtype}")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in CHANNELS and images.shape[2] != images.shape[3]:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in CHANNELS or 0 in images.shape:
        raise DataError(
            f"{where}: {image_key} must be [N, H, W], [N, H, W, C] or [N, C, H, W] with C of 1, 3 or 4 and "
            f"N at least 1, not {list(arrays[image_key].shape)}"
        )
    if images.shape[2] != images.shape[3]:
        raise DataError(f"{where}: {image_key} must be square, not {images.shape[2]} x {images.shape[3]}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: {label_key} must be integers, not {labels.dtype}")
    if labels.shape != (len(images),):
        raise DataError(f"{where}: {label_key} must be [{len(images)}], one label an image, not {list(labels.shape)}")
    return torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))
