"""Many architectures as arrays: which entry of a table of all blocks each slot has, and the sizes of its feature maps.

Tables that the plan's own block builder fills, one entry per (block slot, widths, kernel, expand), make costs of many
architectures that cannot differ from those of the plan.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from search_spaces import plan as planning
from search_spaces.arch import Arch
from search_spaces.blocks import Block, after_pool, after_stride
from search_spaces.network import NetworkSpace


class Entries(NamedTuple):
    """One entry for each choice of (slot, width before, width, kernel, expand), slot after slot.

    choices: the arguments of `plan.block` that make it, without level, pool and size. starts: the first of each slot,
    [slots]. sizes: how many choices each slot's four axes have, [slots, 4].
    """

    choices: tuple[tuple[int, int, int, int, float], ...]
    starts: np.ndarray
    sizes: np.ndarray

    def block(self, space: NetworkSpace, entry: int, pool: bool, size: int) -> Block:
        """The block of an entry, of no particular level, for features of `size` pixels a side."""
        return planning.block(space, *self.choices[entry], 0, pool, size)


class Batch(NamedTuple):
    """n architectures; sizes are pixels a side.

    entries: int64 [n, slots], also of inactive slots. active: bool [n, slots]. before, work: the size that enters each
    slot, and that after its pool, [n, slots]. resolution: of the images, [n]. stem: index of the stem's width, [n].
    last: index of the last stage's width, and last_size: the size that enters the head, [n].
    """

    entries: np.ndarray
    active: np.ndarray
    before: np.ndarray
    work: np.ndarray
    resolution: np.ndarray
    stem: np.ndarray
    last: np.ndarray
    last_size: np.ndarray


@lru_cache(maxsize=32)
def entries(space: NetworkSpace) -> Entries:
    """Every entry of a space."""
    axes = [
        (space.inputs(slot) or stage.widths, stage.widths, stage.kernels, space.expands_of(slot))
        for slot, stage in enumerate(space.stages[s] for s in space.stage_of)
    ]
    choices = [(slot, *choice) for slot, of_slot in enumerate(axes) for choice in itertools.product(*of_slot)]
    sizes = np.array([[len(axis) for axis in of_slot] for of_slot in axes])
    return Entries(tuple(choices), np.concatenate([[0], sizes.prod(axis=1).cumsum()[:-1]]), sizes)


def stem_widths(space: NetworkSpace) -> tuple[int, ...]:
    """The widths that the stem can have."""
    return (space.stem_width,) if space.stem_width else space.stages[0].widths


def batch(space: NetworkSpace, archs: Sequence[Arch]) -> Batch:
    """Canonical architectures, at least one, as arrays."""
    known, stage_of = entries(space), np.array(space.stage_of)
    first = [space.stage_slots(s)[0] for s in space.stage_of]
    widths = _ranks([arch.width for arch in archs], [stage.widths for stage in space.stages])
    kernel = _ranks([arch.kernel for arch in archs], [space.stages[s].kernels for s in space.stage_of])
    index = (_before(space, widths) * known.sizes[:, 1] + widths[:, stage_of]) * known.sizes[:, 2] + kernel
    if space.has_expand:
        ratios = [space.expands_of(slot) for slot in range(space.num_slots)]
        index = index * known.sizes[:, 3] + _ranks([arch.expand for arch in archs], ratios)
    resolution = np.array([arch.resolution for arch in archs])
    before, work, last_size = _sizes(space, archs, resolution)
    return Batch(
        entries=index + known.starts,
        active=np.array([arch.depth for arch in archs])[:, stage_of] > np.arange(space.num_slots) - first,
        before=before,
        work=work,
        resolution=resolution,
        stem=np.zeros_like(resolution) if space.stem_width else widths[:, 0],
        last=widths[:, -1],
        last_size=last_size,
    )


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


def _sizes(
    space: NetworkSpace, archs: Sequence[Arch], resolution: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels a side before each slot's pool and after it, [n, slots], and before the head, [n]."""
    pooled = np.zeros((space.num_slots, len(archs)), dtype=bool)
    if space.num_pools:
        pooled[np.array([arch.pool for arch in archs]).T, np.arange(len(archs))] = True
    size, before, work = planning.stem_size(space, resolution), [], []
    for slot in range(space.num_slots):
        before.append(size)
        if space.num_pools:
            size = np.where(pooled[slot], after_pool(size), size)
        work.append(size)
        size = after_stride(size, space.stride(slot))
    return np.stack(before, axis=1), np.stack(work, axis=1), size
