"""A device that takes as long as a formula says, and profiles of it: latencies without a clock."""

from __future__ import annotations

from typing import Any

import numpy as np

from nas.profiles import Profile
from nas.profiling import Measured
from search_spaces.arch import Arch
from search_spaces.block_index import signature
from search_spaces.blocks import Block
from search_spaces.network import NetworkSpace
from search_spaces.plan import plan
from workers.latency import Setting, Timing, identity

CALL_MS = 0.2  # paid by every block that is measured alone, and by a network once


def block_ms(block: Block) -> float:
    return CALL_MS + 0.01 * len(block.layers) + 1e-7 * block.macs


def network_ms(space: NetworkSpace, arch: Arch) -> float:
    return CALL_MS + sum(block_ms(block) - CALL_MS for block in plan(space, arch).blocks)


def timing(ms: float) -> Timing:
    return Timing(ms, ms, 0.0, 10, 0)


def measured(space: NetworkSpace, n: int = 60, seed: int = 0) -> Measured:
    rng = np.random.default_rng(seed)
    archs = list({arch.key: arch for arch in (space.sample(rng) for _ in range(n))}.values())
    blocks = {signature(block) for arch in archs for block in plan(space, arch).blocks}
    return Measured(
        {block: timing(block_ms(block)) for block in blocks},
        [(arch, timing(network_ms(space, arch))) for arch in archs],
    )


def profile(space: NetworkSpace, name: str = "cpu", **device: Any) -> Profile:
    """Of this machine, but for what `device` says."""
    return Profile.of(name, space, identity(Setting()) | device, measured(space))
