"""A CIFAR-10 supernet in ten minutes on one GPU, and its best subnets with the weights they inherit.

    python benchmarks/gpu_supernet.py --data cifar10:DIR --out DIR [--minutes 10] [--epochs 90] [--recipe NAME=VALUE]

Needs torch, torchvision and numpy alone. Trains (an interrupted call goes on), stops at --minutes of training at the
latest, and for 30M, 45M and 180M MACs evolves architectures on the search-validation split; each winner is then tested
once, without fine-tuning. To beat: 90.3 % @29.6M (FastNAS, after 120 epochs of fine-tuning), 94.25 % @45M and 95.05 %
@180M (DepS).
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import describe

from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.feasible import sample_feasible
from search_spaces.network import NetworkSpace, Stage
from supernet import checkpoint, datasets
from supernet.data import prepare
from supernet.evaluate import SupernetEvaluator, count_correct, recalibrate
from supernet.fit import Hooks, fit
from supernet.mixture import make_supernet
from supernet.recipe import TrainConfig
from supernet.train import Trainer

# as resnet_cifar, twice as wide: 180M MACs are best spent on 3x3 kernels with many channels
WIDTHS = ((8, 16, 24, 32), (16, 32, 48, 64), (32, 64, 96, 128))
SPACE = NetworkSpace(
    "resnet_cifar_wide", tuple(Stage(depths=(1, 2, 3, 4), widths=w, kernels=(3, 5)) for w in WIDTHS), 2, 3, 32, 10
)
LIMITS = (30e6, 45e6, 180e6)
FIRST, GENERATIONS, PARENTS, CHILDREN = 64, 6, 12, 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--epochs", type=int, default=90)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=0.4)
    parser.add_argument("--weight-decay", type=float, default=2e-4)
    parser.add_argument("--schedule", default="none")
    parser.add_argument("--max-pooling", default="reference")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = TrainConfig(
        epochs=args.epochs, batch_size=args.batch_size, lr=args.lr, weight_decay=args.weight_decay,
        step_plan="sandwich", schedule=args.schedule, max_pooling=args.max_pooling, seed=args.seed,
    )  # fmt: skip
    torch.backends.cudnn.benchmark = False  # every step has new shapes: trying algorithms for each costs more
    data = prepare(datasets.load(args.data), 0)
    torch.manual_seed(args.seed)
    trainer = Trainer(make_supernet(SPACE, 1), data, config)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "checkpoint.safetensors"
    if checkpoint.exists(path):
        trainer.restore(path)
    print(f"{describe()}; {SPACE.name}, MAX {cost.macs(SPACE, SPACE.largest()) / 1e6:.0f}M MACs, {config}", flush=True)
    started = time.monotonic()
    hooks = Hooks(
        on_record=lambda r: print(r, flush=True) if "val_top1_max" in r or "rollback" in r else None,
        should_stop=lambda: time.monotonic() - started > 60 * args.minutes,
    )
    finished = fit(trainer, path, args.out / "metrics.jsonl", hooks)
    minutes = (time.monotonic() - started) / 60
    print(f"step {trainer.step} of {trainer.total_steps} after {minutes:.1f} minutes of this call", flush=True)
    if finished:
        search(trainer)


def search(trainer: Trainer) -> None:
    device, data = trainer.device.type, trainer.data
    evaluator = SupernetEvaluator(
        trainer.ready, data.calibration.images, data.validation, data.mean, data.std, device
    )  # fmt: skip
    for limit in LIMITS:
        scores = evolve(evaluator, limit, trainer.config.seed)
        best = max(scores, key=lambda arch: scores[arch])
        subnet = trainer.ready.eval().export(best)
        recalibrate(subnet, data.calibration.images, data.mean, data.std)
        correct = count_correct(subnet, data.test, data.mean, data.std)
        print(
            f"≤ {limit / 1e6:.0f}M: test {correct / len(data.test):.2%}, validation {scores[best]:.2%}, "
            f"{cost.macs(SPACE, best) / 1e6:.1f}M MACs, {len(scores)} scored, {best.key}",
            flush=True,
        )


def evolve(evaluator: SupernetEvaluator, limit: float, seed: int) -> dict[Arch, float]:
    """Every architecture scored below the limit: random ones, then children of the best."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, int(limit)]))
    scores: dict[Arch, float] = {}

    def score(archs: set[Arch]) -> None:
        new = sorted(archs - scores.keys(), key=lambda arch: arch.key)
        scores.update(zip(new, (metrics["top1"] for metrics in evaluator.evaluate(new))))

    score({sample_feasible(SPACE, rng, {"macs": limit}, partial(cost.costs, SPACE)) for _ in range(FIRST)})
    for _ in range(GENERATIONS):
        parents = sorted(scores, key=lambda arch: -scores[arch])[:PARENTS]
        children: set[Arch] = set()
        for _ in range(40 * CHILDREN):
            a, b = (parents[i] for i in rng.integers(len(parents), size=2))
            child = SPACE.mutate(SPACE.crossover(a, b, rng), rng)
            if cost.macs(SPACE, child) <= limit and child not in scores:
                children.add(child)
            if len(children) == CHILDREN:
                break
        score(children)
    return scores


if __name__ == "__main__":
    main()
