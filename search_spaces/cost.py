"""MACs and parameters of many architectures at once.

MACs are counted: one multiply-add is 1, over convolutions and the linear layer; FLOPs are 2 x MACs.
The figures come from tables that the plan's own block builders fill, one entry per (block slot, widths, kernel,
level), so a vectorised cost cannot differ from the cost of the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, overload

import numpy as np

from search_spaces import plan as planning
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace

METRICS = ("macs", "params")


class _Tables(NamedTuple):
    """Costs as int64 arrays, the last axis being (macs, params)."""

    stem: np.ndarray  # [width of stage 0]
    slots: list[np.ndarray]  # per slot [width before, width, kernel, level]
    head: np.ndarray  # [width of the last stage]


@lru_cache(maxsize=32)
def _tables(space: NetworkSpace) -> _Tables:
    def cost(block: planning.Block) -> tuple[int, int]:
        return block.macs, block.params

    levels = range(space.num_pools + 1)
    slots = []
    for slot, s in enumerate(space.stage_of):
        stage = space.stages[s]
        before = space.stages[s - 1].widths if s and slot == space.stage_slots(s)[0] else stage.widths
        table = [
            [[[cost(planning.residual(space, slot, b, w, k, lv, False)) for lv in levels] for k in stage.kernels]
             for w in stage.widths] for b in before
        ]  # fmt: skip
        slots.append(np.array(table, dtype=np.int64))
    stem = np.array([cost(planning.stem(space, w)) for w in space.stages[0].widths], dtype=np.int64)
    head = np.array([cost(planning.head(space, w, 0, 1)) for w in space.stages[-1].widths], dtype=np.int64)
    return _Tables(stem, slots, head)


def costs(space: NetworkSpace, archs: Sequence[Arch]) -> dict[str, np.ndarray]:
    """`macs` and `params` of canonical architectures, each int64 [len(archs)]."""
    if not len(archs):
        return {name: np.zeros(0, dtype=np.int64) for name in METRICS}
    tables = _tables(space)
    depth = np.array([arch.depth for arch in archs])
    width = np.array([arch.width for arch in archs])
    kernel = np.array([arch.kernel for arch in archs])
    pool = np.array([arch.pool for arch in archs]).reshape(len(archs), space.num_pools)
    width = np.stack([np.searchsorted(s.widths, width[:, i]) for i, s in enumerate(space.stages)], axis=1)
    total = tables.stem[width[:, 0]] + tables.head[width[:, -1]]
    for slot, s in enumerate(space.stage_of):
        stage, first = space.stages[s], space.stage_slots(s)[0]
        before = width[:, s - 1] if s and slot == first else width[:, s]
        k = np.searchsorted(stage.kernels, kernel[:, slot])
        level = (pool <= slot).sum(axis=1)
        active = depth[:, s] > slot - first
        total += tables.slots[slot][before, width[:, s], k, level] * active[:, None]
    return {name: total[:, i] for i, name in enumerate(METRICS)}


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
