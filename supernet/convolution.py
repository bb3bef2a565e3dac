"""Convolutions for scoring: channels last, a norm folded in, and narrow ones two pixels at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.plan import Layer

_VECTOR = 16  # fp32 numbers in the processor's vectors: what fewer output channels leave empty is wasted


def convolution(layer: Layer, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """The layer as a function of float [n, C, H, W] in channels last, of which its result is too.

    weight: as `nn.Conv2d` has it. A kernel for which two pixels' channels fit into one vector computes two
    neighbours at once: with its weights a second time, shifted by one pixel, it is one of twice the channels and
    half the positions, and in channels last its result is, number for number, that of the original.
    """
    k = layer.kernel
    if 2 * layer.out_channels <= _VECTOR and k > 1 and layer.groups == layer.stride == 1 and layer.out_size % 2 == 0:
        pair = weight.new_zeros(2, *weight.shape[:3], k + 1)
        pair[0, ..., :k] = pair[1, ..., 1:] = weight
        return partial(
            _paired,
            weight=pair.flatten(0, 1).contiguous(memory_format=torch.channels_last),
            bias=None if bias is None else bias.repeat(2),
            padding=k // 2,
        )
    return partial(
        F.conv2d,
        weight=weight.contiguous(memory_format=torch.channels_last),
        bias=bias,
        stride=layer.stride,
        padding=k // 2,
        groups=layer.groups,
    )


def _paired(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    out = F.conv2d(x, weight, bias, (1, 2), padding).permute(0, 2, 3, 1)
    n, height, half, channels = out.shape
    return out.reshape(n, height, 2 * half, channels // 2).permute(0, 3, 1, 2)
