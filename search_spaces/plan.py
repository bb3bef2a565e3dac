"""An architecture lowered to its blocks: the only place where channels, strides, pooling and feature sizes are derived.

Cost, supernet, subnet, evaluator and export all read the `Plan`, so none of them can disagree about a shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from search_spaces import memory
from search_spaces.blocks import STEM_HALVINGS, Block, Layer, Size, after_pool, after_stride, mid_channels

if TYPE_CHECKING:
    from search_spaces.arch import Arch
    from search_spaces.network import NetworkSpace

__all__ = ["Block", "Layer", "Plan", "block", "head", "plan", "stem", "stem_size"]

# kernel size, stride and activation of each kind of stem's first convolution
_STEMS = {"stem": (3, 1, "relu"), "imagenet_stem": (7, 2, "relu"), "mobile_stem": (3, 2, "h_swish")}


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

    @cached_property
    def peak_memory(self) -> int:
        """The most bytes that the activations of one image take at once: see `search_spaces.memory`."""
        return memory.BYTES * max(memory.peak_values(block) for block in self.blocks)

    @cached_property
    def weight_bytes(self) -> int:
        """Size of the exported network's weights in fp32, the running statistics of its norms included."""
        return memory.BYTES * sum(memory.weight_values(block) for block in self.blocks)


def plan(space: NetworkSpace, arch: Arch) -> Plan:
    """Lowers `arch`. Raises ValueError naming the gene when `arch` is not a canonical member of `space`."""
    space.validate(arch)
    pools, level = set(arch.pool), 0
    blocks = [stem(space, space.stem_width or arch.width[0], arch.resolution)]
    for stage, depth in enumerate(arch.depth):
        for slot in space.stage_slots(stage)[:depth]:
            level += slot in pools
            expand = arch.expand[slot] if arch.expand else 1
            before, width, kernel = blocks[-1], arch.width[stage], arch.kernel[slot]
            blocks.append(
                block(space, slot, before.out_channels, width, kernel, expand, level, slot in pools, before.out_size)
            )
    blocks.append(head(space, blocks[-1].out_channels, level, blocks[-1].out_size))
    return Plan(space.in_channels, arch.resolution, space.num_classes, tuple(blocks))


def stem(space: NetworkSpace, width: int, resolution: int) -> Block:
    """What comes before the first slot.

    "stem": a 3x3 convolution at full resolution. "imagenet_stem": 7x7 with stride 2, then a 3x3 max-pool with stride 2
    (ResNet). "mobile_stem": 3x3 with stride 2, then a depthwise separable block with a shortcut (MobileNetV3).
    """
    kernel, stride, act = _STEMS[space.stem]
    return Block(
        space.stem, -1, space.in_channels, width, kernel, 0, False, False, resolution, stem_size(space, resolution),
        stride=stride, act=act,
    )  # fmt: skip


def stem_size(space: NetworkSpace, resolution: Size) -> Size:
    """Pixels a side that leave the stem."""
    for _ in range(STEM_HALVINGS[space.stem]):
        resolution = after_stride(resolution, 2)
    return resolution


def block(
    space: NetworkSpace,
    slot: int,
    in_channels: int,
    out_channels: int,
    kernel: int,
    expand: float,
    level: int,
    pool: bool,
    in_size: int,
) -> Block:
    """The block in `slot` for features of `in_size` pixels a side, after `level` poolings, its own included."""
    stage = space.stages[space.stage_of[slot]]
    stride = space.stride(slot)
    projects = space.projects(slot)
    return Block(
        stage.block,
        slot,
        in_channels,
        out_channels,
        kernel,
        level,
        pool,
        # an inverted bottleneck drops the shortcut where the shape changes, the others project it (BigNAS)
        project=projects and stage.block != "mbconv",
        in_size=in_size,
        out_size=after_stride(after_pool(in_size) if pool else in_size, stride),
        mid_channels=mid_channels(stage.block, in_channels, out_channels, expand),
        stride=stride,
        act=stage.act,
        se=stage.se,
        residual=stage.block != "mbconv" or not (projects or stride > 1),
    )


def head(space: NetworkSpace, width: int, level: int, size: int) -> Block:
    """Global average pooling and the classifier; "mobile_head" has a 1x1 convolution before and one after the pool."""
    mid, features = space.head_widths or (0, 0)
    act = "h_swish" if space.head == "mobile_head" else "relu"
    return Block(
        space.head, -1, width, space.num_classes, 1, level, False, False, size, 1,
        mid_channels=mid, act=act, features=features,
    )  # fmt: skip
