"""MACs, parameters and memory of many architectures at once.

MACs are counted: one multiply-add is 1, over convolutions and the linear layer; FLOPs are 2 x MACs.
The figures come from tables over the entries of `search_spaces.batch`. What scales with the pixels before and after a
block's stride is kept apart; the sizes of the feature maps are followed for each architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, overload

import numpy as np

from search_spaces import memory
from search_spaces import plan as planning
from search_spaces.arch import Arch
from search_spaces.batch import Batch, batch, entries, stem_widths
from search_spaces.blocks import Block, after_stride
from search_spaces.network import NetworkSpace

METRICS = ("macs", "params", "peak_memory", "weight_bytes")

_PROBE = 8  # pixels a side at which tables are filled: it, its half and 1 tell the three kinds of layer apart


class _Tables(NamedTuple):
    """Costs as int64 arrays; the last axis of the first three: parameters, MACs per pixel before and after a stride of
    2, other MACs, and numbers stored as weights.

    held: at each step of a block but its pool, the channels of the kinds of feature map, [steps, entries, kinds].
    entering: the channels of its input, [entries].
    """

    stem: np.ndarray  # [width of the stem]
    slots: np.ndarray  # [entries]
    head: np.ndarray  # [width of the last stage]
    held: np.ndarray
    entering: np.ndarray


def _entry(block: Block) -> tuple[int, ...]:
    at = dict.fromkeys((_PROBE, after_stride(_PROBE, 2), 1), 0)
    for layer in block.layers:
        at[layer.out_size] += layer.macs // layer.out_size**2
    return block.params, *at.values(), memory.weight_values(block)


def _filled(blocks: Sequence[Block]) -> np.ndarray:
    return np.array([_entry(block) for block in blocks], dtype=np.int64)


@lru_cache(maxsize=32)
def _tables(space: NetworkSpace) -> _Tables:
    known = entries(space)
    blocks = [known.block(space, entry, False, _PROBE) for entry in range(len(known.choices))]
    steps = [memory.steps(block) for block in blocks]
    held = np.zeros((max(map(len, steps)), len(blocks), len(memory.Held._fields)), dtype=np.int64)
    for entry, of_block in enumerate(steps):
        held[: len(of_block), entry] = of_block
    stems = [planning.stem(space, width, _PROBE) for width in stem_widths(space)]
    heads = [planning.head(space, width, 0, _PROBE) for width in space.stages[-1].widths]
    return _Tables(
        stem=_filled(stems),
        slots=_filled(blocks),
        head=_filled(heads),
        held=held,
        entering=np.array([block.in_channels for block in blocks], dtype=np.int64),
    )


def costs(space: NetworkSpace, archs: Sequence[Arch], metrics: Sequence[str] = METRICS) -> dict[str, np.ndarray]:
    """`macs`, `params`, `peak_memory` and `weight_bytes` of canonical architectures, each int64 [len(archs)].

    The last two are bytes in fp32, see `Plan`. metrics: those that are wanted.
    """
    if not len(archs):
        return {name: np.zeros(0, dtype=np.int64) for name in metrics}
    tables, many = _tables(space), batch(space, archs)
    slots = tables.slots[many.entries] * many.active[..., None]
    stem, head = tables.stem[many.stem], tables.head[many.last]

    def macs() -> np.ndarray:
        ends = _macs(stem, many.resolution) + _macs(head, many.last_size)
        return np.asarray(_macs(slots, many.work).sum(axis=1) + ends)

    compute: dict[str, Callable[[], np.ndarray]] = {
        "macs": macs,
        "params": lambda: slots[..., 0].sum(axis=1) + stem[..., 0] + head[..., 0],
        "peak_memory": lambda: memory.BYTES * _peaks(space, tables, many),
        "weight_bytes": lambda: memory.BYTES * (slots[..., 4].sum(axis=1) + stem[..., 4] + head[..., 4]),
    }
    return {name: compute[name]() for name in metrics}


def _macs(entry: np.ndarray, size: np.ndarray) -> np.ndarray:
    """MACs of table entries [..., 5] for inputs of `size` pixels a side."""
    return entry[..., 1] * size**2 + entry[..., 2] * after_stride(size, 2) ** 2 + entry[..., 3]


def _peaks(space: NetworkSpace, tables: _Tables, many: Batch) -> np.ndarray:
    """Most values held at once for one image, [n]."""
    before, work = many.before**2, many.work**2
    sizes = [after_stride(many.work[:, slot], space.stride(slot)) for slot in range(space.num_slots)]
    out = np.stack(sizes, axis=1) ** 2
    peak = np.where(work < before, tables.entering[many.entries] * (before + work), 0)  # where there is a pool
    for step in tables.held:
        held = memory.Held(*step[many.entries].transpose(2, 0, 1))
        peak = np.maximum(peak, held.work * work + held.out * out + held.pixel)
    first, last = stem_widths(space), space.stages[-1].widths
    stem = _end_peaks(many.stem, many.resolution, lambda w, size: planning.stem(space, first[w], size))
    head = _end_peaks(many.last, many.last_size, lambda w, size: planning.head(space, last[w], 0, size))
    return np.maximum.reduce([(peak * many.active).max(axis=1), stem, head])


def _end_peaks(width: np.ndarray, size: np.ndarray, build: Callable[[int, int], Block]) -> np.ndarray:
    """Most values held at once in the stem, or the head, [n]: one block for each index of a width and each size."""
    pairs, which = np.unique(np.stack([width, size], axis=1), axis=0, return_inverse=True)
    peaks = np.array([memory.peak_values(build(w, s)) for w, s in pairs.tolist()])
    return peaks[which.reshape(-1)]


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
        return int(costs(space, [archs], (name,))[name][0])
    return costs(space, archs, (name,))[name]
