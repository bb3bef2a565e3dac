"""Batch norm over the batch of all ranks, in plain torch: on CPUs with gloo as on GPUs with NCCL.

`torch.nn.SyncBatchNorm` runs on CUDA alone and owns full-size parameters, where an elastic layer normalises by slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

_MOMENTUM, _EPS = 0.1, 1e-5  # those of F.batch_norm
_DIMS = (0, 2, 3)


class LostRankError(RuntimeError):
    """Another process of the training has ended; its own message says why."""


@contextmanager
def together() -> Iterator[None]:
    """Around a collective: where it fails, LostRankError says what a user can make of it.

    That includes the ValueError of a group that is gone: Ray Train ends it from another thread when a rank has died.
    """
    rank = f"rank {dist.get_rank()}" if dist.is_initialized() else "a rank"  # asked for now: not there after a failure
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise LostRankError(f"{rank} waits in vain for another, which has ended: see its message") from error


def global_batch_norm(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
    """What `F.batch_norm` computes of the concatenation of all ranks' `x`, for this rank's rows.

    x: [batch, C, H, W], with equally or unequally many rows a rank. mean, var: running statistics [C], updated in
    place when `training`. weight, bias: [C]; their gradients are those of this rank's rows. Every rank must call it,
    and run its backward, in the same order.
    """
    if not training:
        return F.batch_norm(x, mean, var, weight, bias)
    return _GlobalBatchNorm.apply(x, mean, var, weight, bias)


class _GlobalBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, running_mean: Tensor, running_var: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        values = x.to(weight.dtype)  # full precision under autocast
        mean, squares, count = _global_moments(values)
        var = squares / count
        running_mean.lerp_(mean, _MOMENTUM)
        running_var.lerp_(squares / (count - 1), _MOMENTUM)
        scale = torch.rsqrt(var + _EPS)
        normal = (values - _wide(mean)) * _wide(scale)
        ctx.save_for_backward(x, mean, scale, weight, count)
        return (normal * _wide(weight) + _wide(bias)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, weight, count = ctx.saved_tensors
        grad = grads[0].to(weight.dtype)
        normal = (x.to(weight.dtype) - _wide(mean)) * _wide(scale)
        local = torch.stack([grad.sum(_DIMS), (grad * normal).sum(_DIMS)])
        # The mean and the variance depend on the rows of every rank, so their gradients come from every rank's loss.
        everyone = local.clone()
        with together():
            dist.all_reduce(everyone)
        of_mean, of_scale = everyone / count
        inner = grad - _wide(of_mean) - normal * _wide(of_scale)
        return (inner * _wide(weight * scale)).to(x.dtype), None, None, local[1], local[0]


def _global_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], sum of squared deviations [C] and number of values a channel (0-d) over all ranks.

    From each rank's own moments (Chan et al. 1979): a sum of squares would cancel where the mean is large.
    """
    var, mean = torch.var_mean(x, _DIMS, correction=0)
    count = mean.new_full((1,), x.numel() / x.shape[1])
    mine = torch.cat([mean, var * count, count])
    with together():
        everyone = mine.new_empty((dist.get_world_size(), len(mine)))
        dist.all_gather(list(everyone.unbind()), mine)
    means, squares, counts = everyone.split([len(mean), len(mean), 1], 1)
    total = counts.sum()
    overall = (means * counts).sum(0) / total
    return overall, (squares + counts * (means - overall) ** 2).sum(0), total


def _wide(vector: Tensor) -> Tensor:
    return vector[:, None, None]
