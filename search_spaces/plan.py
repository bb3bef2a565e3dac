"""An architecture lowered to its blocks: the only place where channels, pooling and feature-map sizes are derived.

Cost, supernet, subnet, evaluator and export all read the `Plan`, so none of them can disagree about a shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.arch import Arch
    from search_spaces.network import NetworkSpace


@dataclass(frozen=True)
class Layer:
    """One weighted operation of a block. Convolutions are dense, stride 1, 'same' padding and without bias.

    op: "conv", "norm" (batch norm) or "linear" (with bias).
    name: its attribute on the block's module.
    out_size: height and width of the output in pixels (1 for linear).
    """

    op: str
    name: str
    in_channels: int
    out_channels: int
    kernel: int
    out_size: int

    @property
    def params(self) -> int:
        """Trainable parameters: weights, biases, and the two affine vectors of a norm."""
        if self.op == "norm":
            return 2 * self.out_channels
        bias = self.out_channels if self.op == "linear" else 0
        return self.in_channels * self.out_channels * self.kernel**2 + bias

    @property
    def macs(self) -> int:
        """Multiply-adds for one image; norms, activations, pooling and biases count as nothing."""
        if self.op == "norm":
            return 0
        return self.in_channels * self.out_channels * self.kernel**2 * self.out_size**2


@dataclass(frozen=True)
class Block:
    """One step of the network.

    kind: "stem" (conv, norm, ReLU), "basic" (two convs with a shortcut) or "head" (average pool, linear).
    slot: which of the supernet's block slots holds the weights; -1 for stem and head.
    level: number of 2x2 max-pools before the block's first convolution, its own included.
    pool: whether a 2x2 max-pool precedes this block.
    project: whether the shortcut is a 1x1 convolution with a norm rather than the identity.
    in_size, out_size: height and width in pixels before the pool and after the block.
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

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The weighted layers in the order they run, a shortcut's last."""
        c_in, c_out, k, size = self.in_channels, self.out_channels, self.kernel, self.out_size
        if self.kind == "head":
            return (Layer("linear", "fc", c_in, c_out, 1, 1),)
        if self.kind == "stem":
            return (Layer("conv", "conv", c_in, c_out, k, size), Layer("norm", "bn", c_out, c_out, 1, size))
        layers = (
            Layer("conv", "conv1", c_in, c_out, k, size),
            Layer("norm", "bn1", c_out, c_out, 1, size),
            Layer("conv", "conv2", c_out, c_out, k, size),
            Layer("norm", "bn2", c_out, c_out, 1, size),
        )
        if not self.project:
            return layers
        shortcut = (
            Layer("conv", "shortcut_conv", c_in, c_out, 1, size),
            Layer("norm", "shortcut_bn", c_out, c_out, 1, size),
        )
        return layers + shortcut

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(layer.params for layer in self.layers)


@dataclass(frozen=True)
class Plan:
    """Stem, blocks and head of one architecture, in the order they run.

    in_channels, resolution: the network takes images [batch, in_channels, resolution, resolution].
    num_classes: it gives logits [batch, num_classes].
    """

    in_channels: int
    resolution: int
    num_classes: int
    blocks: tuple[Block, ...]

    @cached_property
    def macs(self) -> int:
        """Multiply-adds of the convolutions and the linear layer for one image; FLOPs are twice this."""
        return sum(block.macs for block in self.blocks)

    @cached_property
    def params(self) -> int:
        """Trainable parameters of the exported network."""
        return sum(block.params for block in self.blocks)


def plan(space: NetworkSpace, arch: Arch) -> Plan:
    """Lowers `arch`. Raises ValueError naming the gene when `arch` is not a canonical member of `space`."""
    space.validate(arch)
    pools, channels, level, size = set(arch.pool), arch.width[0], 0, arch.resolution
    blocks = [stem(space, channels)]
    for stage, depth in enumerate(arch.depth):
        for slot in space.stage_slots(stage)[:depth]:
            pool = slot in pools
            level += pool
            block = residual(space, slot, channels, arch.width[stage], arch.kernel[slot], level, pool)
            channels, size = block.out_channels, block.out_size
            blocks.append(block)
    blocks.append(head(space, channels, level, size))
    return Plan(space.in_channels, arch.resolution, space.num_classes, tuple(blocks))


def stem(space: NetworkSpace, width: int) -> Block:
    """The first convolution: as wide as the first stage, 3x3, at full resolution."""
    size = space.image_size
    return Block("stem", -1, space.in_channels, width, 3, 0, False, False, size, size)


def residual(
    space: NetworkSpace, slot: int, in_channels: int, out_channels: int, kernel: int, level: int, pool: bool
) -> Block:
    """The basic block in `slot`, after `level` poolings."""
    in_size, out_size = space.size_at(level - pool), space.size_at(level)
    project = space.projects(slot)
    return Block("basic", slot, in_channels, out_channels, kernel, level, pool, project, in_size, out_size)


def head(space: NetworkSpace, width: int, level: int, size: int) -> Block:
    """Global average pooling and the classifier."""
    return Block("head", -1, width, space.num_classes, 1, level, False, False, size, 1)
