"""What a sampler or a router may ask of the shared weights as they stand, without leaving a trace in them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

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

    def _held_out(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        split = self.data.calibration
        rows = rows.to(split.labels.device)
        return normalize(split.images[rows], self.data.mean, self.data.std), split.labels[rows]

    @torch.no_grad()
    def _logits(self, supernet: SharedWeights, arch: Arch, images: Tensor) -> Tensor:
        before = [buffer.clone() for buffer in supernet.buffers()]
        with self.autocast():
            logits = supernet(images, arch)
        for buffer, value in zip(supernet.buffers(), before):
            buffer.copy_(value)
        return logits
