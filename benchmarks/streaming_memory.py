"""How much memory a folder takes that is streamed, by the number of its images.

    python benchmarks/streaming_memory.py [--images 70000 140000] [--image-size 64] [--batch-size 128]

Makes a folder of each number of JPEGs (160 x 120 pixels, hard links to 50 different ones) in two classes, and reads it
in a process of its own as a training does: listed, the corrupt ones looked for, split, and one epoch of augmented
batches. Prints that process's peak resident memory, that of its largest loader process, and what the training images
would take as a tensor. Calibration and search-validation images are held in memory, a tenth each up to 2000 and 5000;
of the default numbers of images both are as many.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

from supernet import datasets, folders
from supernet.batches import train_batches
from supernet.data import prepare

PICTURES = 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[70000, 140000])
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # what a measured process reads
    args = parser.parse_args()
    if args.folder:
        read(args.folder, args.image_size, args.batch_size)
        return
    print(f"{describe()}; {args.image_size} pixels, batches of {args.batch_size}")
    for number in args.images:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), number)
            options = [f"--folder={folder}", f"--image-size={args.image_size}", f"--batch-size={args.batch_size}"]
            done = subprocess.run([sys.executable, __file__, *options], check=True, capture_output=True, text=True)
        print(f"{number} images: {done.stdout.strip()}", flush=True)


def make(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    for label in "ab":
        (folder / label).mkdir()
    for index in range(number):
        file = folder / "ab"[index % 2] / f"{index:06}.jpg"
        if index < PICTURES:
            coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
            coarse.resize((160, 120)).save(file, quality=90)
        else:
            source = index % PICTURES
            file.hardlink_to(folder / "ab"[source % 2] / f"{source:06}.jpg")


def read(folder: Path, image_size: int, batch_size: int) -> None:
    folders.MEMORY_BOUND = 0
    data = prepare(datasets.load(f"folder:{folder}", image_size=image_size, skip_corrupt=True), seed=0)
    for _ in train_batches(data, batch_size, 0, 0):
        pass
    own, loader = (resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    tensor = len(data.train) * 3 * image_size**2 / 2**20
    print(f"peak {own:.0f} MiB, a loader process {loader:.0f} MiB; the training images as a tensor {tensor:.0f} MiB")


if __name__ == "__main__":
    main()
