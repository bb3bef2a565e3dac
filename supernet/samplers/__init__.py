"""Which random subnets a training step trains. Needs no torch.

A new sampler is one file and one line in `SAMPLERS`; the contract tests pick it up.
"""

from __future__ import annotations

from supernet.samplers.adjacent_band import AdjacentBand
from supernet.samplers.base import Probe, Probes, Sampler
from supernet.samplers.best_up import BestUp
from supernet.samplers.macs_binned import MacsBinned
from supernet.samplers.macs_weighted import MacsWeighted
from supernet.samplers.pool_weighted import PoolWeighted
from supernet.samplers.shifted import Shifted
from supernet.samplers.uniform import Uniform
from supernet.samplers.worst_up import WorstUp

SAMPLERS: dict[str, type[Sampler]] = {
    "uniform": Uniform,
    "macs_weighted": MacsWeighted,
    "pool_weighted": PoolWeighted,
    "macs_binned": MacsBinned,
    "best_up": BestUp,
    "worst_up": WorstUp,
    "adjacent_band": AdjacentBand,
    "shifted": Shifted,
}

__all__ = ["SAMPLERS", "Probe", "Probes", "Sampler"]
