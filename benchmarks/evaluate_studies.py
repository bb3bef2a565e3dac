"""What racing would save, and how few images recalibration needs: on the answers of real subnets."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch
from brief_supernet import Evolved
from scipy.stats import kendalltau

from nas import pareto
from nas.trial import Trial
from search_spaces.arch import Arch
from search_spaces.plan import plan
from supernet import evaluators
from supernet.data import ImageData, Split
from supernet.evaluate import predict
from supernet.model import Supernet

LOOKS = (250, 500, 1000, 2000, 3500)  # images after which a candidate may be stopped
LOOKAHEAD = 8
CALIBRATION = 2000 * 1.3  # what recalibration costs, in validation images


def racing(trials: Evolved) -> None:
    """Races the trials in 20 random orders of trials and images: images scored, and whether the front stays."""
    for error in (0.05, 0.01, 0.001):
        for paired in (False, True):
            shares, equal = [], 0
            for seed in range(20):
                share, same = _raced(trials, error, paired, np.random.default_rng(seed))
                shares.append(share)
                equal += same
            share = float(np.median(shares))
            images = trials.right.shape[1]
            speedup = (CALIBRATION + images) / (CALIBRATION + images * share)
            print(
                f"error {error}, {'paired' if paired else 'alone'}: {100 * share:.0f} % of the images "
                f"({100 * min(shares):.0f} to {100 * max(shares):.0f}), {speedup:.2f}x with recalibration, "
                f"same front on {equal} of 20"
            )


def _raced(trials: Evolved, error: float, paired: bool, rng: np.random.Generator) -> tuple[float, bool]:
    order, images = rng.permutation(len(trials.archs)), rng.permutation(trials.right.shape[1])
    right, macs = trials.right[order][:, images], trials.macs[order]
    top1, total = right.mean(1), right.shape[1]
    scored = np.full(len(order), total)
    for i in range(len(order)):
        # what a proposal may depend on, a decision may too: complete trials up to the lookahead
        known = [j for j in range(max(0, i + 1 - LOOKAHEAD)) if scored[j] == total and macs[j] <= macs[i]]
        if not known:
            continue
        rival = max(known, key=lambda j: top1[j])
        for n in LOOKS:
            gain = right[i, :n].astype(float) - (right[rival, :n] if paired else top1[rival])
            spread = gain.std() * np.sqrt((1 - n / total) / n)  # without replacement
            if gain.mean() + NormalDist().inv_cdf(1 - error / len(LOOKS)) * spread < 0:
                scored[i] = n
                break
    complete = [i for i in range(len(order)) if scored[i] == total]
    fronts = [_front(trials, order[chosen], top1[chosen]) for chosen in (complete, list(range(len(order))))]
    return float(scored.mean() / total), fronts[0] == fronts[1]


def _front(trials: Evolved, numbers: np.ndarray, top1: np.ndarray) -> set[int]:
    found = [
        Trial(int(i), trials.archs[i], "complete", {"top1": t, "macs": trials.macs[i]}, {}, "", 0.0)
        for i, t in zip(numbers, top1)
    ]
    return {trial.number for trial in pareto.front(found, {"top1": "maximize", "macs": "minimize"})}


def calibration(supernet: Supernet, data: ImageData, archs: list[Arch], n: int = 16) -> None:
    """Kendall's tau to recalibration on all images, by how many there are and for either half of the MACs."""
    chosen = sorted(archs[:: len(archs) // n][:n], key=lambda arch: plan(supernet.space, arch).macs)
    few = Split(data.validation.images[:2000], data.validation.labels[:2000])
    scores = {}
    for images in (2000, 1000, 500, 250):
        fast = evaluators.get("fast")(supernet, data.calibration.images[:images], few, data.mean, data.std)
        scores[f"{images} images"] = np.array([metrics["top1"] for metrics in fast.evaluate(chosen)])
    scores["the validation batch itself"] = np.array([_by_batch(supernet, arch, data, few) for arch in chosen])
    full = scores["2000 images"]
    for name, found in scores.items():
        taus = [kendalltau(full[part], found[part])[0] for part in (slice(None), slice(n // 2), slice(n // 2, None))]
        print(
            f"{name}: tau {taus[0]:.3f} (small {taus[1]:.3f}, large {taus[2]:.3f}), "
            f"mean {100 * (found - full).mean():+.2f} points, absolute {100 * abs(found - full).mean():.2f}, n = {n}"
        )


@torch.no_grad()
def _by_batch(supernet: Supernet, arch: Arch, data: ImageData, split: Split) -> float:
    subnet = supernet.export(arch).train()
    logits = predict(subnet, split.images, data.mean, data.std)
    return float((logits.argmax(1) == split.labels).float().mean())
