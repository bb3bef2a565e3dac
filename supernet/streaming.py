"""Images that stay in their files, for folders that memory would not hold: decoded, cropped and mirrored when a batch
needs them, in worker processes of a torch DataLoader.

`ImageFiles` stands where an in-memory split has its tensor of images. Which images a batch has is decided as in memory;
how each looks is a function of (seed, epoch, its number in the epoch), so that neither the number of worker processes
or ranks nor a restart inside an epoch changes a batch.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from supernet.data import DataError
from supernet.decoding import decode_all, open_rgb

MOST_PROCESSES = 8  # of one loader
IN_FLIGHT = 2  # batches that each process prepares ahead: with the processes, what bounds the memory

Seed = Callable[[int], int]
"""Seed of the look of the image with this number in the epoch."""


class ImageFiles:
    """RGB image files of any size, seen as a tensor uint8 [N, 3, size, size] that is decoded piece by piece.

    root: folder of all files. names: their paths in it, as bytes: a numpy array takes a tenth of the memory of path
    objects, and is not copied into worker processes. size: pixels a side. device: where batches are wanted.
    """

    def __init__(self, root: Path, names: np.ndarray, size: int, device: torch.device | str = "cpu") -> None:
        self.root, self.names, self.size, self.device = root, names, size, device

    @classmethod
    def of(cls, root: Path, paths: Sequence[Path], size: int) -> ImageFiles:
        """The files `paths`, all below `root`."""
        return cls(root, np.array([os.fsencode(path.relative_to(root)) for path in paths], dtype=bytes), size)

    @property
    def shape(self) -> torch.Size:
        """[N, 3, size, size]."""
        return torch.Size((len(self.names), 3, self.size, self.size))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Tensor | slice) -> ImageFiles:
        """Some of the files, by an int64 tensor or a slice; nothing is decoded."""
        chosen = index if isinstance(index, slice) else index.cpu().numpy()
        return ImageFiles(self.root, self.names[chosen], self.size, self.device)

    def path(self, number: int) -> Path:
        """Where the image of this number is."""
        return self.root / os.fsdecode(self.names[number])

    def to(self, device: torch.device | str) -> ImageFiles:
        """The same files, with their batches on `device`."""
        return ImageFiles(self.root, self.names, self.size, device)

    def decoded(self) -> Tensor:
        """uint8 [N, 3, size, size] on the CPU: each image's largest centred square, as the in-memory reader gives it.

        Raises DataError naming the first file that cannot be decoded.
        """
        images = torch.empty(self.shape, dtype=torch.uint8)
        for number, pixels in enumerate(decode_all([self.path(number) for number in range(len(self))], self.size)):
            images[number] = torch.from_numpy(_checked(pixels))
        return images

    def check(self) -> None:
        """Decodes every file once and keeps none. Raises DataError naming the first that cannot be decoded."""
        for pixels in decode_all([self.path(number) for number in range(len(self))], self.size):
            _checked(pixels)

    def split(self, number: int) -> Iterator[Tensor]:
        """`decoded` in pieces of `number` images, one in memory at a time, as `Tensor.split` gives them."""
        for start in range(0, len(self), number):
            yield self[start : start + number].decoded()

    def digest(self) -> bytes:
        """SHA-256 of the names in order and the sizes in bytes of the files, and of the size in pixels.

        Not of their contents, which would take as long as an epoch, nor of their times, which differ between copies:
        a file that is exchanged for one of equally many bytes goes unnoticed.
        """
        digest = hashlib.sha256(str(self.size).encode())
        for number, name in enumerate(self.names.tolist()):
            digest.update(name + b"\0" + str(self.path(number).stat().st_size).encode() + b"\0")
        return digest.digest()

    def batches(self, steps: Sequence[Tensor], order: Tensor, seed_of: Seed, flip: bool) -> Iterator[Tensor]:
        """Augmented batches uint8 [B, 3, size, size] on the CPU, one for each of `steps`.

        steps: int64, numbers within the epoch of a batch's images. order: int64 [N], the image that each number stands
        for. seed_of: seeds the crop and flip of a number. flip: whether to mirror half of the images.
        Raises DataError naming the file that cannot be decoded.
        """
        loader = DataLoader(
            _Augmented(self, order.cpu(), seed_of, flip),
            batch_sampler=_Steps(steps),
            num_workers=(processes := loader_processes()),
            prefetch_factor=IN_FLIGHT if processes else None,
            collate_fn=_collate,
            worker_init_fn=partial(_begin, os.getpid()),
            generator=torch.Generator(),  # or the loader would draw from dropout's
        )
        for batch in loader:
            yield torch.from_numpy(_checked(batch))


def loader_processes() -> int:
    """Processes that decode for one rank: the CPUs that it may use, without its own; 0 decodes in the rank itself."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(MOST_PROCESSES, max(0, len(os.sched_getaffinity(0)) // ranks - 1))


class _Augmented(Dataset):
    def __init__(self, files: ImageFiles, order: Tensor, seed_of: Seed, flip: bool) -> None:
        self.files, self.order, self.seed_of, self.flip = files, order, seed_of, flip

    @cached_property
    def transform(self) -> Callable[[Any], Tensor]:
        """A random resized crop, perhaps mirrored (Szegedy et al. 2015), by torchvision's defaults."""
        from torchvision.transforms import v2

        flips = [v2.RandomHorizontalFlip()] if self.flip else []
        return v2.Compose([v2.RandomResizedCrop(self.files.size), *flips, v2.PILToTensor()])

    def __getitem__(self, number: int) -> Tensor | DataError:
        """The image as it looks in this epoch, or what is wrong with it: an exception would arrive as a traceback."""
        path = self.files.path(int(self.order[number]))
        try:
            image = open_rgb(path)
        except Exception as error:  # Pillow's decoders raise nearly anything on bad bytes
            return DataError(
                f"cannot read image {path} ({error}); train anew, once it is repaired or removed or with --skip-corrupt"
            )
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the generator that dropout uses
            torch.default_generator.manual_seed(self.seed_of(number))
            return self.transform(image)


class _Steps(Sampler[list[int]]):
    def __init__(self, steps: Sequence[Tensor]) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        return (step.tolist() for step in self.steps)


def _collate(images: list[Tensor | DataError]) -> np.ndarray | DataError:
    """A batch as an array, which a process hands over by copying it.

    Of tensors in shared memory, torch keeps up to 128 references; those pin the heap between the float batches that are
    made of them, each of which then takes new memory.
    """
    broken = next((image for image in images if isinstance(image, DataError)), None)
    return broken or torch.stack(images).numpy()  # type: ignore[arg-type]


def _checked(value: Any) -> Any:
    if isinstance(value, DataError):
        raise value
    return value


def _begin(parent: int, process: int) -> None:
    """A request to stop is for the training process `parent`, which then still needs its batches; they end with it.

    Even where it is killed: a batch that is being handed over waits for ever then, and would keep the run's lock.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
