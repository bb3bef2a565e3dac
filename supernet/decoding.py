"""Image files to RGB pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from supernet.data import DataError

if TYPE_CHECKING:
    from PIL import Image


AHEAD = 256  # images: threads that decode faster than their images are taken would fill the memory with them


def decode_all(paths: Sequence[Path], size: int) -> Iterator[np.ndarray | DataError]:
    """`try_decode` of each path in order, by threads: Pillow decodes and resizes outside the interpreter lock."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), AHEAD):
            yield from pool.map(partial(try_decode, size=size), paths[start : start + AHEAD])


def try_decode(path: Path, size: int) -> np.ndarray | DataError:
    """RGB uint8 [3, size, size]: the largest centred square, resized with antialiasing; or what is wrong with it."""
    try:
        return _decode(path, size)
    except Exception as error:  # Pillow's decoders raise nearly anything on bad bytes
        return DataError(
            f"cannot read image {path} ({error}); repair or remove it, or leave such out by --skip-corrupt"
        )


def open_rgb(path: Path) -> Image.Image:
    """The image as it should be seen, in RGB; alpha is dropped. Raises nearly anything on bad bytes."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        image: Image.Image = ImageOps.exif_transpose(opened)
        if image.mode == "F":
            raise DataError("floating point pixels have no known range")
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255 instead of scaling
            wide = np.asarray(image).astype(np.float32).clip(0, 65535)
            image = Image.fromarray(np.rint(wide / 257).astype(np.uint8))
        elif image.mode == "P":  # a transparent palette warns unless it goes through RGBA
            image = image.convert("RGBA")
        return image.convert("RGB")


def _decode(path: Path, size: int) -> np.ndarray:
    from PIL import Image, ImageOps

    # One step for crop and resize: an extreme aspect ratio never becomes a huge intermediate image.
    square = ImageOps.fit(open_rgb(path), (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).transpose(2, 0, 1).copy()
