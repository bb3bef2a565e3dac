"""What a sampler or a router may ask of the shared weights as they stand, without leaving a trace in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces.arch import Arch
from supernet.data import ImageData, normalize
from supernet.distill import label_loss
from supernet.distributed import Ranks
from supernet.mixture import SharedWeights
from supernet.steps import step_rng

LOSS_IMAGES = 256  # held-out images of a loss, always the same: a sampler compares them over time
ACCURACY_IMAGES = 128  # held-out images of an accuracy, others every step
_ORDER = 1 << 24  # past the indices of a step's draws


class Probe:
    """Answers are equal on every rank. Held-out images are those of the calibration split, which trains no weights.

    data: on the weights' device. autocast: that of training.
    """

    def __init__(
        self, data: ImageData, seed: int, autocast: Callable[[], AbstractContextManager[Any]], ranks: Ranks
    ) -> None:
        self.data, self.seed, self.autocast, self.ranks = data, seed, autocast, ranks

    def loss(self, supernet: SharedWeights, arch: Arch, images: Tensor, labels: Tensor) -> float:
        """Mean cross-entropy of `arch` on normalised images, with the batch's own statistics."""
        loss = label_loss(self._logits(supernet, supernet.space.canonical(arch), images), labels)
        self.ranks.average([loss])
        return float(loss)

    def held_out_loss(self, supernet: SharedWeights, arch: Arch) -> float:
        """Mean cross-entropy of `arch` on the same held-out images whenever it is asked."""
        images, labels = self._held_out(torch.arange(min(LOSS_IMAGES, len(self.data.calibration))))
        return self.loss(supernet, arch, images, labels)

    def held_out_accuracy(self, supernet: SharedWeights, arch: Arch, step: int) -> float:
        """Top-1 of `arch`, 0 to 1, on held-out images that a step draws."""
        order = step_rng(self.seed, step, _ORDER).permutation(len(self.data.calibration))
        images, labels = self._held_out(torch.from_numpy(order[:ACCURACY_IMAGES]))
        top1 = (self._logits(supernet, arch, images).argmax(1) == labels).float().mean()
        self.ranks.average([top1])
        return float(top1)

    def overlaps(self, supernet: SharedWeights, archs: Sequence[Arch], images: Tensor, labels: Tensor) -> np.ndarray:
        """Inner products [n, n] of the gradients of n architectures' mean cross-entropies on normalised images.

        With the batch's own statistics; of a distributed training, on the whole batch.
        """
        weights = [weight for weight in supernet.parameters() if weight.requires_grad]
        rows = []
        for arch in archs:
            with _buffers_kept(supernet):
                with self.autocast():
                    loss = label_loss(supernet(images, supernet.space.canonical(arch)), labels)
                rows.append(torch.autograd.grad(loss, weights, allow_unused=True))
            self.ranks.average([grad for grad in rows[-1] if grad is not None])
        gram = torch.zeros(len(rows), len(rows), device=images.device, dtype=weights[0].dtype)
        for weight, grads in zip(weights, zip(*rows)):
            flat = torch.stack([torch.zeros_like(weight) if grad is None else grad for grad in grads]).flatten(1)
            gram += flat @ flat.T
        return gram.double().cpu().numpy()

    def _held_out(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        split = self.data.calibration
        rows = rows.to(split.labels.device)
        return normalize(split.images[rows], self.data.mean, self.data.std), split.labels[rows]

    @torch.no_grad()
    def _logits(self, supernet: SharedWeights, arch: Arch, images: Tensor) -> Tensor:
        with _buffers_kept(supernet), self.autocast():
            return supernet(images, arch)


@contextmanager
def _buffers_kept(supernet: SharedWeights) -> Iterator[None]:
    before = [buffer.clone() for buffer in supernet.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(supernet.buffers(), before):
            buffer.copy_(value)
