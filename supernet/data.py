"""A data set in memory: its splits and the numbers that normalise it.

Images stay uint8 tensors and are augmented a batch at a time, on whatever device holds them; in `train` and `test` of
a folder too large for that, `supernet.streaming.ImageFiles` stand for the tensor. All randomness is a function of
explicit seeds, so a run resumed in the middle of an epoch sees the batches it would have seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

MOST_VALIDATION = 5000  # images; a tenth of the training set where that is less
MOST_CALIBRATION = 2000
LEAST_STD = 1e-3  # a channel that never varies must not divide by zero
STATS_CHUNK = 4096  # images
FEWEST = 4  # images of a class that is split into test, calibration, validation and training
TEST_SPLIT_SEED = 20  # fixed: one test set for everybody, whatever seed a run has
_SPLIT = 0  # spawn key: with those of `supernet.batches`, independent streams of one seed


class DataError(ValueError):
    """A data set that can't be found, read or used; the message names the culprit and the way out."""


@dataclass(frozen=True, eq=False)
class RawData:
    """A data set as its files give it, before the training images are split further."""

    train_images: Tensor
    """uint8 [N, C, H, H], 0 to 255."""
    train_labels: Tensor
    """int64 [N], indices into ``classes``."""
    test_images: Tensor
    """uint8 [M, C, H, H]."""
    test_labels: Tensor
    """int64 [M]."""
    classes: tuple[str, ...]
    """Class names, at least two."""
    flip: bool
    """Whether a mirrored image is still an image of its class."""
    skipped: int
    """Corrupt files left out."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels."""

    images: Tensor
    """uint8 [N, C, H, H], 0 to 255."""
    labels: Tensor
    """int64 [N], indices into ``ImageData.classes``."""

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """The same split with both tensors on ``device``."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set ready for use: disjoint splits and what normalises them."""

    train: Split
    """Trains weights, and nothing else."""
    calibration: Split
    """Recalibrates batch norms."""
    validation: Split
    """Scores architectures during a search."""
    test: Split
    """Read by ``export`` and ``trust`` alone: whatever chooses by it spoils it."""
    mean: tuple[float, ...]
    """Per channel of ``train``, in the scale of 0 to 1."""
    std: tuple[float, ...]
    """Per channel of ``train``, in the scale of 0 to 1, at least 0.001."""
    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    flip: bool
    """Whether ``train_batches`` may mirror images."""
    skipped: int
    """Corrupt files left out when the data was read."""

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.train.images.shape[-1]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def to(self, device: torch.device | str) -> ImageData:
        """The same data with every split on ``device``."""
        return replace(
            self,
            train=self.train.to(device),
            calibration=self.calibration.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def prepare(raw: RawData, seed: int) -> ImageData:
    """Split the training images, stratified, into train, calibration and validation.

    Calibration and validation are a tenth each, at most 2000 and 5000 images, with at least one image of each class.
    ``seed`` alone decides the split; the test set is passed on as it is. Of images that are streamed from their files
    only these two are decoded, and ``mean`` and ``std`` are those of the calibration images.

    Raises:
        DataError: a class has fewer than three training images.
    """
    tenth = len(raw.train_labels) // 10
    sizes = {"calibration": min(MOST_CALIBRATION, tenth), "validation": min(MOST_VALIDATION, tenth)}
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLIT,)))
    parts = stratified_split(raw.train_labels, raw.classes, sizes, rng)
    images = {name: raw.train_images[index] for name, index in parts.items()}
    images |= {name: _in_memory(images[name]) for name in sizes}
    splits = {name: Split(images[name], raw.train_labels[index]) for name, index in parts.items()}
    mean, std = _channel_stats(images["train" if isinstance(images["train"], Tensor) else "calibration"])
    test = Split(raw.test_images, raw.test_labels)
    return ImageData(**splits, test=test, mean=mean, std=std, classes=raw.classes, flip=raw.flip, skipped=raw.skipped)


def _in_memory(images: Tensor) -> Tensor:
    return images if isinstance(images, Tensor) else images.decoded()


