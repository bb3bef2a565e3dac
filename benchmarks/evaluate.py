"""Subnets per second of the evaluators, and what the fast one's parts are worth. Figures: benchmarks/README.md.

    python benchmarks/evaluate.py speed --data cifar10:data --keep runs/evaluate    # one thread; on a quiet machine
    python benchmarks/evaluate.py PART    # answers, rounding, sharing, formats, growth, memory, calibration, racing or
                                          # search

`--keep` holds what takes long to make: the brief supernet, and the trials of an evolution on it with their answers.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import machine
import numpy as np
import torch
import torch.nn.functional as F
from brief_supernet import evolved, trained
from evaluate_studies import calibration, racing
from torch import Tensor

from search_spaces import catalog
from search_spaces.arch import Arch
from search_spaces.plan import plan
from supernet import datasets, evaluators, fast
from supernet.data import ImageData, Split, normalize, prepare
from supernet.evaluate import BATCH, predict, recalibrate
from supernet.layers import ElasticBatchNorm2d
from supernet.model import Supernet
from supernet.trie import Trie

GENERATION = 64


class ElasticEvaluator:
    """As once-for-all scores: the elastic forward in the supernet itself, its norms averaging batch statistics."""

    def __init__(self, supernet: Supernet, data: ImageData) -> None:
        self.supernet, self.data = supernet, data

    @torch.no_grad()
    def evaluate(self, archs: Sequence[Arch]) -> list[dict[str, float]]:
        return [{"top1": self._score(arch)} for arch in archs]

    def _score(self, arch: Arch) -> float:
        found: dict[ElasticBatchNorm2d, list[tuple[Tensor, Tensor]]] = {}
        handles = [
            module.register_forward_pre_hook(functools.partial(_observe, found))
            for module in self.supernet.modules()
            if isinstance(module, ElasticBatchNorm2d)
        ]
        self.supernet.train()  # the norms alone differ
        for batch in self.data.calibration.images.split(BATCH):
            self.supernet(normalize(batch, self.data.mean, self.data.std), arch)
        for handle in handles:
            handle.remove()
        self.supernet.eval()
        for norm, batches in found.items():
            for buffer, values in zip((norm.running_mean, norm.running_var), zip(*batches, strict=True), strict=True):
                buffer[:, : len(values[0])] = torch.stack(values).mean(0)
        correct = 0
        for images, labels in zip(
            *(t.split(BATCH) for t in (self.data.validation.images, self.data.validation.labels))
        ):
            logits = self.supernet(normalize(images, self.data.mean, self.data.std), arch)
            correct += int((logits.argmax(1) == labels).sum())
        return correct / len(self.data.validation)


def _observe(found: dict, norm: ElasticBatchNorm2d, inputs: tuple) -> None:
    var, mean = torch.var_mean(inputs[0].transpose(0, 1).flatten(1), 1)
    found.setdefault(norm, []).append((mean, var))


def make(name: str, supernet: Supernet, data: ImageData, **options: int):
    return evaluators.get(name)(supernet, data.calibration.images, data.validation, data.mean, data.std, **options)


def speed(supernet: Supernet, data: ImageData, archs: list[Arch], timed: int = 12, block: int = 1) -> None:
    """CPU seconds of blocks of candidates by each evaluator in turn, the order rotating; fast gets a block at once."""
    chosen = archs[:: len(archs) // timed][:timed]
    rows: dict[str, list[float]] = {"reference": [], "elastic": [], "fast": []}
    names = list(rows)
    made = {n: ElasticEvaluator(supernet, data) if n == "elastic" else make(n, supernet, data) for n in names}
    for number in range(0, timed, block):
        answers = {}
        for name in names[number // block % 3 :] + names[: number // block % 3]:
            start = time.process_time()  # one thread's, so that other programs do not count
            answers[name] = made[name].evaluate(chosen[number : number + block])
            rows[name].append((time.process_time() - start) / block)
        seconds = ", ".join(f"{name} {rows[name][-1]:.2f} s" for name in names)
        equal = answers["fast"] == answers["reference"]
        print(f"block {number // block}: {seconds} a subnet; fast scores equal the reference's: {equal}", flush=True)
    for name, seconds in rows.items():
        ratios = np.array(seconds) / rows["fast"]
        print(
            f"{name}: {np.median(seconds):.2f} CPU s a subnet (blocks {min(seconds):.2f} to {max(seconds):.2f}), "
            f"{1 / np.median(seconds):.3f} subnets/s; over fast {np.median(ratios):.2f} ({ratios.min():.2f} to "
            f"{ratios.max():.2f}), {timed} subnets"
        )
    print(f"mean MACs of the timed: {np.mean([plan(supernet.space, a).macs for a in chosen]) / 1e6:.1f}M")


def answers(supernet: Supernet, data: ImageData, archs: list[Arch], n: int = 16) -> None:
    """Image by image: the fast evaluator scored against the reference's answers must be right on every image."""
    chosen, wrong = archs[:: len(archs) // n][:n], 0
    for arch in chosen:
        subnet = supernet.export(arch)
        recalibrate(subnet, data.calibration.images, data.mean, data.std)
        expected = predict(subnet, data.validation.images, data.mean, data.std).argmax(1)
        split = Split(data.validation.images, expected)
        evaluator = fast.FastEvaluator(supernet, data.calibration.images, split, data.mean, data.std)
        wrong += round((1 - evaluator.evaluate([arch])[0]["top1"]) * len(split))
    print(f"{wrong} of {n * len(data.validation)} answers differ from the reference's ({n} subnets)")


def rounding(supernet: Supernet, data: ImageData, archs: list[Arch], n: int = 8, images: int = 1000) -> None:
    """How far rounding moves the two highest logits apart, relative to the largest: what `supernet.fast.TIE` covers."""
    few = Split(data.validation.images[:images], data.validation.labels[:images])
    most, logits = 0.0, []
    fast._Tally.add = lambda self, batch, labels, node, out: logits.append(out)  # type: ignore[assignment,method-assign]
    for arch in archs[:: len(archs) // n][:n]:
        logits.clear()
        fast.FastEvaluator(supernet, data.calibration.images, few, data.mean, data.std).evaluate([arch])
        subnet = supernet.export(arch)
        recalibrate(subnet, data.calibration.images, data.mean, data.std)
        expected = predict(subnet, few.images, data.mean, data.std)
        top = expected.topk(2)
        moved = (torch.cat(logits).gather(1, top.indices) - top.values) @ torch.tensor([1.0, -1.0])
        most = max(most, float(moved.abs().max() / expected.abs().max()))
    print(f"rounding moves the two highest logits apart by at most {most:.1e} of the largest ({n} x {images} images)")


def sharing(supernet: Supernet, data: ImageData, archs: list[Arch]) -> None:
    """MACs of a batch one by one over those of its trie, by how many candidates are in the batch."""
    plans = [(supernet, plan(supernet.space, arch)) for arch in archs]
    for size in (2, 4, 8, 16, 32, 64):
        whole = [sum(p.macs for _, p in plans[i : i + size]) for i in range(0, len(plans), size)]
        shared = [sum(n.block.macs for n in Trie(plans[i : i + size]).nodes()) for i in range(0, len(plans), size)]
        print(f"{size} candidates a batch: {sum(whole) / sum(shared):.3f}")


def formats(*_: object) -> None:
    """GFLOP/s of convolutions (the best of 20) as the reference runs them, in channels last, and in bf16."""
    for ci, co, k, size in (
        (8, 8, 7, 32),
        (16, 16, 3, 32),
        (16, 16, 7, 32),
        (24, 24, 3, 16),
        (48, 64, 5, 8),
        (64, 64, 3, 8),
    ):
        found = []
        for batch, dtype, layout in (
            (BATCH, torch.float32, torch.contiguous_format),
            (25, torch.float32, torch.contiguous_format),
            (BATCH, torch.float32, torch.channels_last),
            (25, torch.float32, torch.channels_last),
            (25, torch.bfloat16, torch.channels_last),
        ):
            x, w = (torch.randn(n, ci, s, s).to(dtype, memory_format=layout) for n, s in ((batch, size), (co, k)))
            seconds = _best(lambda: F.conv2d(x, w, padding=k // 2), 20)  # noqa: B023
            found.append(2 * batch * ci * co * k * k * size**2 / seconds / 1e9)
        print(f"{ci}->{co} {k}x{k} at {size}: " + " ".join(f"{f:.0f}" for f in found))


def _best(function: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def growth(supernet: Supernet, data: ImageData, archs: list[Arch]) -> None:
    """Seconds of the fast evaluator with the candidates of a call, the images, and the resolution."""
    few = Split(data.validation.images[:500], data.validation.labels[:500])
    for n, images, size in (
        (1, 500, 32),
        (4, 500, 32),
        (16, 500, 32),
        (4, 1000, 32),
        (4, 2000, 32),
        (4, 500, 24),
        (4, 500, 48),
    ):
        space = catalog.get("resnet_cifar", image_size=size)
        net = Supernet(space)
        net.load_state_dict(supernet.state_dict())
        chosen = [space.arch_from_dict({**arch.to_dict(), "resolution": size}) for arch in archs[:n]]
        split = Split(data.validation.images[:images], data.validation.labels[:images]) if images > 500 else few
        evaluator = fast.FastEvaluator(net.eval(), data.calibration.images[:500], split, data.mean, data.std)
        seconds = _best(functools.partial(evaluator.evaluate, chosen), 2)
        print(f"{n} candidates, 500 + {images} images of {size} pixels: {seconds:.2f} s, {seconds / n:.2f} s each")


def memory(supernet: Supernet, data: ImageData, archs: list[Arch], out: argparse.Namespace) -> None:
    """Peak resident memory of a process that evaluates 16 candidates at once under several settings."""
    for setting in ("32e6", "64e6", "128e6", "256e6", "1e9"):
        command = [sys.executable, __file__, "peak", "--data", out.data, "--keep", str(out.keep), "--memory", setting]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip(), flush=True)


def peak(supernet: Supernet, data: ImageData, archs: list[Arch], out: argparse.Namespace) -> None:
    """What `memory` runs: a few images, as the peak does not depend on how many batches there are."""
    few = Split(data.validation.images[:250], data.validation.labels[:250])
    evaluator = fast.FastEvaluator(
        supernet, data.calibration.images[:500], few, data.mean, data.std, memory=int(out.memory)
    )
    evaluator.evaluate(archs[:1])  # what torch allocates once
    groups = len(list(evaluator._groups([evaluator._subnet(arch) for arch in archs[:16]])))
    Path("/proc/self/clear_refs").write_text("5")  # the peak from now on, not that of loading the data
    before = _resident("VmRSS")
    evaluator.evaluate(archs[:16])
    print(
        f"memory {out.memory / 1e6:.0f} MB: {groups} groups, peak {_resident('VmHWM') - before:.0f} MB above the "
        f"{before:.0f} MB of the process with its data"
    )


def _resident(field: str) -> float:
    """MB of this process, by the kernel's account."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def search(supernet: Supernet, data: ImageData, archs: list[Arch], out: argparse.Namespace) -> None:
    """A whole search with two workers by each evaluator: wall time, and whether the histories are equal."""
    import nas
    from supernet.evaluate import evaluator_from_arrays, shared_arrays
    from workers.evaluator import EvaluatorSpec

    found = {}
    for name in ("reference", "fast"):
        factory = functools.partial(
            evaluator_from_arrays, supernet.space.to_dict(), data.mean, data.std, "cpu", evaluator=name
        )
        spec = EvaluatorSpec(factory, shared_arrays(supernet.state_dict(), data), 8 if name == "fast" else 1)
        start = time.perf_counter()
        study = nas.search(
            supernet.space, spec, n_trials=out.trials, strategy="evolution", limits={"macs": 20e6},
            objectives={"top1": "maximize", "macs": "minimize"}, num_workers=2,
        )  # fmt: skip
        found[name] = [(trial.arch.key, trial.metrics["top1"]) for trial in study.trials]
        print(f"{name}: {out.trials} trials in {time.perf_counter() - start:.0f} s, best {study.best.metrics['top1']}")
    print(f"equal histories: {found['reference'] == found['fast']}")


PARTS = {
    part.__name__: part
    for part in (speed, answers, rounding, sharing, formats, growth, memory, peak, calibration, racing, search)
}


def thinned(data: ImageData, step: int) -> ImageData:
    def thin(split: Split) -> Split:
        return Split(split.images[::step].clone(), split.labels[::step].clone())

    return replace(data, calibration=thin(data.calibration), validation=thin(data.validation))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", default="cifar10:data")
    parser.add_argument("--keep", type=Path, default=Path("runs/evaluate"))
    parser.add_argument("--part-of-images", type=int, default=1, help="of both splits, one in so many")
    parser.add_argument("--trials", type=int, default=40, help="of the whole search; the claim is for 500")
    parser.add_argument("--memory", type=float, default=1e9, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    data = prepare(datasets.load(options.data), seed=0)
    supernet = trained(data, 500, 0, options.keep / "supernet.safetensors")
    trials = evolved(supernet, data, options.keep / "evolved.npz")
    archs = trials.archs[-GENERATION:]
    data = thinned(data, options.part_of_images)
    part = PARTS[options.part]
    if options.part != "peak":
        print(machine.describe())
    if options.part in ("memory", "peak", "search"):
        part(supernet, data, archs, options)
    elif options.part == "racing":
        part(trials)
    else:
        part(supernet, data, archs)


if __name__ == "__main__":
    main()
