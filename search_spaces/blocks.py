"""Layers and blocks: what a plan is made of. Every shape inside a block is derived here, one function a kind.

Sizes follow torch: a 2x2 max-pool rounds down, a strided 'same' convolution rounds up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

Size = TypeVar("Size", int, np.ndarray)

ACTS = ("relu", "h_swish")
STEM_HALVINGS = {"stem": 0, "imagenet_stem": 2, "mobile_stem": 1}
HEAD_WIDTHS = {"head": 0, "mobile_head": 2}  # how many widths of its own each kind of head takes
_SE_REDUCTION = 4
_DIVISOR = 8  # channel counts derived from a ratio are multiples of this


def after_pool(size: Size) -> Size:
    """Pixels a side after a 2x2 max-pool."""
    return size // 2


def after_stride(size: Size, stride: int) -> Size:
    """Pixels a side after a 'same' convolution of this stride, or an average pool that keeps the odd edge."""
    return -(-size // stride)


def rounded(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, at least 8, and never more than 10 % below (MobileNets' rule)."""
    nearest = max(_DIVISOR, int(channels + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest + _DIVISOR if nearest < 0.9 * channels else nearest


@dataclass(frozen=True)
class Layer:
    """One weighted operation of a block; convolutions have 'same' padding.

    op: "conv", "norm" (batch norm) or "linear".
    name: its attribute on the block's module.
    out_size: height and width of the output in pixels (1 for linear).
    groups: 1, or as many as there are channels (depthwise).
    ends_residual: a norm that ends a residual branch: its gamma starts at 0, so that the block starts as its shortcut.
    """

    op: str
    name: str
    in_channels: int
    out_channels: int
    kernel: int
    out_size: int
    stride: int = 1
    groups: int = 1
    bias: bool = False
    ends_residual: bool = False

    @property
    def params(self) -> int:
        """Trainable parameters: weights, biases, and the two affine vectors of a norm."""
        if self.op == "norm":
            return 2 * self.out_channels
        bias = self.out_channels if self.bias else 0
        return self.in_channels // self.groups * self.out_channels * self.kernel**2 + bias

    @property
    def macs(self) -> int:
        """Multiply-adds for one image; norms, activations, pooling, biases and SE's products count as nothing."""
        if self.op == "norm":
            return 0
        return self.in_channels // self.groups * self.out_channels * self.kernel**2 * self.out_size**2


@dataclass(frozen=True)
class Block:
    """One step of the network.

    kind: a key of `LAYERS`.
    slot: which of the supernet's block slots holds the weights; -1 for stem and head.
    level: number of elastic 2x2 max-pools before the block's first convolution, its own included.
    pool: whether a 2x2 max-pool precedes this block.
    project: whether the shortcut is a 1x1 convolution with a norm rather than the identity.
    in_size, out_size: height and width in pixels before the pool and after the block.
    mid_channels: width between the block's first and last convolution (mobile_head: of its first convolution).
    stride: of the spatial convolution; the shortcut is average-pooled to match.
    act: "relu" or "h_swish". se: whether squeeze-and-excitation follows the depthwise convolution.
    residual: whether there is a shortcut at all.
    features: channels before the classifier of a mobile_head.
    """

    kind: str
    slot: int
    in_channels: int
    out_channels: int
    kernel: int
    level: int
    pool: bool
    project: bool
    in_size: int
    out_size: int
    mid_channels: int = 0
    stride: int = 1
    act: str = "relu"
    se: bool = False
    residual: bool = True
    features: int = 0

    @property
    def work_size(self) -> int:
        """Pixels a side after the pool and before the stride."""
        return after_pool(self.in_size) if self.pool else self.in_size

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The weighted layers in the order they run, a shortcut's last."""
        return LAYERS[self.kind](self)

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(layer.params for layer in self.layers)


def mid_channels(kind: str, in_channels: int, out_channels: int, expand: float) -> int:
    """Width inside a block: the output (basic), `expand` times the output (bottleneck) or times the input (mbconv)."""
    if kind == "basic":
        return out_channels
    return rounded((out_channels if kind == "bottleneck" else in_channels) * expand)


Layers = tuple[Layer, ...]


def _conv_norm(
    conv: str, norm: str, in_channels: int, out_channels: int, kernel: int, size: int,
    *, stride: int = 1, groups: int = 1, ends_residual: bool = False,
) -> Layers:  # fmt: skip
    return (
        Layer("conv", conv, in_channels, out_channels, kernel, size, stride, groups),
        Layer("norm", norm, out_channels, out_channels, 1, size, ends_residual=ends_residual),
    )


def _stem(b: Block) -> Layers:
    return _conv_norm("conv", "bn", b.in_channels, b.out_channels, b.kernel, b.out_size)


def _imagenet_stem(b: Block) -> Layers:
    # half of the downsampling is the convolution's, the other half a max-pool after it
    size = after_stride(b.in_size, 2)
    return _conv_norm("conv", "bn", b.in_channels, b.out_channels, b.kernel, size, stride=2)


def _mobile_stem(b: Block) -> Layers:
    c, size = b.out_channels, b.out_size
    return (
        *_conv_norm("conv", "bn", b.in_channels, c, b.kernel, size, stride=b.stride),
        *_conv_norm("depthwise_conv", "bn1", c, c, b.kernel, size, groups=c),
        *_conv_norm("project_conv", "bn2", c, c, 1, size, ends_residual=True),
    )


def _basic(b: Block) -> Layers:
    c, k, size = b.out_channels, b.kernel, b.out_size
    return (
        *_conv_norm("conv1", "bn1", b.in_channels, c, k, size, stride=b.stride),
        *_conv_norm("conv2", "bn2", c, c, k, size, ends_residual=True),
        *_shortcut(b),
    )


def _bottleneck(b: Block) -> Layers:
    mid = b.mid_channels
    return (
        *_conv_norm("conv1", "bn1", b.in_channels, mid, 1, b.work_size),
        *_conv_norm("conv2", "bn2", mid, mid, b.kernel, b.out_size, stride=b.stride),
        *_conv_norm("conv3", "bn3", mid, b.out_channels, 1, b.out_size, ends_residual=True),
        *_shortcut(b),
    )


def _mbconv(b: Block) -> Layers:
    mid, size = b.mid_channels, b.out_size
    return (
        *_conv_norm("expand_conv", "bn1", b.in_channels, mid, 1, b.work_size),
        *_conv_norm("depthwise_conv", "bn2", mid, mid, b.kernel, size, stride=b.stride, groups=mid),
        *(_squeeze_excite(mid) if b.se else ()),
        *_conv_norm("project_conv", "bn3", mid, b.out_channels, 1, size, ends_residual=b.residual),
    )


def _squeeze_excite(channels: int) -> Layers:
    squeezed = rounded(channels // _SE_REDUCTION)
    return (
        Layer("conv", "se_conv1", channels, squeezed, 1, 1, bias=True),
        Layer("conv", "se_conv2", squeezed, channels, 1, 1, bias=True),
    )


def _shortcut(b: Block) -> Layers:
    if not b.project:
        return ()
    return _conv_norm("shortcut_conv", "shortcut_bn", b.in_channels, b.out_channels, 1, b.out_size)


def _head(b: Block) -> Layers:
    return (Layer("linear", "fc", b.in_channels, b.out_channels, 1, 1, bias=True),)


def _mobile_head(b: Block) -> Layers:
    return (
        *_conv_norm("final_conv", "final_bn", b.in_channels, b.mid_channels, 1, b.in_size),
        Layer("conv", "feature_conv", b.mid_channels, b.features, 1, 1),
        Layer("linear", "fc", b.features, b.out_channels, 1, 1, bias=True),
    )


LAYERS: dict[str, Callable[[Block], Layers]] = {
    "stem": _stem,
    "imagenet_stem": _imagenet_stem,
    "mobile_stem": _mobile_stem,
    "basic": _basic,
    "bottleneck": _bottleneck,
    "mbconv": _mbconv,
    "head": _head,
    "mobile_head": _mobile_head,
}
