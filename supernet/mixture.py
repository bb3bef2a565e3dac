"""A balanced mixture of supernets: several weight sets, and a router that gives each pooling configuration to one.

A weight set that serves every pooling configuration serves blocks at scales that pull it apart. Members that come to
specialise interfere less (Balanced Mixture of SuperNets, Javan et al. 2023). Routing looks at the pooling alone: all
other choices stay slices within a member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.model import Supernet
from supernet.recipe import TrainConfig
from supernet.steps import StepSubnet, step_rng
from supernet.subnet import Subnet

Pool = tuple[int, ...]
"""A pooling configuration: `Arch.pool`."""

Accuracy = Callable[[Supernet, Arch], float]
"""Top-1, 0 to 1, of an architecture with a member's weights on held-out images; equal on every rank."""

MOST_ROWS = 1000  # of a router: each is a moving average over the steps that meet it, and needs dozens
MOST_ROUNDS = 1000  # of balancing: random accuracies take under 50 at every temperature, even beside a useless member
TOLERANCE = 1e-4  # nats of KL(marginal || uniform)
DECAY = 0.9  # of a measured accuracy, each time its configuration and member are measured again
HOTTEST = 100.0  # the last step's temperature; the first one's is 1
_ROUTE = 1 << 23  # past the indices of a step's other draws


