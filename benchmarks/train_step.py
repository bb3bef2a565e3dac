"""What sharing costs: a supernet step against the same subnets as plain networks, and against an ordinary loop.

    python benchmarks/train_step.py [--space resnet_cifar] [--batch-size 64] [--steps 12]

Prints two medians over interleaved steps, each with its quartiles, and the machine:
overhead: time of a training step of the supernet over the summed times of its subnets as plain `Subnet`s, in the same
precision and layout, forward, backward and optimizer; 1.10 or less is the aim.
speed-up: images per second of the supernet step, batches from memory, over those of the same subnets in fp32 and NCHW,
fed by a DataLoader with torchvision's transforms; 2 or more is the aim.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from machine import describe
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from search_spaces import catalog
from supernet import datasets
from supernet.batches import train_batches
from supernet.data import ImageData, RawData, prepare
from supernet.distill import label_loss, soft_cross_entropy
from supernet.model import Supernet
from supernet.optim import make_optimizer
from supernet.recipe import TrainConfig
from supernet.steps import StepSubnet
from supernet.train import Trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", default="resnet_cifar")
    parser.add_argument("--data", help="such as cifar10:DIR; noise of its shape by default, which costs the same")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    data = prepare(datasets.load(args.data) if args.data else noise(), 0)
    config = TrainConfig(step_plan="sandwich", batch_size=args.batch_size, dropout=0.0)
    torch.manual_seed(0)
    trainer = Trainer(Supernet(catalog.get(args.space)), data, config)
    ordinary = iter(DataLoader(Images(data), args.batch_size, shuffle=True, drop_last=True))
    batches = train_batches(data, args.batch_size, 0, 0)
    overhead, speed_up = [], []
    for step in range(args.steps + 1):
        _, images, labels = next(batches)
        subnets = trainer._subnets(images, labels)
        plain_step = plain(trainer, subnets)
        plain_step(images, labels)  # kernels for new shapes are compiled on first use: not what is compared
        alone = timed(trainer, partial(plain_step, images, labels))
        shared = timed(trainer, partial(trainer.train_step, images, labels))
        whole = timed(trainer, partial(from_memory, trainer, batches))
        baseline = timed(trainer, partial(fp32_loop, trainer, subnets, ordinary))
        if step:  # the first one warms up
            overhead.append(shared / alone)
            speed_up.append(baseline / whole)
    print(f"space {args.space}, batch {args.batch_size}, n {args.steps} steps of {len(subnets)} subnets, {describe()}")
    report("supernet step over plain subnets", overhead)
    report("images/s over an fp32 NCHW DataLoader loop", speed_up)


def plain(trainer: Trainer, subnets: list[StepSubnet]) -> Callable[[Tensor, Tensor], None]:
    """One step of the same subnets as separate networks, each with an optimizer of its own."""
    networks = [trainer.supernet.export(s.arch).to(memory_format=torch.channels_last).train() for s in subnets]
    optimizers = [make_optimizer(network.named_parameters(), trainer.config) for network in networks]

    def step(images: Tensor, labels: Tensor) -> None:
        images = images.to(memory_format=torch.channels_last)
        train_separately(networks, optimizers, images, labels, trainer)

    return step


def train_separately(
    networks: list[nn.Module], optimizers: list, images: Tensor, labels: Tensor, trainer: Trainer
) -> None:
    teacher = None
    for network, optimizer in zip(networks, optimizers):
        optimizer.zero_grad(set_to_none=True)
        with trainer.autocast():
            logits = network(images)
        loss = label_loss(logits, labels, 0.1) if teacher is None else soft_cross_entropy(logits, teacher)
        teacher = logits.detach() if teacher is None else teacher
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), trainer.config.clip_norm)
        optimizer.step()


def from_memory(trainer: Trainer, batches: Iterator[tuple[int, Tensor, Tensor]]) -> None:
    """What `fit` does for one step; the step number goes back, so that the subnets are those of before."""
    _, images, labels = next(batches)
    trainer.step -= 1
    trainer.train_step(images, labels)


def fp32_loop(trainer: Trainer, subnets: list[StepSubnet], loader: Iterator[tuple[Tensor, Tensor]]) -> None:
    """The loop that a tutorial would have: fp32, NCHW, images through torchvision's transforms one by one."""
    images, labels = next(loader)
    images, labels = images.to(trainer.device), labels.to(trainer.device)
    teacher = None
    for subnet in subnets:
        network = trainer.supernet.export(subnet.arch).train()
        logits = network(images)
        loss = label_loss(logits, labels, 0.1) if teacher is None else soft_cross_entropy(logits, teacher)
        teacher = logits.detach() if teacher is None else teacher
        loss.backward()


class Images(Dataset):
    """A data set as users write it."""

    def __init__(self, data: ImageData) -> None:
        self.split = data.train
        self.transform = v2.Compose(
            [
                v2.RandomCrop(data.image_size, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(data.mean, data.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.split.images[index]), self.split.labels[index]


def timed(trainer: Trainer, work: Callable[[], object]) -> float:
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if trainer.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def noise(n: int = 10_000) -> RawData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(n) % 10
    return RawData(images, labels, images[:100], labels[:100], tuple(map(str, range(10))), True, 0)


def report(name: str, ratios: list[float]) -> None:
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    print(f"{name}: {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
