"""Noticing that a training has collapsed, from its losses alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

FAST, SLOW = 0.9, 0.99
SETTLE = 100  # steps before the slow average means anything
JUMP = 0.35  # of ln(classes), the loss at chance
MOST = 0.75  # of the way from the slow average up to chance: a collapse, though it began too near for a jump
LEAST, SIGMAS = 0.15, 4.0  # of chance, and of the fast average's own noise: what such a rise is at least
FEW = 10  # steps after which the fast average means anything
NEARLY = 0.995  # of chance: where a dead network's loss stays
WORST = 10.0  # times the loss at chance: a collapse, whatever was before


@dataclass
class SpikeDetector:
    """Compares a fast and a slow moving average of the loss: a collapse to chance (reported for AlphaNet) parts them.

    chance: the loss at chance, ln(number of classes). fast, slow: averages over about 10 and 100 steps. seen: losses.
    whose: what the losses are of. variance: of them about the slow average. reached: the best validated top-1.
    """

    chance: float
    fast: float = 0.0
    slow: float = 0.0
    seen: int = 0
    whose: str = ""
    variance: float = 0.0
    reached: float = 0.0

    def watch(self, whose: str) -> None:
        """Begins anew where the losses are of something else from now on: subnets never trained before start at chance,
        whatever the largest one has reached.
        """
        if whose != self.whose:
            self.whose, self.seen = whose, 0

    def concern(self, lr: float) -> str | None:
        """What to do about a training that ended no better than guessing; None for a better one."""
        if self.fast <= NEARLY * self.chance:
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
            self.fast, self.slow, self.variance = loss, loss, 0.0
        self.seen += 1
        self.variance = SLOW * self.variance + (1 - SLOW) * (loss - self.slow) ** 2
        self.fast = FAST * self.fast + (1 - FAST) * loss
        self.slow = SLOW * self.slow + (1 - SLOW) * loss
        if self.seen > FEW and self.fast > WORST * self.chance:
            return True
        return self.seen > SETTLE and (self._rise > JUMP * self.chance or self._is_back_at_chance())

    def is_calm(self) -> bool:
        """Whether the losses show no rise that could become a spike: a state to go back to."""
        return self.seen <= SETTLE or self._rise <= 2 * self._noise

    def is_lost(self, top1: float, guess: float, images: int) -> bool:
        """Takes in an epoch's validated top-1, of so many images; True when it is that of guessing and was far better.

        guess: the share of the commonest class, which is what a network that sees nothing gets.
        """
        noise = math.sqrt(guess * (1 - guess) / images)
        if top1 <= guess + noise and self.reached > guess + 10 * noise:
            return True
        self.reached = max(self.reached, top1)
        return False

    def _is_back_at_chance(self) -> bool:
        """From a loss just below chance no rise is a large one, so it counts by how much of the way it has gone."""
        way = self.chance - self.slow
        return way > 0 and self._rise > max(MOST * way, LEAST * self.chance, SIGMAS * self._noise)

    @property
    def _rise(self) -> float:
        return self.fast - self.slow

    @property
    def _noise(self) -> float:
        """The fast average's standard deviation, were the losses independent."""
        return math.sqrt(self.variance * (1 - FAST) / (1 + FAST))