class Router(nn.Module):
    """Which member serves a pooling configuration: P(member | configuration) from measured accuracies.

    A configuration is the slots that pools precede, `Arch.pool` of a canonical architecture. They fix the level of
    every block, so one row serves all depths. Where a space has more than `MOST_ROWS` of them, slots are told apart
    only by the run of neighbours that they fall into, of the shortest length that leaves no more rows than that:
    configurations that differ little share a row, and every row is still met often enough to mean something.
    Its state is in buffers, hence in every state dict, checkpoint and hash of the weights:

    accuracy: W, float64 [rows, members]; 1 until measured, so that a member never tried is tried.
    seen: bool [rows], the configurations trained so far, over which the members are balanced.
    temperature: T, float64 [].
    """

    accuracy: Tensor
    seen: Tensor
    temperature: Tensor

    def __init__(self, space: NetworkSpace, members: int) -> None:
        super().__init__()
        self._run = next(run for run in range(1, space.num_slots + 1) if _num_rows(space, run) <= MOST_ROWS)
        places = combinations_with_replacement(range(_num_runs(space, self._run)), space.num_pools)
        self._rows = {configuration: row for row, configuration in enumerate(places)}
        self.register_buffer("accuracy", torch.ones(len(self._rows), members, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(len(self._rows), dtype=torch.bool))
        self.register_buffer("temperature", torch.ones((), dtype=torch.float64))

    def probabilities(self, pools: Sequence[Pool]) -> Tensor:
        """P(member | configuration), float64 [len(pools), members] on the CPU; rows sum to 1.

        A softmax of T·W, balanced: averaged over the configurations seen, every member has nearly the same share.
        """
        scores = (self.temperature * self.accuracy).cpu()
        return torch.softmax(scores[[self.row(pool) for pool in pools]] + balance(scores[self.seen.cpu()]), dim=1)

    def best(self, pool: Pool) -> int:
        """The most probable member; the first of equals."""
        return int(self.probabilities([pool])[0].argmax())

    def open(self, pools: Sequence[Pool], progress: float) -> None:
        """Counts the configurations among those seen, and sets the temperature; progress: of the run, 0 to 1."""
        self.seen[[self.row(pool) for pool in pools]] = True
        self.temperature.fill_(1 + (HOTTEST - 1) * progress)

    def update(self, pool: Pool, member: int, accuracy: float) -> None:
        """Takes in a measured top-1, 0 to 1."""
        self.accuracy[self.row(pool), member].mul_(DECAY).add_((1 - DECAY) * accuracy)

    def row(self, pool: Pool) -> int:
        """The configuration's row in the tables."""
        return self._rows[tuple(slot // self._run for slot in pool)]


class Mixture(nn.Module):
    """`members` supernets of one space, each with weights of its own, behind the interface of one `Supernet`.

    Raises ValueError naming the space when it has no pooling positions to route on, or fewer than members.
    """

    def __init__(self, space: NetworkSpace, members: int) -> None:
        if not space.num_pools:
            raise ValueError(f"members is {members}: a mixture on a space without pooling positions, {space.name!r}")
        # the rows of a router include pools at one place, which the runs of neighbours that it tells apart may hold
        most = min(len(Router(space, members).seen), math.comb(space.num_slots, space.num_pools))
        if members > most:
            raise ValueError(f"members is {members}; space {space.name!r} has {most} pooling configurations to route")
        super().__init__()
        self.space = space
        self.members = nn.ModuleList(Supernet(space) for _ in range(members))
        self.router = Router(space, members)

    def forward(self, x: Tensor, arch: Arch, **options: Any) -> Tensor:
        """`Supernet.forward` of the member that the router gives `arch` to; options are passed on to it.

        Raises ValueError naming the gene when `arch` is not of this space.
        """
        return self.member_of(arch)(x, arch, **options)

    def export(self, arch: Arch) -> Subnet:
        """`Supernet.export` of the member that the router gives `arch` to."""
        return self.member_of(arch).export(arch)

    def member_of(self, arch: Arch) -> Supernet:
        """The member with the highest P(member | pooling of `arch`). Raises as `forward` does."""
        self.space.validate(arch)
        return cast(Supernet, self.members[self.router.best(arch.pool)])


SharedWeights = Supernet | Mixture


def make_supernet(space: NetworkSpace, members: int) -> SharedWeights:
    """New weights for `space`: a plain `Supernet` for one member, a `Mixture` for more, which raises its errors."""
    return Mixture(space, members) if members > 1 else Supernet(space)


def members_of(weights: SharedWeights) -> list[Supernet]:
    """The supernets of a mixture, or the one that a plain supernet is."""
    return cast(list[Supernet], list(weights.members)) if isinstance(weights, Mixture) else [weights]


class Routing:
    """Which member each subnet of a training step trains, and what the router learns from it.

    With a plain `Supernet` there is one member and nothing to learn. Draws derive from (seed, step, index), so a
    resumed run and every rank agree. A step's largest subnet teaches the others, so its pooling routes them all; the
    subnets of a step without one are routed by their own. (Where depth is elastic, a shallow student's pools may have
    moved to blocks that it has: it still learns from, and trains, the member of its teacher.)
    Raises ValueError when `supernet` has not the recipe's number of members.
    """

    def __init__(self, supernet: SharedWeights, config: TrainConfig, total_steps: int) -> None:
        self._router = supernet.router if isinstance(supernet, Mixture) else None
        self.members = members_of(supernet)
        if len(self.members) != config.members:
            raise ValueError(f"members is {config.members}, but the supernet has {len(self.members)}")
        self._space, self._seed, self._total_steps = supernet.space, config.seed, total_steps

    def begin_step(self, step: int, subnets: list[StepSubnet]) -> list[StepSubnet]:
        """The subnets with the members that train them, drawn from P(member | configuration)."""
        if self._router is None:
            return subnets
        pools = _deciding(subnets)
        self._router.open(pools, step / max(1, self._total_steps - 1))
        indices = [0] * len(subnets) if _is_led(subnets) else range(len(subnets))
        routed = []
        for subnet, index, row in zip(subnets, indices, self._router.probabilities(pools).numpy(), strict=True):
            member = step_rng(self._seed, step, _ROUTE + index).choice(len(self.members), p=row)
            routed.append(replace(subnet, member=int(member)))
        return routed

    def end_step(self, subnets: list[StepSubnet], accuracy: Accuracy) -> None:
        """Measures the members just trained at the configurations that they were trained for.

        It is the largest subnet there that is scored: what the router compares then differs in the member alone, not
        in the sizes that happened to be drawn.
        """
        if self._router is None:
            return
        trained = zip(_deciding(subnets), (subnet.member for subnet in subnets), strict=True)
        for pool, member in dict.fromkeys(trained):
            arch = self._space.with_pools(self._space.largest(), pool)
            self._router.update(pool, member, accuracy(self.members[member], arch))


def balance(scores: Tensor) -> Tensor:
    """What to add to each member's score so that the members' mean probabilities are equal, float64 [members].

    scores: logits of P(member | configuration), float64 [configurations, members]. Sinkhorn's iteration in logarithms:
    divide each column by its marginal, renormalise the rows, until KL(marginal || uniform) is below `TOLERANCE` nats.
    """
    configurations, members = scores.shape
    shift = scores.new_zeros(members)
    for _ in range(MOST_ROUNDS if configurations else 0):
        marginal = torch.log_softmax(scores + shift, dim=1).logsumexp(dim=0) - math.log(configurations)
        if (marginal.exp() * (marginal + math.log(members))).sum() < TOLERANCE:
            break
        shift = shift - marginal
    return shift


def _is_led(subnets: Sequence[StepSubnet]) -> bool:
    return subnets[0].role == "max"


def _deciding(subnets: Sequence[StepSubnet]) -> list[Pool]:
    """The configuration that decides on the member of each subnet."""
    return [(subnets[0] if _is_led(subnets) else subnet).arch.pool for subnet in subnets]


def _num_runs(space: NetworkSpace, run: int) -> int:
    return math.ceil(space.num_slots / run)


def _num_rows(space: NetworkSpace, run: int) -> int:
    """Ways to spread the pools over the runs of `run` slots, several in one included."""
    return math.comb(_num_runs(space, run) + space.num_pools - 1, space.num_pools)
