"""Losses of a supernet step."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the batch of -Σ softmax(teacher)·log_softmax(student), at temperature 1 and without labels.

    student, teacher: logits [batch, classes]. No gradient reaches the teacher. The gradient equals that of
    KL(teacher || student), from which the value differs by the teacher's entropy (BigNAS, Yu et al. 2020).
    """
    target = F.softmax(teacher.detach().float(), dim=1)
    return -(target * F.log_softmax(student.float(), dim=1)).sum(1).mean()
