"""A supernet that is trained for two minutes (single paths under a limit), and an evolution on it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from nas.problem import Problem
from nas.strategies.evolution import EvolutionStrategy
from nas.trial import Trial
from search_spaces import catalog
from search_spaces.arch import Arch
from search_spaces.cost import costs
from search_spaces.plan import plan
from supernet.data import ImageData, normalize
from supernet.evaluate import predict, recalibrate
from supernet.model import Supernet

MOST_MACS = 40e6
_BATCH = 128


def trained(data: ImageData, steps: int, seed: int, keep: Path | None = None) -> Supernet:
    """`resnet_cifar` after `steps` of a uniform single path (SPOS) among its subnets of at most 40M MACs.

    keep: file that the weights are read from where it exists, and written to where it does not.
    """
    space = catalog.get("resnet_cifar")
    torch.manual_seed(seed)
    supernet = Supernet(space)
    if keep is not None and keep.exists():
        supernet.load_state_dict(load_file(keep))
        return supernet.eval()
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.SGD(supernet.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        while plan(space, arch := space.sample(rng)).macs > MOST_MACS:
            pass
        rows = torch.from_numpy(rng.integers(len(data.train.labels), size=_BATCH))
        images = normalize(data.train.images[rows], data.mean, data.std)
        images = images.flip(3) if rng.random() < 0.5 else images
        loss = F.cross_entropy(supernet(images.to(memory_format=torch.channels_last), arch), data.train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(supernet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    if keep is not None:
        save_file(supernet.state_dict(), keep)
    return supernet.eval()


@dataclass(frozen=True)
class Evolved:
    """The trials of an evolution. right: whether each validation image was answered rightly, bool [trials, images]."""

    archs: list[Arch]
    macs: np.ndarray
    right: np.ndarray


def evolved(supernet: Supernet, data: ImageData, keep: Path, n_trials: int = 80) -> Evolved:
    """`n_trials` of an evolution (seed 0, lookahead 8, at most 20M MACs), read from `keep` where it exists."""
    space = supernet.space
    if not keep.exists():
        problem = Problem(
            space, {"top1": "maximize", "macs": "minimize"}, {"macs": 20e6}, functools.partial(costs, space)
        )
        strategy, trials, taken, right = EvolutionStrategy(problem, 0), [], set(), []
        for number in range(n_trials):
            if number >= 8:
                strategy.tell(trials[number - 8])
            arch = strategy.ask(number, taken)
            taken.add(arch.key)
            subnet = supernet.export(arch)
            recalibrate(subnet, data.calibration.images, data.mean, data.std)
            logits = predict(subnet, data.validation.images, data.mean, data.std)
            right.append((logits.argmax(1) == data.validation.labels).numpy())
            metrics = {"top1": float(right[-1].mean()), **problem.costs(arch)}
            trials.append(Trial(number, arch, "complete", metrics, problem.constraints(metrics), "", 0.0))
        genes = [space.encode(trial.arch) for trial in trials]
        macs = [trial.metrics["macs"] for trial in trials]
        np.savez(keep, genes=genes, macs=macs, bits=np.packbits(right, axis=1))
    kept = np.load(keep)
    right = np.unpackbits(kept["bits"], axis=1)[:, : len(data.validation)].astype(bool)
    archs = [space.decode(genes.tolist()) for genes in kept["genes"]]
    return Evolved(archs[:n_trials], kept["macs"][:n_trials], right[:n_trials])
