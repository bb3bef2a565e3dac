"""Losses of a subnet that learns from a teacher. A new one is a function here and one line in `DISTILLATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ALPHA_BOUND = 5.0  # on the importance ratio of the mode-seeking divergence, whose value it keeps finite, too

Distillation = Callable[["Tensor", "Tensor", "Tensor", float], "Tensor"]
"""(student logits [batch, classes], teacher logits [batch, classes], targets, label smoothing) → mean loss, 0-d."""


def label_loss(student: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy with labels int64 [batch] or mixed labels, float [batch, classes]."""
    from torch.nn import functional as F

    return F.cross_entropy(student.float(), targets, label_smoothing=smoothing)


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of -Σ softmax(teacher)·log_softmax(student), at temperature 1 and without labels.

    student, teacher: logits [batch, classes]. No gradient reaches the teacher. The gradient equals that of
    KL(teacher || student), from which the value differs by the teacher's entropy (BigNAS, Yu et al. 2020).
    """
    target = teacher.detach().float().softmax(1)
    return -(target * student.float().log_softmax(1)).sum(1).mean()


def adaptive_alpha(student: Tensor, teacher: Tensor) -> Tensor:
    """The larger of two α-divergences of each image, α = -1 and α = 1 (AlphaNet, Wang et al. 2021).

    α = 1 is KL(teacher || student), which punishes a student that misses what the teacher believes; α = -1 punishes
    one that believes what the teacher does not. student, teacher: logits [batch, classes].
    The importance ratio of α = -1 is clipped before the two are compared, as in the paper's code, or one class that the
    teacher rules out would decide it. The gradient flows through the student's log-probabilities alone; the value is
    that of the divergence, since the surrogate with this gradient has a meaningless one.
    """
    import torch

    log_p, log_q = teacher.detach().float().log_softmax(1), student.float().log_softmax(1)
    fixed, q = log_q.detach(), log_q.detach().exp()
    log_ratio = log_p - fixed  # in fp32 logarithms: p/q of an underflowing q would be 0·∞
    forward = (log_p.exp() * log_ratio).sum(1)
    ratio = (-log_ratio).exp().clamp(max=ALPHA_BOUND)
    backward = (q * (ratio - 1)).sum(1) / 2
    # q·ρ(p/q) for ρ = (p/q)^α/α + 1/(α(α-1)), where α = 1 leaves p/q alone
    weight_forward = log_p.exp()
    weight_backward = q * (0.5 - ratio)
    pick = (backward > forward)[:, None]
    surrogate = -(torch.where(pick, weight_backward, weight_forward) * log_q).sum(1).mean()
    return torch.maximum(forward, backward).mean() + surrogate - surrogate.detach()


def _soft_ce(student: Tensor, teacher: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return soft_cross_entropy(student, teacher)


def _adaptive_alpha(student: Tensor, teacher: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return adaptive_alpha(student, teacher)


def _ce_kd(student: Tensor, teacher: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Labels and teacher in equal parts (Once-for-All, Cai et al. 2020)."""
    return label_loss(student, targets, smoothing) + soft_cross_entropy(student, teacher)


def _none(student: Tensor, teacher: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return label_loss(student, targets, smoothing)


DISTILLATIONS: dict[str, Distillation] = {
    "soft_ce": _soft_ce,
    "adaptive_alpha": _adaptive_alpha,
    "ce_kd": _ce_kd,
    "none": _none,
}

LABELLESS = ("soft_ce", "adaptive_alpha")  # a taught subnet learns nothing from labels
