"""Subnets per second of a real generation on two cores, by each evaluator in turn. Figures: benchmarks/README.md.

    python benchmarks/evaluate_generation.py --data cifar10:data --keep runs/evaluate [--repeats 2]

The 64 candidates of `evaluate.py`, in two processes of one thread each, on a quiet machine. The fast evaluator gets its
half in one call; the halves are cut where little is shared, which matters to it alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import machine
import numpy as np
import torch
from brief_supernet import evolved, trained
from evaluate import GENERATION, ElasticEvaluator, make, thinned

from search_spaces.plan import plan
from supernet import datasets
from supernet.data import ImageData, prepare
from supernet.model import Supernet
from supernet.trie import Trie

EVALUATORS = ("reference", "elastic", "fast")
PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10:data")
    parser.add_argument("--keep", type=Path, default=Path("runs/evaluate"))
    parser.add_argument("--part-of-images", type=int, default=1, help="of both splits, one in so many")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--share", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--evaluator", choices=EVALUATORS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.evaluator is not None:
        print(json.dumps(share(options)))
        return
    print(machine.describe())
    prepared(options)  # what takes long is made once
    seconds: dict[str, list[float]] = {name: [] for name in EVALUATORS}
    scores: dict[str, list[float]] = {}
    for repeat in range(options.repeats):
        for name in EVALUATORS[repeat % 3 :] + EVALUATORS[: repeat % 3]:
            taken, scores[name] = together(name, options)
            seconds[name].append(max(taken))
            listed = ", ".join(f"{s:.1f} s" for s in taken)
            print(f"{name}: {GENERATION / max(taken):.3f} subnets/s (processes {listed})", flush=True)
    for name in EVALUATORS[:2]:
        ratios = np.array(seconds[name]) / seconds["fast"]
        print(f"fast over {name}: {np.median(ratios):.2f} ({', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    differing = sum(a != b for a, b in zip(scores["fast"], scores["reference"], strict=True))
    print(f"{differing} of {GENERATION} scores of the fast evaluator differ from the reference's")


def prepared(options: argparse.Namespace) -> tuple[Supernet, ImageData, list]:
    """The supernet, the data and the generation, in the order of its trie."""
    data = prepare(datasets.load(options.data), seed=0)
    supernet = trained(data, 500, 0, options.keep / "supernet.safetensors")
    archs = evolved(supernet, data, options.keep / "evolved.npz").archs[-GENERATION:]
    trie = Trie([(supernet, plan(supernet.space, arch)) for arch in archs])
    return supernet, data, [archs[leaf] for node in trie.nodes() for leaf in node.leaves]


def together(name: str, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of each process, and the scores in order."""
    command = [sys.executable, __file__, "--data", options.data, "--keep", str(options.keep)]
    command += ["--part-of-images", str(options.part_of_images), "--evaluator", name, "--share"]
    started = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(PROCESSES)]
    found = [json.loads(process.communicate()[0]) for process in started]
    return [f["seconds"] for f in found], [score for f in found for score in f["top1"]]


def share(options: argparse.Namespace) -> dict[str, object]:
    """Evaluates this process's part of the generation; the first evaluation, on few images, is not timed."""
    torch.set_num_threads(1)
    supernet, data, archs = prepared(options)
    size = GENERATION // PROCESSES
    chosen = archs[options.share * size :][:size]
    few, all_images = (
        evaluator_of(options.evaluator, supernet, thinned(data, n)) for n in (20, options.part_of_images)
    )
    few.evaluate(chosen[:1])
    start = time.perf_counter()
    found = all_images.evaluate(chosen)
    return {"seconds": time.perf_counter() - start, "top1": [metrics["top1"] for metrics in found]}


def evaluator_of(name: str, supernet: Supernet, data: ImageData):
    return ElasticEvaluator(supernet, data) if name == "elastic" else make(name, supernet, data)


if __name__ == "__main__":
    main()
