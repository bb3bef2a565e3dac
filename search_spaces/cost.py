"""MACs and parameters of many architectures at once.

MACs are counted: one multiply-add is 1, over convolutions and the linear layer; FLOPs are 2 x MACs.
The figures come from tables that the plan's own block builders fill, one entry per (block slot, widths, kernel,
expand), so a vectorised cost cannot differ from the cost of the plan. An entry keeps apart what scales with the pixels
before and after the block's stride; the sizes of the feature maps are followed for each architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, overload

import numpy as np

from search_spaces import plan as planning
from search_spaces.arch import Arch
from search_spaces.blocks import Block, after_pool, after_stride
from search_spaces.network import NetworkSpace

METRICS = ("macs", "params")


_PROBE = 8  # pixels a side at which tables are filled: it, its half and 1 tell the three kinds of layer apart


class _Tables(NamedTuple):
    """Costs as int64 arrays; the last axis: parameters, MACs per pixel before and after a stride of 2, other MACs.

    slots: the tables [width before, width, kernel, expand] of all slots, flat, one after another. starts: where each
    begins. sizes: their shapes, [slots, 4].
    """

    stem: np.ndarray  # [width of the stem]
    slots: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    head: np.ndarray  # [width of the last stage]


def _entry(block: Block) -> tuple[int, ...]:
    at = dict.fromkeys((_PROBE, after_stride(_PROBE, 2), 1), 0)
    for layer in block.layers:
        at[layer.out_size] += layer.macs // layer.out_size**2
    return block.params, *at.values()


@lru_cache(maxsize=32)
def _tables(space: NetworkSpace) -> _Tables:
    slots = []
    for slot, s in enumerate(space.stage_of):
        stage = space.stages[s]
        table = [
            [[[_entry(planning.block(space, slot, b, w, k, e, 0, False, _PROBE)) for e in space.expands_of(slot)]
              for k in stage.kernels] for w in stage.widths] for b in space.inputs(slot) or stage.widths
        ]  # fmt: skip
        slots.append(np.array(table, dtype=np.int64))
    widths = (space.stem_width,) if space.stem_width else space.stages[0].widths
    stem = np.array([_entry(planning.stem(space, w, _PROBE)) for w in widths], dtype=np.int64)
    head = np.array([_entry(planning.head(space, w, 0, _PROBE)) for w in space.stages[-1].widths], dtype=np.int64)
    sizes = np.array([table.shape[:-1] for table in slots])
    starts = np.concatenate([[0], sizes.prod(axis=1).cumsum()[:-1]])
    return _Tables(stem, np.concatenate([table.reshape(-1, 4) for table in slots]), starts, sizes, head)


def costs(space: NetworkSpace, archs: Sequence[Arch]) -> dict[str, np.ndarray]:
    """`macs` and `params` of canonical architectures, each int64 [len(archs)]."""
    if not len(archs):
        return {name: np.zeros(0, dtype=np.int64) for name in METRICS}
    tables = _tables(space)
    stage_of, first = np.array(space.stage_of), [space.stage_slots(s)[0] for s in space.stage_of]
    widths = _ranks([arch.width for arch in archs], [stage.widths for stage in space.stages])
    kernel = _ranks([arch.kernel for arch in archs], [space.stages[s].kernels for s in space.stage_of])
    index = (_before(space, widths) * tables.sizes[:, 1] + widths[:, stage_of]) * tables.sizes[:, 2] + kernel
    if space.has_expand:
        ratios = [space.expands_of(slot) for slot in range(space.num_slots)]
        index = index * tables.sizes[:, 3] + _ranks([arch.expand for arch in archs], ratios)
    active = np.array([arch.depth for arch in archs])[:, stage_of] > np.arange(space.num_slots) - first
    slots = tables.slots[tables.starts + index] * active[..., None]

    resolution = np.array([arch.resolution for arch in archs])
    sizes = _sizes(space, archs, resolution)
    ends = [(tables.stem[0 if space.stem_width else widths[:, 0]], resolution), (tables.head[widths[:, -1]], sizes[-1])]
    params = slots[..., 0].sum(axis=1) + sum(entry[..., 0] for entry, _ in ends)
    macs = _macs(slots, sizes[:-1].T).sum(axis=1) + sum(_macs(entry, size) for entry, size in ends)
    return {"macs": macs, "params": params}


def _ranks(values: Sequence[Sequence[float]], choices: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Index of each value among its column's choices, int64 [n, columns]."""
    columns = np.array(values).T
    return np.stack([np.searchsorted(valid, column) for valid, column in zip(choices, columns)], axis=1)


def _before(space: NetworkSpace, widths: np.ndarray) -> np.ndarray:
    """Index of the width that enters each slot, [n, slots], from those of the stages [n, stages]."""
    entering = [s - 1 if s and slot == space.stage_slots(s)[0] else s for slot, s in enumerate(space.stage_of)]
    before = widths[:, entering]
    if space.stem_width:
        before[:, 0] = 0
    return before


def _sizes(space: NetworkSpace, archs: Sequence[Arch], resolution: np.ndarray) -> np.ndarray:
    """Pixels a side before each slot's stride, its pool done, and at last before the head: [slots + 1, n]."""
    pooled = np.zeros((space.num_slots, len(archs)), dtype=bool)
    if space.num_pools:
        pooled[np.array([arch.pool for arch in archs]).T, np.arange(len(archs))] = True
    size, sizes = planning.stem_size(space, resolution), []
    for slot in range(space.num_slots):
        if space.num_pools:
            size = np.where(pooled[slot], after_pool(size), size)
        sizes.append(size)
        size = after_stride(size, space.stride(slot))
    return np.stack([*sizes, size])


def _macs(entry: np.ndarray, size: np.ndarray) -> np.ndarray:
    """MACs of table entries [..., 4] for inputs of `size` pixels a side."""
    return entry[..., 1] * size**2 + entry[..., 2] * after_stride(size, 2) ** 2 + entry[..., 3]


@overload
def macs(space: NetworkSpace, archs: Arch) -> int: ...
@overload
def macs(space: NetworkSpace, archs: Sequence[Arch]) -> np.ndarray: ...
def macs(space: NetworkSpace, archs: Arch | Sequence[Arch]) -> int | np.ndarray:
    """Multiply-adds per image of one architecture (an int) or of many (int64 [n])."""
    return _metric(space, archs, "macs")


@overload
def params(space: NetworkSpace, archs: Arch) -> int: ...
@overload
def params(space: NetworkSpace, archs: Sequence[Arch]) -> np.ndarray: ...
def params(space: NetworkSpace, archs: Arch | Sequence[Arch]) -> int | np.ndarray:
    """Trainable parameters of one architecture (an int) or of many (int64 [n])."""
    return _metric(space, archs, "params")


def _metric(space: NetworkSpace, archs: Arch | Sequence[Arch], name: str) -> int | np.ndarray:
    if isinstance(archs, Arch):
        return int(costs(space, [archs])[name][0])
    return costs(space, archs)[name]
