"""Elastic layers: one full-size weight, of which an architecture uses a slice.

A layer is sliced to the first output and input channels and the centre of its kernel. What must differ between the
scales at which a block can stand is kept once per level (number of poolings before it): batch norm's statistics and
affine vectors, and a small matrix that transforms the kernel, the identity at the start. All of it folds into plain
weights on export.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.members import latest_poolings
from search_spaces.network import NetworkSpace
from search_spaces.plan import Layer, plan


class ElasticConv2d(nn.Module):
    """'Same' convolution with elastic channels and kernel size, dense or depthwise.

    largest: the layer with the most channels. kernels: the sizes on offer. levels: number of pooling levels.
    Kernels of a smaller size are the centre of the largest one times a matrix per size (Once-for-All, Cai et al.
    2020), here also per level. A 1x1 kernel or a layer of one size and one level has no such matrix.
    """

    bias: nn.Parameter | None

    def __init__(self, largest: Layer, kernels: tuple[int, ...], levels: int) -> None:
        super().__init__()
        shape = (largest.out_channels, largest.in_channels // largest.groups, kernels[-1], kernels[-1])
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.register_parameter("bias", nn.Parameter(torch.zeros(shape[0])) if largest.bias else None)
        transformed = kernels if kernels[-1] > 1 and (levels > 1 or len(kernels) > 1) else ()
        self.transforms = nn.ParameterDict(
            {str(k): nn.Parameter(torch.eye(k * k).repeat(levels, 1, 1)) for k in transformed}
        )

    def sliced(self, layer: Layer, level: int) -> Tensor:
        """The plain weight [layer.out_channels, layer.in_channels / layer.groups, kernel, kernel] for this level."""
        k, edge = layer.kernel, (self.weight.shape[-1] - layer.kernel) // 2
        inputs = layer.in_channels // layer.groups
        weight = self.weight[: layer.out_channels, :inputs, edge : edge + k, edge : edge + k]
        if str(k) not in self.transforms:
            return weight
        # fp32 whatever the autocast: the product is tiny next to the convolution and its rounding would add up
        with torch.autocast(weight.device.type, enabled=False):
            return (weight.flatten(2) @ self.transforms[str(k)][level].T).view(weight.shape)

    def forward(self, x: Tensor, layer: Layer, level: int) -> Tensor:
        """[batch, layer.in_channels, H, W] → [batch, layer.out_channels, ⌈H / stride⌉, ⌈W / stride⌉]."""
        bias = None if self.bias is None else self.bias[: layer.out_channels]
        weight = self.sliced(layer, level)
        return F.conv2d(x, weight, bias, layer.stride, padding=layer.kernel // 2, groups=layer.groups)

    @torch.no_grad()
    def export_to(self, plain: nn.Module, layer: Layer, level: int) -> None:
        """Copies the sliced weight, and bias where there is one, into an `nn.Conv2d` of this layer's shape."""
        _copy(plain, weight=self.sliced(layer, level))
        if self.bias is not None:
            _copy(plain, bias=self.bias[: layer.out_channels])


def local_batch_norm(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor, training: bool) -> Tensor:
    """`F.batch_norm`; raises ValueError, with batch size and resolution, where a channel has one value to train on."""
    batch, _, *pixels = x.shape
    if training:
        _require_variance(batch, *pixels)
    return F.batch_norm(x, mean, var, weight, bias, training=training)


def require_trainable(space: NetworkSpace, batch: int) -> None:
    """Raises ValueError where a subnet of `space` could not train on a batch of so many images: its batch norms."""
    plans = [plan(space, arch) for arch in latest_poolings(space, space.smallest())]  # at the lowest resolution
    least = min(layer.out_size for p in plans for block in p.blocks for layer in block.layers if layer.op == "norm")
    _require_variance(batch, least, least)


def _require_variance(batch: int, height: int, width: int) -> None:
    if batch * height * width == 1:
        raise ValueError(
            f"batch norm cannot train on a batch of {batch} image with features of {height}x{width} pixels: "
            "one value has no variance; a batch size of at least 2 for every subnet, or larger images, is needed"
        )


class ElasticBatchNorm2d(nn.Module):
    """Batch norm with elastic channels; affine vectors and running statistics exist once per level.

    The running statistics mix all subnets that passed through, so they are good for no single one of them:
    an exported subnet is recalibrated before it is scored.
    """

    running_mean: Tensor
    running_var: Tensor
    batch_norm: Callable[..., Tensor] = staticmethod(local_batch_norm)  # `distributed.synchronize` puts another here

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(levels, channels))
        self.bias = nn.Parameter(torch.zeros(levels, channels))
        self.register_buffer("running_mean", torch.zeros(levels, channels))
        self.register_buffer("running_var", torch.ones(levels, channels))

    def forward(self, x: Tensor, layer: Layer, level: int) -> Tensor:
        """[batch, layer.out_channels, H, W], normalised by the batch in training and by the statistics otherwise."""
        mean, var, weight, bias = (t[level, : layer.out_channels] for t in self._tensors())
        return self.batch_norm(x, mean, var, weight, bias, training=self.training)

    @torch.no_grad()
    def export_to(self, plain: nn.Module, layer: Layer, level: int) -> None:
        """Copies this level's vectors into an `nn.BatchNorm2d` of this layer's shape."""
        mean, var, weight, bias = (t[level, : layer.out_channels] for t in self._tensors())
        _copy(plain, weight=weight, bias=bias, running_mean=mean, running_var=var)

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.running_mean, self.running_var, self.weight, self.bias


class ElasticLinear(nn.Module):
    """Linear layer with elastic input width, shared by all levels."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        plain = nn.Linear(in_features, out_features)
        self.weight, self.bias = plain.weight, plain.bias

    def forward(self, x: Tensor, layer: Layer, level: int) -> Tensor:
        """[batch, layer.in_channels] → [batch, out_features]."""
        return F.linear(x, self.weight[:, : layer.in_channels], self.bias)

    @torch.no_grad()
    def export_to(self, plain: nn.Module, layer: Layer, level: int) -> None:
        """Copies the sliced weight and the bias into an `nn.Linear` of this layer's shape."""
        _copy(plain, weight=self.weight[:, : layer.in_channels], bias=self.bias)


def _copy(plain: nn.Module, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        getattr(plain, name).copy_(tensor)
