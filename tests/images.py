"""Made-up images, and the files that readers take, for several test files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from supernet.data import ImageData, RawData, Split

RNG = np.random.default_rng(0)


def noise(height: int, width: int | None = None, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width or height, channels), dtype=np.uint8).squeeze()


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 5, size: int = 16) -> Path:
    for name in classes:
        for index in range(each):
            save(root / name / f"{index}.png", noise(size))
    return root


def raw_data(counts: list[int], size: int = 8, channels: int = 3) -> RawData:
    """Class-sorted images, each one distinct: its index is in its first pixels."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.from_numpy(RNG.integers(0, 256, (len(labels), channels, size, size), dtype=np.uint8))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(len(labels)) // 256, torch.arange(len(labels)) % 256
    names = tuple(f"c{index}" for index in range(len(counts)))
    return RawData(images, labels, images[:4].clone(), labels[:4].clone(), names, flip=True, skipped=0)


def indices(split: Split) -> list[int]:
    return (split.images[:, 0, 0, 0].long() * 256 + split.images[:, 0, 0, 1]).tolist()


def parts(data: ImageData) -> tuple[Split, Split, Split]:
    return data.train, data.calibration, data.validation


def npz_arrays(shape: tuple[int, ...] = (20, 8, 8, 3)) -> dict[str, np.ndarray]:
    images, labels = RNG.integers(0, 256, shape, dtype=np.uint8), np.arange(shape[0]) % 2
    return {"x_train": images, "y_train": labels, "x_test": images[:4], "y_test": labels[:4]}


def save_npz(path: Path, **changed: np.ndarray) -> str:
    np.savez(path, **{**npz_arrays(), **changed})
    return f"npz:{path}"


def save_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.tobytes())


def save_fashion_mnist(root: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for part, n in (("train", 40), ("t10k", 20)):
        arrays[f"{part}-images-idx3"] = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1"] = (np.arange(n) % 10).astype(np.uint8)
    for name, values in arrays.items():
        save_idx(root / "FashionMNIST" / "raw" / f"{name}-ubyte", values)
    return arrays


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
