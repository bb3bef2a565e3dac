"""Sorting channels by importance, so that the slice that a narrower subnet keeps is the part that matters most.

Elastic layers keep their first channels. Before widths are opened, the channels of a trained network are reordered
(Once-for-All, Cai et al. 2020): the network computes what it did, and its narrow slices start from its best channels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from search_spaces.network import NetworkSpace
from search_spaces.plan import plan
from supernet.layers import ElasticBatchNorm2d
from supernet.model import Supernet

Axis = tuple[str, int]
"""A set of channels that several layers share: the stream of a stage, or one inside a block slot."""

# Per kind of block, which channels a layer reads and writes: "in" and "out" are streams, the others inside the block.
_FLOW: dict[str, dict[str, tuple[str, str]]] = {
    "stem": {"conv": ("", "out"), "bn": ("", "out")},
    "imagenet_stem": {"conv": ("", "out"), "bn": ("", "out")},
    "mobile_stem": {},
    "basic": {
        "conv1": ("in", "mid"), "bn1": ("", "mid"), "conv2": ("mid", "out"), "bn2": ("", "out"),
        "shortcut_conv": ("in", "out"), "shortcut_bn": ("", "out"),
    },
    "bottleneck": {
        "conv1": ("in", "mid"), "bn1": ("", "mid"), "conv2": ("mid", "mid2"), "bn2": ("", "mid2"),
        "conv3": ("mid2", "out"), "bn3": ("", "out"), "shortcut_conv": ("in", "out"), "shortcut_bn": ("", "out"),
    },
    "mbconv": {
        "expand_conv": ("in", "mid"), "bn1": ("", "mid"), "depthwise_conv": ("", "mid"), "bn2": ("", "mid"),
        "se_conv1": ("mid", "squeezed"), "se_conv2": ("squeezed", "mid"),
        "project_conv": ("mid", "out"), "bn3": ("", "out"),
    },
    "head": {"fc": ("in", "")},
    "mobile_head": {"final_conv": ("in", "")},
}  # fmt: skip


@dataclass(frozen=True)
class _Use:
    """One tensor dimension that runs along an axis; `reads` where it is a consumer's input."""

    tensor: Tensor
    dim: int
    reads: bool


@torch.no_grad()
def sort_channels(supernet: Supernet, optimizer: Optimizer | None = None, average: Supernet | None = None) -> None:
    """Puts the most important channels first, wherever the space has narrower choices.

    A channel's importance is the sum of absolute weights that read it. The largest subnet computes what it did, up to
    the rounding of sums in another order. optimizer: its momenta are reordered with the weights. average: averaged
    weights, reordered alike, since they go on being averaged with these.
    """
    followers = _axes(average) if average else {}
    for axis, uses in _axes(supernet).items():
        importance = torch.stack([_importance(use) for use in uses if use.reads]).sum(0)
        order = importance.argsort(descending=True, stable=True)
        for use in (*uses, *followers.get(axis, ())):
            for tensor in (use.tensor, *_moments(use.tensor, optimizer)):
                tensor.copy_(tensor.index_select(use.dim, order))


def _importance(use: _Use) -> Tensor:
    others = [dim for dim in range(use.tensor.ndim) if dim != use.dim]
    # in float64, so that the order of the channels before does not decide between ones that are nearly alike
    return use.tensor.abs().sum(others, dtype=torch.float64)


def _moments(tensor: Tensor, optimizer: Optimizer | None) -> Iterator[Tensor]:
    state = optimizer.state.get(tensor, {}) if optimizer else {}
    return (value for value in state.values() if isinstance(value, Tensor) and value.shape == tensor.shape)


def _axes(supernet: Supernet) -> dict[Axis, list[_Use]]:
    """Every axis that can be sorted, with all the tensors along it."""
    space = supernet.space
    found: dict[Axis, list[_Use]] = defaultdict(list)
    slots = [supernet.stem, *supernet.blocks, supernet.head]
    # deepest, so that every slot is there; where it pools does not matter
    for block, elastic in zip(plan(space, space.largest()).blocks, slots, strict=True):
        for name, (reads, writes) in _FLOW[block.kind].items():
            layer = getattr(elastic, name, None)
            if layer is None:
                continue  # a shortcut or squeeze-and-excitation that this block has not
            if (axis := _axis(space, block.slot, block.kind, reads)) is not None:
                found[axis].append(_Use(layer.weight, 1, True))
            if (axis := _axis(space, block.slot, block.kind, writes)) is not None:
                found[axis] += [_Use(tensor, dim, False) for tensor, dim in _outputs(layer)]
    return found


def _outputs(layer: nn.Module) -> Iterator[tuple[Tensor, int]]:
    dim = 1 if isinstance(layer, ElasticBatchNorm2d) else 0  # a norm's vectors are stacked by level
    names = ("weight", "bias", "running_mean", "running_var")
    return ((tensor, dim) for name in names if (tensor := getattr(layer, name, None)) is not None)


def _axis(space: NetworkSpace, slot: int, kind: str, end: str) -> Axis | None:
    """The axis at one end of a layer; None for a stream of one width, which an identity may tie to another stage's."""
    if not end:
        return None
    if end not in ("in", "out"):
        return end, slot
    stage_index = _stream(space, slot, kind, end)
    return ("stream", stage_index) if stage_index >= 0 and len(space.stages[stage_index].widths) > 1 else None


def _stream(space: NetworkSpace, slot: int, kind: str, end: str) -> int:
    """The stage whose width the stream has; -1 for a stem of fixed width."""
    if "head" in kind:
        return len(space.stages) - 1
    if "stem" in kind:
        return -1 if space.stem_width else 0
    stage = space.stage_of[slot]
    if end == "out" or slot != space.stage_slots(stage)[0]:
        return stage
    return stage - 1 if stage else (-1 if space.stem_width else 0)
