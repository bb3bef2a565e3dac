"""A search problem of the size of a real one: Once-for-All's MobileNetV3 at 224 pixels, 2·10^19 architectures.

Its published ImageNet accuracies (2,373 rows) are too few to look up. So a Gaussian process that is fitted to them
answers for every architecture, and its answer is taken for the truth. A search sees it with the noise that the table
has beside the process, the same at every look.

    python benchmarks/search_ofa.py TABLES    # how well the process knows rows that it was not fitted to
"""

from __future__ import annotations

import csv
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from search_synthetic import noise
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from nas.problem import Problem
from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.catalog import SPACES

SPACE = replace(SPACES["mobilenet_v3"](), resolutions=(224,))
COST = functools.partial(cost.costs, SPACE)
_FITTED = 600  # rows that the kernel's parameters are fitted to; the process then knows all of them


def read(folder: Path) -> tuple[list[Arch], np.ndarray]:
    """The table's architectures and their accuracies in percent."""
    width = [stage.widths[0] for stage in SPACE.stages]
    archs, accuracies = [], []
    with open(folder / "ofa_mbv3w10_dynast.csv", newline="") as file:
        for row in csv.reader(file):
            if row[0] == "run":
                continue
            kernel, expand, depth = ([int(digit) for digit in text] for text in row[2:5])
            genes = {"depth": depth, "width": width, "kernel": kernel, "expand": expand, "resolution": int(row[5])}
            archs.append(SPACE.arch_from_dict(genes))
            accuracies.append(float(row[-1]))
    return archs, np.array(accuracies)


@dataclass(frozen=True)
class Accuracy:
    """ImageNet accuracy in percent of any architecture of `SPACE`: a linear and a smooth part, the table's noise."""

    process: GaussianProcessRegressor
    noise: float

    @classmethod
    def fit(cls, archs: Sequence[Arch], accuracies: np.ndarray) -> Accuracy:
        features = np.array([SPACE.to_vector(arch) for arch in archs])
        some = np.random.default_rng(0).permutation(len(archs))[:_FITTED]
        kernel = ConstantKernel() * DotProduct() + ConstantKernel() * RBF(3.0) + WhiteKernel(0.1)
        first = GaussianProcessRegressor(kernel, normalize_y=True).fit(features[some], accuracies[some])
        white = float(first.kernel_.k2.noise_level)  # of accuracies in units of their deviation
        process = GaussianProcessRegressor(first.kernel_.k1, alpha=white, optimizer=None, normalize_y=True)
        return cls(process.fit(features, accuracies), float(accuracies.std()) * white**0.5)

    def true(self, archs: Sequence[Arch]) -> np.ndarray:
        return self.process.predict(np.array([SPACE.to_vector(arch) for arch in archs]))

    def seen(self, arch: Arch) -> float:
        return float(self.true([arch])[0]) + noise(arch, self.noise)


@functools.cache
def accuracy(folder: Path) -> Accuracy:
    """Of all rows."""
    return Accuracy.fit(*read(folder))


def best_known(problem: Problem, truth: Accuracy, size: int = 200, generations: int = 200) -> float:
    """The greatest true accuracy within the limits that a long evolution on the truth itself finds."""
    rng = np.random.default_rng(0)
    parents: list[Any] = [SPACE.smallest()] * size
    worth = np.full(size, -np.inf)
    for _ in range(generations):
        pairs = rng.integers(size, size=(size, 2))
        mixed = (SPACE.crossover(parents[a], parents[b], rng) for a, b in pairs)
        children = list({arch.key: arch for arch in (SPACE.mutate(arch, rng) for arch in mixed)}.values())
        known = COST(children)
        within = np.all([known[name] <= limit for name, limit in problem.limits.items()], axis=0)
        everyone = [*parents, *children]
        values = np.concatenate([worth, np.where(within, truth.true(children), -np.inf)])
        best = np.argsort(-values, kind="stable")[:size]
        parents, worth = [everyone[i] for i in best], values[best]
    return float(worth[0])


def main() -> None:
    archs, accuracies = read(Path(sys.argv[1]))
    order = np.random.default_rng(1).permutation(len(archs))
    new, old = np.split(order, [len(archs) // 5])
    predicted = Accuracy.fit([archs[i] for i in old], accuracies[old]).true([archs[i] for i in new])
    error = np.sqrt(np.mean((predicted - accuracies[new]) ** 2))
    correlation = spearmanr(predicted, accuracies[new])[0]
    print(f"{len(new)} rows held out: rank correlation {correlation:.4f}, root mean squared error {error:.3f} points")


if __name__ == "__main__":
    main()
