"""Draws in proportion to MACs, by rejection."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace

TRIES = 16  # candidates costed at once


def in_proportion_to_macs(
    space: NetworkSpace, rng: np.random.Generator, propose: Callable[[], Arch], dearest: Arch
) -> Arch:
    """One of what `propose` draws by `rng`, kept with a probability proportional to its MACs.

    dearest: none proposed has more MACs. Exact, in as many tries as `dearest` has times the mean MACs.
    """
    most = int(cost.macs(space, [dearest])[0])
    while True:
        archs = [propose() for _ in range(TRIES)]
        kept = rng.random(TRIES) * most < cost.macs(space, archs)
        if kept.any():
            return archs[int(kept.argmax())]
