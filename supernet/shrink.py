"""How the choices open up while a supernet trains. A new schedule is a class here and one line in `SCHEDULES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from search_spaces.network import NetworkSpace

LearningRate = Callable[[int], float]


@dataclass(frozen=True)
class Phase:
    """What holds in one step.

    space: the choices open now, a part of the whole. largest_only: no other subnet is trained. beta: factor of the
    loss of all subnets but the largest. with_largest: that is trained beside what the step plan chooses.
    """

    name: str
    space: NetworkSpace
    largest_only: bool = False
    beta: float = 1.0
    with_largest: bool = False


class Schedule:
    """All choices from the first step on (BigNAS, Yu et al. 2020), and the interface of the others.

    space: all choices. total_steps: of the run. steps_per_epoch: of one pass over the images. learning_rate: at a step.
    """

    def __init__(
        self, space: NetworkSpace, total_steps: int, steps_per_epoch: int, learning_rate: LearningRate
    ) -> None:
        self.space, self.total_steps, self.steps_per_epoch = space, total_steps, steps_per_epoch
        self.learning_rate = learning_rate

    def phase(self, step: int) -> Phase:
        """The phase of a step."""
        return Phase("all", self.space)

    def sort_steps(self) -> tuple[int, ...]:
        """Steps before which the channels are sorted by importance."""
        return ()


class DelayedEpsilon(Schedule):
    """The largest alone for half of the run, then the others fade in (DepS, Annavajjala et al. 2024).

    At the switch the channels are sorted once. Over the ramp, five epochs or a tenth of the run where that is less, the
    other subnets' losses are scaled by beta_t = (fraction of the ramp)·lr(end of the ramp)/lr(t), from 0 to 1, and the
    largest is trained beside them, whatever the step plan. Scaling a loss is a learning rate of its own for plain SGD
    alone: an adaptive optimizer normalises it away.
    """

    DELAY = 0.5

    @property
    def full(self) -> int:
        """The step at which beta has reached 1."""
        return round(self.DELAY * self.total_steps)

    @property
    def start(self) -> int:
        """The step at which the other subnets begin."""
        return self.full - min(5 * self.steps_per_epoch, self.total_steps // 10)

    def phase(self, step: int) -> Phase:
        """The largest alone, the ramp, or everything."""
        if step < self.start:
            return Phase("largest", self.space, largest_only=True)
        if step >= self.full:
            return Phase("all", self.space)
        fraction = (step - self.start) / (self.full - self.start)
        beta = fraction * self.learning_rate(self.full) / self.learning_rate(step)
        return Phase("ramp", self.space, beta=beta, with_largest=True)

    def sort_steps(self) -> tuple[int, ...]:
        """Once, before the first smaller subnet is trained."""
        return (self.start,)


class Progressive(Schedule):
    """Largest alone, then elastic kernel, depth and width, each opened from the top (Once-for-All, Cai et al. 2020).

    The phases share one run and one learning-rate schedule, in the proportions of the paper's epochs. Depth and width
    open in two parts: first the upper choices, then all. Channels are sorted before widths open.
    """

    SHARES = (("largest", 0.31), ("kernel", 0.2), ("depth 1", 0.04), ("depth", 0.2), ("width 1", 0.04), ("width", 0.21))

    def phase(self, step: int) -> Phase:
        """The phase that the step's place in the run falls into."""
        name = self.SHARES[self._index(step)][0]
        return Phase(name, self._open(name), largest_only=name == "largest")

    def sort_steps(self) -> tuple[int, ...]:
        """The first step of the first phase that opens widths.

        Before the second one a sort would carry channels out of the slices that the first has trained.
        """
        return self._starts()[4:5]

    def _index(self, step: int) -> int:
        return max(i for i, start in enumerate(self._starts()) if step >= start)

    def _starts(self) -> tuple[int, ...]:
        shares = [share for _, share in self.SHARES]
        return tuple(round(sum(shares[:i]) * self.total_steps) for i in range(len(shares)))

    def _open(self, name: str) -> NetworkSpace:
        """The space with the choices that phase `name` and those before it open."""
        order = [phase for phase, _ in self.SHARES]
        reached = order.index(name)

        def choices(all_of: tuple, first: str, second: str | None = None) -> tuple:
            if reached < order.index(first):
                return all_of[-1:]
            return all_of[-2:] if second and reached < order.index(second) else all_of

        stages = tuple(
            replace(
                stage,
                kernels=choices(stage.kernels, "kernel"),
                depths=choices(stage.depths, "depth 1", "depth"),
                widths=choices(stage.widths, "width 1", "width"),
                expands=choices(stage.expands, "width 1", "width"),
            )
            for stage in self.space.stages
        )
        return replace(self.space, stages=stages)


SCHEDULES: dict[str, type[Schedule]] = {
    "none": Schedule,
    "delayed_epsilon": DelayedEpsilon,
    "progressive": Progressive,
}
