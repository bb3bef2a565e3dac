"""Canonical members of a network space: making one, and errors that name the gene and its valid values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from search_spaces.arch import Arch

if TYPE_CHECKING:
    from search_spaces.network import NetworkSpace


def canonical(space: NetworkSpace, arch: Arch) -> Arch:
    """`arch` with every gene that has no effect at its filler, see `NetworkSpace.canonical`."""
    active = space.active_slots(arch.depth)
    is_active = set(active)
    kernel = tuple(
        k if slot in is_active else space.stages[space.stage_of[slot]].kernels[0] for slot, k in enumerate(arch.kernel)
    )
    expand = tuple(
        # the space's own number, so that 6 and 6.0 have one key; a wrong one is for `validate` to name
        next((c for c in space.expands_of(slot) if c == e), e) if slot in is_active else space.expands_of(slot)[0]
        for slot, e in enumerate(arch.expand)
    )
    free = list(active)
    for wanted in sorted(arch.pool):
        if not free:
            break  # more pools than blocks: `validate` says so
        free.remove(next((slot for slot in free if slot >= wanted), free[-1]))
    pool = tuple(sorted(is_active - set(free)))
    return Arch(tuple(arch.depth), tuple(arch.width), kernel, pool, arch.resolution, expand)


def validate(space: NetworkSpace, arch: Arch) -> None:
    """Raises ValueError naming the gene, its value and the valid ones, when `arch` is not canonical in `space`."""
    kernels = [space.stages[s].kernels for s in space.stage_of]
    expands = [space.expands_of(slot) for slot in range(space.num_slots)]
    check_choices("depth", arch.depth, [s.depths for s in space.stages])
    check_choices("width", arch.width, [s.widths for s in space.stages])
    check_choices("kernel", arch.kernel, kernels)
    if space.has_expand:
        check_choices("expand", arch.expand, expands)
    elif arch.expand:
        raise ValueError(f"gene expand is {arch.expand}; space {space.name!r} has none")
    if arch.resolution not in space.resolution_choices:
        valid = ", ".join(map(str, space.resolution_choices))
        raise ValueError(f"gene resolution is {arch.resolution}; valid: {valid}")
    active = space.active_slots(arch.depth)
    if len(arch.pool) != space.num_pools or any(b <= a for a, b in itertools.pairwise(arch.pool)):
        raise ValueError(f"gene pool is {arch.pool}; valid: {space.num_pools} different slots, ascending")
    for slot in arch.pool:
        if slot not in active:
            raise ValueError(f"gene pool is {arch.pool}; valid slots at depth {arch.depth}: {active}")
    for slot in sorted(set(range(space.num_slots)) - set(active)):
        _check_filler("kernel", slot, arch.kernel, kernels)
        if arch.expand:
            _check_filler("expand", slot, arch.expand, expands)


def check_choices(gene: str, values: Sequence[float], choices: Sequence[tuple[float, ...]]) -> None:
    """Raises ValueError unless there is one value for each tuple of choices, and in it."""
    if len(values) != len(choices):
        raise ValueError(f"gene {gene} has {len(values)} entries {tuple(values)}; this space takes {len(choices)}")
    for i, (value, valid) in enumerate(zip(values, choices)):
        if value not in valid:
            raise ValueError(f"gene {gene}[{i}] is {value}; valid: {', '.join(map(str, valid))}")


def _check_filler(gene: str, slot: int, values: Sequence[float], choices: Sequence[tuple[float, ...]]) -> None:
    filler = choices[slot][0]
    if values[slot] != filler:
        raise ValueError(f"gene {gene}[{slot}] is {values[slot]}, but the slot is inactive; valid: {filler}")
