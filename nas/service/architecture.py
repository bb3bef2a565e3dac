"""An architecture in plain JSON types: its blocks, their sizes and costs, and how it differs from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.plan import Block, plan


def describe(space: NetworkSpace, genes: Mapping[str, Any]) -> dict[str, Any]:
    """What an architecture is made of. Raises ValueError naming the gene for what is none of the space.

    macs, params, and in bytes peak_memory and weight_bytes. blocks: stem, blocks and head in the order they run; each
    has its `stage` (None of stem and head), channels, `kernel`, whether it pools first (`pool`), pixels a side
    (`in_size`, `out_size`), `macs` and `params`. stages: `depth` and `width` of each.
    """
    arch = space.arch_from_dict(genes)
    lowered = plan(space, arch)
    return {
        "key": arch.key,
        "arch": arch.to_dict(),
        "resolution": arch.resolution,
        "macs": lowered.macs,
        "params": lowered.params,
        "peak_memory": lowered.peak_memory,
        "weight_bytes": lowered.weight_bytes,
        "stages": [{"depth": depth, "width": width} for depth, width in zip(arch.depth, arch.width, strict=True)],
        "blocks": [_block(space, block) for block in lowered.blocks],
    }


def _block(space: NetworkSpace, block: Block) -> dict[str, Any]:
    return {
        "kind": block.kind,
        "slot": block.slot,
        "stage": None if block.slot < 0 else space.stage_of[block.slot],
        "in_channels": block.in_channels,
        "mid_channels": block.mid_channels,
        "out_channels": block.out_channels,
        "kernel": block.kernel,
        "stride": block.stride,
        "pool": block.pool,
        "in_size": block.in_size,
        "out_size": block.out_size,
        "macs": block.macs,
        "params": block.params,
    }


def difference(space: NetworkSpace, genes: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The genes in which two architectures differ, by name: the value here and the value there.

    A gene that has no effect in one of them, such as the kernel of a block beyond its depth, is left out there: None.
    """
    here, there = (_active(space, space.arch_from_dict(data)) for data in (genes, others))
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return {name: [here.get(name), there.get(name)] for name in names}


def _active(space: NetworkSpace, arch: Arch) -> dict[str, Any]:
    active = space.active_slots(arch.depth)
    genes: dict[str, Any] = {"resolution": arch.resolution}
    genes |= {f"depth of stage {i + 1}": depth for i, depth in enumerate(arch.depth)}
    genes |= {f"width of stage {i + 1}": width for i, width in enumerate(arch.width)}
    genes |= {f"kernel of block {slot + 1}": arch.kernel[slot] for slot in active}
    if arch.expand:
        genes |= {f"expand of block {slot + 1}": arch.expand[slot] for slot in active}
    return genes | {"pools before blocks": [slot + 1 for slot in arch.pool]}
