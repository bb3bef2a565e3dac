"""Noticing that a training has collapsed, from its losses alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

FAST, SLOW = 0.9, 0.99
SETTLE = 100  # steps before the slow average means anything
JUMP = 0.35  # of ln(classes), the loss at chance
FEW = 10  # steps after which the fast average means anything
WORST = 10.0  # times the loss at chance: a collapse, whatever was before


@dataclass
class SpikeDetector:
    """Compares a fast and a slow moving average of the loss: a collapse to chance (reported for AlphaNet) parts them.

    chance: the loss at chance, ln(number of classes). fast, slow: averages over about 10 and 100 steps. seen: losses.
    whose: what the losses are of.
    """

    chance: float
    fast: float = 0.0
    slow: float = 0.0
    seen: int = 0
    whose: str = ""

    def watch(self, whose: str) -> None:
        """Begins anew where the losses are of something else from now on: subnets never trained before start at chance,
        whatever the largest one has reached.
        """
        if whose != self.whose:
            self.whose, self.seen = whose, 0

    def concern(self, lr: float) -> str | None:
        """What to do about a training that ended no better than guessing; None for a better one."""
        if self.fast <= self.chance:
            return None
        found = f"the loss ended at {self.fast:.3g}, no better than guessing ({self.chance:.3g}): start a new run with"
        was_short = self.seen <= SETTLE and self.fast < 2 * self.chance
        return f"{found} more epochs" if was_short else f"{found} a lower lr than {lr:g}"

    def is_spike(self, loss: float) -> bool:
        """Takes in the next step's loss; True when it is not finite, or the recent ones lie far above those before or
        above all sense.
        """
        if not math.isfinite(loss):
            return True
        if self.seen == 0:
            self.fast = self.slow = loss
        self.seen += 1
        self.fast = FAST * self.fast + (1 - FAST) * loss
        self.slow = SLOW * self.slow + (1 - SLOW) * loss
        if self.seen > FEW and self.fast > WORST * self.chance:
            return True
        return self.seen > SETTLE and self.fast > self.slow + JUMP * self.chance
