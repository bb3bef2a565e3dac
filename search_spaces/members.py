"""Members of a network space: how many, one after another, the dearest of a kind, and as features for predictors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from search_spaces.arch import Arch
from search_spaces.plan import plan

if TYPE_CHECKING:
    from search_spaces.network import NetworkSpace


def count(space: NetworkSpace) -> int:
    """Number of canonical architectures: over all depths, the choices of active blocks times the pool subsets."""
    total = 0
    for depth in itertools.product(*(s.depths for s in space.stages)):
        blocks = math.prod((len(s.kernels) * max(len(s.expands), 1)) ** d for s, d in zip(space.stages, depth))
        total += blocks * math.comb(sum(depth), space.num_pools)
    return total * math.prod(len(s.widths) for s in space.stages) * len(space.resolution_choices)


def listing(space: NetworkSpace) -> Iterator[Arch]:
    """By depth, then width, kernels, pools, expand ratios and resolution."""
    for depth in itertools.product(*(s.depths for s in space.stages)):
        active = space.active_slots(depth)
        every = [(space.stages[s].kernels, space.expands_of(slot)) for slot, s in enumerate(space.stage_of)]
        kernels = [k if slot in active else k[:1] for slot, (k, _) in enumerate(every)]
        expands = [e if slot in active else e[:1] for slot, (_, e) in enumerate(every) if space.has_expand]
        rest = (*(s.widths for s in space.stages), *kernels)
        for values in itertools.product(*rest):
            width, kernel = values[: len(depth)], values[len(depth) :]
            for pool in itertools.combinations(active, space.num_pools):
                for expand in itertools.product(*expands):
                    for resolution in space.resolution_choices:
                        yield Arch(depth, width, kernel, pool, resolution, expand)


def pooled_dearest(space: NetworkSpace, arch: Arch) -> Arch:
    """`arch` with its pools where it has the most MACs.

    A pool that moves back makes each block between dearer, but not for certain past a stride: 14 pixels, say, become 4
    by a pool, which rounds down, and then a stride, which rounds up, and 3 the other way. So each of `latest_poolings`
    is compared.
    """
    archs = latest_poolings(space, arch)
    return archs[0] if len(archs) == 1 else max(archs, key=lambda a: (plan(space, a).macs, a.pool))


def latest_poolings(space: NetworkSpace, arch: Arch) -> list[Arch]:
    """`arch` with each way to share its pools out among the runs of blocks between strides, as late in a run as can be.

    The size of the last features depends on these shares alone.
    """
    runs: list[list[int]] = [[]]
    for slot in space.active_slots(arch.depth):
        runs[-1].append(slot)  # a pool before a block comes before its stride
        if space.stride(slot) > 1:
            runs.append([])
    shares = itertools.combinations_with_replacement(range(len(runs)), space.num_pools)
    counts = [[share.count(run) for run in range(len(runs))] for share in shares]
    pools = [
        [slot for run, n in zip(runs, count) for slot in run[len(run) - n :]]
        for count in counts
        if all(n <= len(run) for run, n in zip(runs, count))
    ]
    return [replace(arch, pool=tuple(pool)) for pool in pools]


def features(space: NetworkSpace, arch: Arch) -> np.ndarray:
    """Ranks of depth, width and active kernels, each slot's pooling level, ranks of expand and resolution.

    All in [0, 1]; kernel and expand are 0 where inactive; the last two are there where the space has them.
    """
    active = set(space.active_slots(arch.depth))
    ranks = [s.depths.index(d) / max(len(s.depths) - 1, 1) for s, d in zip(space.stages, arch.depth)]
    ranks += [s.widths.index(w) / max(len(s.widths) - 1, 1) for s, w in zip(space.stages, arch.width)]
    for slot, s in enumerate(space.stage_of):
        choices = space.stages[s].kernels
        ranks.append((choices.index(arch.kernel[slot]) + 1) / len(choices) if slot in active else 0.0)
    ranks += [sum(p <= slot for p in arch.pool) / max(space.num_pools, 1) for slot in range(space.num_slots)]
    for slot, expand in enumerate(arch.expand):
        ratios = space.expands_of(slot)
        ranks.append((ratios.index(expand) + 1) / len(ratios) if slot in active else 0.0)
    if len(space.resolutions) > 1:
        ranks.append(space.resolutions.index(arch.resolution) / (len(space.resolutions) - 1))
    return np.array(ranks)
