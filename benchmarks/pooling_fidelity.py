"""Does one set of weights rank pooling positions? ResNet-20's 36 configurations against their stand-alone accuracies.

    python benchmarks/pooling_fidelity.py TABLE --data cifar10:DIR --out DIR [--epochs 6] [--seeds 0 1 2] [--split test]
        [--recipe a=b]

TABLE: CSV of stand-alone accuracies (columns pool_before_layer, baseline_avg; Javan et al. 2023). For each seed the
space `resnet20_pooling` is trained in DIR/seedN, where an interrupted training goes on and a finished one is only read,
and all 36 are scored: on the search-validation split or, for less noise, on the larger test set. Seeds may run in
processes of their own. Prints Kendall's tau of the scores, the null of MACs alone, how far the scores and the table
follow how much each network's blocks were trained, the true accuracy of the pick, and the curve of rankings calibrated
with K stand-alone accuracies, drawn as `nas trust` draws them.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from nas.calibration import fidelity_curve
from nas.cli_train import settings_of
from nas.progress import TrainingProgress
from nas.ranking import kendall
from nas.run import Run
from nas.sampling import spread_sample
from nas.terminal import stderr
from nas.training import load_trained, train
from search_spaces import catalog, cost
from search_spaces.arch import Arch
from search_spaces.plan import plan
from supernet.fast import FastEvaluator
from supernet.samplers import SAMPLERS, Probes
from supernet.steps import step_rng

SPACE = catalog.get("resnet20_pooling")
RECIPE = {
    "step_plan": "single_path", "sampler": "macs_weighted", "batch_size": 64, "lr": 0.1, "weight_decay": 2e-4,
    "label_smoothing": 0.0, "ema": 0.999,
}  # fmt: skip
SAMPLES, DESIGNS = (6, 8, 12), 60
DRAWS = 4000  # of a sampler, to see what it trains


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--recipe", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    archs, true = read_table(args.table)
    macs = cost.macs(SPACE, archs).astype(float)
    print(f"{describe()}\nKendall of MACs alone: {kendall(macs, true):.3f}; best of the table: {true.max():.2f}")
    recipe = RECIPE | settings_of(args.recipe, {}) | {"epochs": args.epochs}
    rows = [
        measure(args.out / f"seed{seed}", args.data, recipe | {"seed": seed}, archs, true, args.split)
        for seed in args.seeds
    ]
    for name in ("kendall", "pick"):
        values = [row[name] for row in rows]
        print(f"{name}: mean {np.mean(values):.3f} of {len(values)} seeds ({', '.join(f'{v:.3f}' for v in values)})")


def read_table(path: Path) -> tuple[list[Arch], np.ndarray]:
    """The architectures, and their mean stand-alone accuracies in percent."""
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    archs = []
    for row in rows:
        flags = [int(flag) for flag in row["pool_before_layer"].split(",")]
        slots = [layer - 1 for layer, pooled in enumerate(flags) if pooled]  # layer 0 is the stem
        archs.append(SPACE.with_pools(SPACE.largest(), slots))
    return archs, np.array([float(row["baseline_avg"]) for row in rows])


def measure(folder: Path, data: str, recipe: dict, archs: list[Arch], true: np.ndarray, split: str) -> dict[str, float]:
    started = time.monotonic()
    with TrainingProgress(stderr(), folder / "tensorboard", quiet=True) as progress:
        run = train(
            SPACE.name, data, folder, resume=(folder / "run.json").exists(),
            on_start=progress.start, on_record=progress.record, **recipe,
        )  # fmt: skip
    trained = time.monotonic() - started
    top1 = score(run, archs, split)
    samples = {
        k: [[archs.index(arch) for arch in spread_sample(SPACE, k, seed)] for seed in range(DESIGNS)] for k in SAMPLES
    }
    curve = fidelity_curve(SPACE, archs, top1, true, samples)
    row = {"kendall": kendall(top1, true), "pick": float(true[top1.argmax()])}
    images = recipe["epochs"] * recipe["batch_size"] * (len(load_trained(run)[2].train) // recipe["batch_size"])
    print(
        f"{folder.name}: Kendall {row['kendall']:.3f}, pick {row['pick']:.2f}, inherited {top1.min():.1%} to "
        f"{top1.max():.1%}; {images / 1e6:.1f}M images trained, {trained:.0f} s in this call"
    )
    if (shares := training_shares(recipe, archs)) is not None:
        with_scores, alone = kendall(shares, top1), kendall(shares, true)
        print(f"  how much was trained of each: Kendall with the scores {with_scores:.3f}, with the table {alone:.3f}")
    for p in curve:
        print(f"  calibrated with K={p.k}: Kendall {p.kendall:.3f} ± {p.kendall_std:.3f}, pick {p.picked:.2f}")
    (folder / f"fidelity-{split}.json").write_text(json.dumps(row | {"top1": top1.tolist(), "recipe": recipe}))
    return row


def training_shares(recipe: dict, archs: list[Arch]) -> np.ndarray | None:
    """How much the sampler has each architecture's blocks trained at the levels where it has them, float64 [n].

    Mean over its blocks of the log of the share of draws that have that block at that level. None for a sampler that
    asks the weights, whose draws are not known before the training.
    """

    def unasked(_: Any) -> Any:
        raise AssertionError

    probes = Probes(unasked, unasked)
    sampler = SAMPLERS[recipe["sampler"]](SPACE, recipe["seed"])
    if sampler.asks_probes:
        return None
    drawn = [sampler.draw(step_rng(recipe["seed"], step, 0), probes) for step in range(DRAWS)]
    counts: Counter[tuple[int, int]] = Counter()
    for arch, times in Counter(drawn).items():
        counts.update(dict.fromkeys(parts_of(arch), times))
    return np.array([np.mean([np.log((counts[part] + 0.5) / DRAWS) for part in parts_of(arch)]) for arch in archs])


def parts_of(arch: Arch) -> list[tuple[int, int]]:
    """The slot and the pooling level of each of its blocks."""
    return [(block.slot, block.level) for block in plan(SPACE, arch).blocks if block.slot >= 0]


def score(run: Run, archs: list[Arch], split: str) -> np.ndarray:
    supernet, _, data = load_trained(run)
    evaluator = FastEvaluator(supernet, data.calibration.images, getattr(data, split), data.mean, data.std)
    return np.array([metrics["top1"] for metrics in evaluator.evaluate(archs)])


if __name__ == "__main__":
    main()
