"""Training strategies side by side, at equal cost.

    python benchmarks/training_strategies.py --data cifar10:DIR --out DIR [--budget 1e15] [--space resnet_cifar]
        [--image-size 16]

Every strategy trains the same supernet for the whole number of epochs that comes closest to --budget multiply-adds,
forward and backward (counted as three forward passes; a probe of a sampler as one). Then each is searched under
10, 20, 40 and 80M MACs (of 32 pixels; so many fewer as images are smaller), and its ranking below the last of them is
compared with the same stand-alone trainings (`nas trust --max-macs`), which are made once. What is found under each
limit is trained alone as well: inherited accuracies of different strategies say little about what they led to.
Prints a table in Markdown; an interrupted call goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from nas.json_file import write_json
from nas.progress import TrainingProgress
from nas.quantities import show_quantity
from nas.run import Run
from nas.searching import search_run
from nas.terminal import stderr
from nas.training import load_trained, train
from nas.trial import Trial
from nas.trust import standalone_record, trust_run
from search_spaces import catalog, cost
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.batches import steps_per_epoch
from supernet.recipe import TrainConfig
from supernet.samplers import SAMPLERS, Probes
from supernet.shrink import SCHEDULES
from supernet.steps import STEP_PLANS, StepContext, step_rng

SANDWICH = {"step_plan": "sandwich"}
STRATEGIES: dict[str, dict[str, Any]] = {
    "sandwich": SANDWICH,
    "sandwich, shared pooling": {**SANDWICH, "max_pooling": "shared"},
    "sandwich, adaptive alpha": {**SANDWICH, "distillation": "adaptive_alpha"},
    "sandwich, best up": {**SANDWICH, "sampler": "best_up"},
    "sandwich, worst up": {**SANDWICH, "sampler": "worst_up"},
    "sandwich, shifted": {**SANDWICH, "sampler": "shifted"},
    "delayed epsilon": {**SANDWICH, "schedule": "delayed_epsilon"},
    "progressive": {**SANDWICH, "schedule": "progressive"},
    "single path": {"step_plan": "single_path"},
    "single path, MACs weighted": {"step_plan": "single_path", "sampler": "macs_weighted"},
    "single path, pools weighted": {"step_plan": "single_path", "sampler": "pool_weighted"},
    "sorted": {"step_plan": "sorted", "num_random": 4},
    "chunked": {"step_plan": "chunked", "num_random": 4},
    "matched min, adjacent band": {"step_plan": "matched_min", "sampler": "adjacent_band"},
    "strict fair": {"step_plan": "strict_fair"},
}
LIMITS = (10e6, 20e6, 40e6, 80e6)
PHASE_STEPS, DRAWS = 40, 5  # places in a run, and steps at each, at which the cost of a step is counted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default="resnet_cifar")
    parser.add_argument("--budget", type=float, default=1e15, help="multiply-adds of a training")
    parser.add_argument(
        "--image-size", type=int, default=32, help="pixels; smaller images make longer trainings affordable"
    )
    parser.add_argument("--images", type=int, default=43_000, help="of the training split")
    parser.add_argument("--trials", type=int, default=100, help="of each search")
    parser.add_argument("--archs", type=int, default=12, help="trained alone")
    parser.add_argument("--alone-epochs", type=int, default=20)
    parser.add_argument("--num-workers", type=int, help="of each search; as `nas search` chooses unless given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(STRATEGIES), default=list(STRATEGIES))
    args = parser.parse_args()
    print(
        f"{args.space}, {args.image_size} pixels, {args.budget:.2g} multiply-adds a strategy, {args.trials} trials a "
        f"search, seed {args.seed}, {describe()}\n"
    )
    columns = [f"≤ {show_quantity(limit)}" for limit in limits(args.image_size)]
    header = ["strategy", "epochs", "minutes", *columns, *(f"alone {column}" for column in columns), "Kendall"]
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    alone: Path | None = None
    for name in args.only:
        cells, alone = measure(name, folder_of(name, args), alone, args)
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


def measure(name: str, folder: Path, alone: Path | None, args: argparse.Namespace) -> tuple[list[str], Path]:
    """The strategy's row of the table, and where the stand-alone trainings are."""
    started = time.monotonic()
    run = trained(name, folder, args)
    minutes = (time.monotonic() - started) / 60
    best = [best_under(run, limit, args) for limit in limits(args.image_size)]
    inherited = [f"{trial.metrics['top1']:.2%}" if trial else "none" for trial in best]
    picked = [f"{trained_alone(run, trial.arch, args):.2%}" if trial else "none" for trial in best]
    if alone is not None and not (folder / "trust").exists():
        shutil.copytree(alone, folder / "trust")
    report = trust_run(
        run, archs=args.archs, epochs=args.alone_epochs, seed=args.seed, max_macs=limits(args.image_size)[-1]
    )
    kendall = report["kendall"]
    tau = (
        "none"
        if kendall["value"] is None
        else f"{kendall['value']:.2f} ({', '.join(f'{v:.2f}' for v in kendall['interval'])})"
    )
    return [str(run.recipe.epochs), f"{minutes:.0f}", *inherited, *picked, tau], folder / "trust"


