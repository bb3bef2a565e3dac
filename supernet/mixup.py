"""Mixup: training on blends of two images and of their labels (Zhang et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.steps import step_rng

_DRAW = 1 << 22  # past the indices of a step's architectures


def mixup(
    images: Tensor, labels: Tensor, num_classes: int, alpha: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Images [batch, C, H, W] and labels [batch] blended with those of a permutation of the batch.

    alpha: of the Beta distribution that the batch's one mixing ratio is drawn from; 0 leaves both as they are.
    Returns images and, where they are mixed, probabilities [batch, num_classes]: a function of seed and step.
    """
    if not alpha:
        return images, labels
    rng = step_rng(seed, step, _DRAW)
    ratio = float(rng.beta(alpha, alpha))
    order = torch.from_numpy(rng.permutation(len(labels))).to(images.device)
    hot = F.one_hot(labels, num_classes).float()
    return images.lerp(images[order], 1 - ratio), hot.lerp(hot[order], 1 - ratio)