def stratified_split(
    labels: Tensor, classes: tuple[str, ...], sizes: Mapping[str, int], rng: np.random.Generator
) -> dict[str, Tensor]:
    """Deal indices to the named parts and to ``train``, which takes the rest, every class in proportion.

    Args:
        labels: int64 [N].
        classes: their names, for the error.
        sizes: images a part; a part is larger only where that takes one image of each class.
        rng: the only source of randomness.

    Returns:
        int64 indices a part: disjoint, together 0 to N-1, in random order, so that a slice of a part mixes the classes
        even where the files came sorted by class (a batch norm recalibrated on one class at a time would be wrong).

    Raises:
        DataError: a class has too few images to give each part one.
    """
    counts = np.bincount(labels.numpy(), minlength=len(classes))
    names = [*sizes, "train"]
    rarest = int(counts.argmin())
    if counts[rarest] < len(names):
        raise DataError(
            f"class {classes[rarest]!r} has {counts[rarest]} images to split into {', '.join(names)}; "
            f"each class needs at least {len(names)}"
        )
    ends = np.cumsum([_shares(counts, size) for size in sizes.values()], axis=0)
    dealt: list[list[np.ndarray]] = [[] for _ in names]
    for index in range(len(classes)):
        members = rng.permutation(np.flatnonzero(labels.numpy() == index))
        for part, piece in zip(dealt, np.split(members, ends[:, index]), strict=True):
            part.append(piece)
    shuffled = [torch.from_numpy(rng.permutation(np.concatenate(part))) for part in dealt]
    return dict(zip(names, shuffled, strict=True))


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Images of each class in a part of ``total``: proportional by largest remainder, and never none."""
    quota = counts * total / counts.sum()
    shares = np.maximum(np.floor(quota).astype(np.int64), 1)
    missing = max(total - int(shares.sum()), 0)
    shares[np.argsort(shares - quota, kind="stable")[:missing]] += 1
    return shares


def hold_out_test(images: Tensor, labels: Tensor, classes: tuple[str, ...], flip: bool, skipped: int) -> RawData:
    """The fixed 20% test split of a data set that comes without one.

    Raises DataError: a class has too few images to leave `prepare` what it needs.
    """
    counts = np.bincount(labels.numpy(), minlength=len(classes))
    if counts.min() < FEWEST:
        raise DataError(
            f"class {classes[int(counts.argmin())]!r} has {counts.min()} images; without a test set of its own a data "
            f"set needs at least {FEWEST} a class: to test, to calibrate, to validate and to train"
        )
    rng = np.random.default_rng(TEST_SPLIT_SEED)
    parts = stratified_split(labels, classes, {"test": len(labels) // 5}, rng)
    train, test = parts["train"], parts["test"]
    return RawData(images[train], labels[train], images[test], labels[test], classes, flip, skipped)


def _channel_stats(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation a channel, in the scale of 0 to 1.

    From histograms: integers, so exact in any order, and several times faster than summing pixels in float64.
    """
    histogram = torch.zeros((images.shape[1], 256), dtype=torch.int64)
    for chunk in images.split(STATS_CHUNK):
        histogram += torch.stack([torch.bincount(pixels.flatten(), minlength=256) for pixels in chunk.unbind(1)])
    share = histogram.double() / histogram[0].sum()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=LEAST_STD)
    return tuple(mean.tolist()), tuple(std.tolist())


def fingerprint(data: ImageData) -> str:
    """SHA-256, in hex, of every split's images and labels, the class names and the flip rule.

    Equal for equal data under an equal split, on any device, so that a run can refuse to resume on other data. Of
    streamed images, the files' names and sizes stand for their contents.
    """
    digest = hashlib.sha256(json.dumps([data.classes, data.flip]).encode())
    for split in (data.train, data.calibration, data.validation, data.test):
        digest.update(json.dumps(list(split.images.shape)).encode())
        if isinstance(split.images, Tensor):
            digest.update(split.images.cpu().contiguous().numpy().data)
        else:
            digest.update(split.images.digest())
        digest.update(split.labels.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def normalize(
    images: Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(images / 255 - mean) / std, computed in float32 and given as ``dtype``.

    Args:
        images: uint8 [B, C, H, W].
        mean: per channel, in the scale of 0 to 1.
        std: likewise.
        device: where the result goes; where the images are by default.
        dtype: of the result.
    """
    shift, scale = torch.tensor([mean, std])[:, :, None, None].to(device or images.device, non_blocking=True)
    pixels = images.to(shift.device).to(torch.float32)  # bytes travel, floats are made there
    return pixels.div_(255).sub_(shift).div_(scale).to(dtype)