def folder_of(name: str, args: argparse.Namespace) -> Path:
    return args.out / name.replace(", ", "-").replace(" ", "_")


def trained(name: str, folder: Path, args: argparse.Namespace) -> Run:
    config = TrainConfig(**STRATEGIES[name], seed=args.seed)
    epochs = affordable_epochs(catalog.get(args.space, image_size=args.image_size), config, args.images, args.budget)
    with TrainingProgress(stderr(), folder / "tensorboard", quiet=True) as progress:
        return train(
            args.space, args.data, folder, resume=(folder / "run.json").exists(), image_size=args.image_size,
            epochs=epochs, seed=args.seed, on_start=progress.start, on_record=progress.record, **STRATEGIES[name],
        )  # fmt: skip


def limits(image_size: int) -> list[float]:
    """MACs."""
    return [limit * (image_size / 32) ** 2 for limit in LIMITS]


def best_under(run: Run, limit: float, args: argparse.Namespace) -> Trial | None:
    study = search_run(
        run, n_trials=args.trials, study_name=f"under-{show_quantity(limit)}", limits={"macs": limit},
        num_workers=args.num_workers,
    )  # fmt: skip
    return study.best


def trained_alone(run: Run, arch: Arch, args: argparse.Namespace) -> float:
    """Accuracy on the search-validation split. Kept for all strategies: it depends on no supernet."""
    file = args.out / "picks" / f"epochs{args.alone_epochs}-seed{args.seed}" / f"{arch.key}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        data = load_trained(run)[2]
        write_json(file, standalone_record(run, arch, data, args.alone_epochs, args.seed, "auto", lambda record: None))
    record = json.loads(file.read_text())
    return np.unpackbits(np.frombuffer(bytes.fromhex(record["correct"]), np.uint8)).sum() / record["images"]


def affordable_epochs(space: NetworkSpace, config: TrainConfig, images: int, budget: float) -> int:
    """The number of epochs whose multiply-adds come closest to `budget`, at least 1."""
    per_epoch = steps_per_epoch(images, config.images_per_step)
    total = 1000 * per_epoch  # long enough for the shares of a schedule's phases to be exact
    schedule = SCHEDULES[config.schedule](space, total, per_epoch, lambda step: 1.0)
    places = np.linspace(0, total - 1, PHASE_STEPS).astype(int)
    mean = np.mean([step_macs(space, config, schedule, int(step), total) for step in places])
    return max(1, round(budget / (mean * per_epoch)))


def step_macs(space: NetworkSpace, config: TrainConfig, schedule: Any, step: int, total: int) -> float:
    """Multiply-adds of one step, averaged over some."""
    phase = schedule.phase(step)
    if phase.largest_only:
        return 3.0 * config.images_per_step * cost.macs(space, space.largest())
    sampler, costs = SAMPLERS[config.sampler](phase.space, config.seed), []
    for i in range(DRAWS):
        probed: list[Any] = []

        def probe(arch: Any, probed: list[Any] = probed) -> float:
            probed.append(arch)
            return 1.0

        probes = Probes(batch=probe, held_out=lambda arch: 1.0)
        sampler.begin_step(step + i, total, probes)
        context = StepContext(
            phase.space, config.seed, step + i, config.num_random, config.max_pooling == "shared",
            lambda index, at=step + i, p=probes: sampler.draw(step_rng(config.seed, at, index), p), sampler.matched_min,
        )  # fmt: skip
        plan = STEP_PLANS[config.step_plan]
        trained = [space.canonical(s.arch) for s in plan.subnets(context)]
        share = config.num_random if plan.parts else 1
        seen = config.images_per_step / share * cost.macs(space, trained).sum()
        costs.append(3.0 * seen + config.batch_size * cost.macs(space, [space.canonical(a) for a in probed]).sum())
    return float(np.mean(costs))


if __name__ == "__main__":
    main()
