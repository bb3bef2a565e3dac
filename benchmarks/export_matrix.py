"""Does every format compute what the subnet does, in every space? Random architectures, weights and statistics.

    python benchmarks/export_matrix.py [--archs 20] [--spaces NAME ...] [--formats NAME ...] [--seed 0] [--jobs 2]

Each architecture is written in each format and run by a process that has that format's runtime alone, as `nas export`
does it. Nothing is trained. Spaces for ImageNet get small images and few classes; their widths stay. Images are blots
of colour: after finer noise, deep layers have averages that hardly differ, and batch norms fitted to those blow up any
rounding. They are fitted, for the activations of random weights vanish or explode otherwise, and then disturbed.
Prints a line for each space and format, and exits with 1 unless all agree. MACs and parameters are compared too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from machine import describe
from torch import nn
from torch.nn import functional as F

from nas.export.certificate import FormatCheck, check_format
from nas.export.formats import FORMATS, Exportable, checked_formats
from nas.export.isolated import Question
from search_spaces import catalog
from search_spaces.network import NetworkSpace
from search_spaces.plan import plan
from supernet.data import ImageData, Split
from supernet.evaluate import predict, recalibrate
from supernet.standalone import initialised
from supernet.subnet import Subnet, count_macs, count_params

IMAGES = 64
SMALL = {
    "resnet50": {"image_size": 64, "num_classes": 100},
    "mobilenet_v3": {"image_size": 64, "num_classes": 100},
    "mobilenet_v3_pooling": {"image_size": 64, "num_classes": 100},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--archs", type=int, default=20)
    parser.add_argument("--spaces", nargs="+", default=list(catalog.SPACES))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, one thread each")
    args = parser.parse_args()
    formats = checked_formats(args.formats)
    print(f"{describe()}\n{args.archs} architectures a space, seed {args.seed}, {IMAGES} random images")
    failures = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, context, torch.set_num_threads, (1,)) as pool:
        for name in args.spaces:
            space = catalog.get(name, **SMALL.get(name, {}))
            started = time.monotonic()
            rng = np.random.default_rng(args.seed)
            archs = [space.sample(rng) for _ in range(args.archs)]
            checks = list(pool.map(check, repeat(space), archs, repeat(formats), range(args.archs)))
            for form in formats:
                failures += report(name, form, [row[form] for row in checks])
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    for failure in failures:
        print(f"FAILED {failure}")
    sys.exit(bool(failures))


def check(space: NetworkSpace, arch, formats: list[str], seed: int) -> dict[str, FormatCheck]:
    data = blots(space, seed)
    subnet = random_subnet(space, arch, data, seed)
    lowered = subnet.plan
    macs = count_macs(subnet, (lowered.in_channels, lowered.resolution, lowered.resolution))
    assert (macs, count_params(subnet)) == (lowered.macs, lowered.params), arch.key
    model = Exportable(subnet, arch.key, data)
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trained = {"pretrained_cfg": {"mean": data.mean, "std": data.std}}
        (folder / "config.json").write_text(json.dumps(trained), encoding="utf-8")
        for name in formats:
            FORMATS[name].write(folder, model)
            size = data.image_size if FORMATS[name].resizes else lowered.resolution
            question = Question.write(folder / f"{size}.bin", data.test, size)
            expected = predict(subnet, question.head(IMAGES), data.mean, data.std)
            rows[name] = check_format(name, folder, question, expected, threads=1)
    return rows


def blots(space: NetworkSpace, seed: int) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand((IMAGES, space.in_channels, 4, 4), generator=generator)
    images = F.interpolate(coarse, (space.image_size, space.image_size), mode="bilinear").to(torch.uint8)
    split = Split(images, torch.randint(0, space.num_classes, (IMAGES,), generator=generator))
    channels = space.in_channels
    mean, std = (tuple(torch.empty(channels).uniform_(0.2, 0.6, generator=generator).tolist()) for _ in range(2))
    classes = tuple(map(str, range(space.num_classes)))
    return ImageData(split, split, split, split, mean, std, classes, False, 0)


def random_subnet(space: NetworkSpace, arch, data: ImageData, seed: int) -> Subnet:
    subnet = initialised(plan(space, arch), seed)
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=generator)

    norms = [module for module in subnet.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(uniform(norm.weight, 0.5, 1.5))
            norm.bias.copy_(uniform(norm.bias, -0.5, 0.5))
        recalibrate(subnet, data.calibration.images, data.mean, data.std)
        for norm in norms:
            norm.running_mean += uniform(norm.running_mean, -0.5, 0.5) * norm.running_var.sqrt()
            norm.running_var *= uniform(norm.running_var, 0.5, 2.0)
    return subnet


def report(space: str, form: str, checks: list[FormatCheck]) -> list[str]:
    """Prints a line; gives what failed."""
    failed = [f"{space} {form} {number}: {why}" for number, c in enumerate(checks) if (why := c.failure())]
    ran = [c for c in checks if c.error is None]
    worst = max(ran, key=lambda c: c.max_delta / c.allowed, default=None)
    agree = f"{space:22}{form:12}{len(checks) - len(failed)} of {len(checks)} agree"
    print(agree + (f"; largest |Δ logit| {worst.max_delta:.1e} where {worst.allowed:.1e} is allowed" if worst else ""))
    return failed


if __name__ == "__main__":
    main()
