"""Sampling so that training has the same influence on every subnet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import nnls

from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.members import count, listing
from search_spaces.network import NetworkSpace
from supernet.samplers.base import Probes, Sampler

CANDIDATES = 36  # architectures that a measurement compares
FLOATS = 1 << 28  # that their gradients may take together
STEPS_EACH = 10  # between two measurements, for each candidate: measuring is a tenth of the passes of single path
UNIFORM_SHARE = 0.2  # of the draws
KEPT = 0.8  # of what is known when the same architectures are measured again: one minibatch alone is noisy
RIDGE = 0.003  # per candidate: keeps shares apart from the noise of the gradients, and from zero
_CANDIDATES = 0x1F1  # sets the candidates' random numbers apart from those of the draws


class InfluenceEven(Sampler):
    """Draws with which every architecture is trained equally much, directly and by what it shares with those drawn.

    A gradient step on one subnet changes the others as far as their gradients on the same images agree. Divided by
    what a step on itself does, the sum over all draws says how fast a subnet learns in the supernet compared with
    being trained alone. Weights trained unevenly rank subnets by that before anything else; so the shares of the draws
    are chosen to make it equal, by non-negative least squares on the overlaps of the gradients, measured anew on the
    way. What is compared are all architectures, by a moving average, or in a larger space a fresh uniform sample each
    time; a fifth of the draws are uniform, and all before the first measurement are.

    Own work; that conflicts of gradients spoil rankings was used before to split supernets (GM-NAS, Hu et al. 2022).
    """

    asks_probes = True

    def __init__(self, space: NetworkSpace, seed: int) -> None:
        super().__init__(space, seed)
        self.most = min(CANDIDATES, max(2, FLOATS // cost.params(space, space.largest())))
        self._all = list(listing(space)) if count(space) <= self.most else None
        self.period = STEPS_EACH * (len(self._all) if self._all else self.most)
        self.archs: list[Arch] = []
        self.shares = np.zeros(0)
        self.overlaps = np.zeros((0, 0))

    def begin_step(self, step: int, total_steps: int, probes: Probes) -> None:
        """Measures, at the first step of every period but the first."""
        if step == 0 or step % self.period:
            return
        archs = self._all or self._sample(step)
        overlaps = probes.overlaps(archs)
        if not np.isfinite(overlaps).all() or not (np.diag(overlaps) > 0).all():
            return
        overlaps = overlaps / np.diag(overlaps).mean()  # gradients shrink as training goes on
        if self._all and self.archs:
            overlaps = KEPT * self.overlaps + (1 - KEPT) * overlaps
        self.archs, self.overlaps, self.shares = archs, overlaps, even_shares(overlaps)

    def draw(self, rng: np.random.Generator, probes: Probes) -> Arch:
        """One of the candidates by their shares, or any architecture."""
        if not self.archs or rng.random() < UNIFORM_SHARE:
            return self.space.sample(rng)
        return self.archs[int(rng.choice(len(self.archs), p=self.shares))]

    def state(self) -> dict[str, np.ndarray]:
        """The candidates' `genes` [n, genes] and `overlaps` [n, n], which decide their shares."""
        genes = np.array([self.space.encode(arch) for arch in self.archs], dtype=np.int64)
        genes = genes.reshape(len(self.archs), len(self.space.genes))
        return {"genes": genes, "overlaps": self.overlaps.copy()}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores candidates and overlaps, and so the shares."""
        self.archs = [self.space.decode(genes.tolist()) for genes in state["genes"]]
        self.overlaps = np.array(state["overlaps"])
        self.shares = even_shares(self.overlaps) if self.archs else np.zeros(0)

    def _sample(self, step: int) -> list[Arch]:
        """Different architectures, uniform."""
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, step, _CANDIDATES]))
        found: dict[Arch, None] = {}
        while len(found) < self.most:
            found[self.space.sample(rng)] = None
        return list(found)


def even_shares(overlaps: np.ndarray) -> np.ndarray:
    """Shares [n] of the draws, summing to 1, that make training's influence on all architectures as equal as can be.

    overlaps: inner products [n, n] of the architectures' gradients, those of the diagonal above 0. The influence on j
    is the sum over i of share_i * overlaps_ij / overlaps_jj.
    """
    n = len(overlaps)
    influence = (overlaps / np.diag(overlaps)).T
    matrix = np.vstack([influence, np.sqrt(RIDGE * n) * np.eye(n)])
    shares, _ = nnls(matrix, np.concatenate([np.ones(n), np.zeros(n)]))
    if not shares.any():  # gradients that oppose each other: no draws train all
        return np.full(n, 1 / n)
    return shares / shares.sum()
