"""Which subnets one optimizer step trains, and on which of its images.

A new step plan is a function here and one line in `STEP_PLANS`. Everything derives from (seed, step, index), so a
resumed run and every rank of a distributed one agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace

MOST_POOLINGS = 10_000  # pooling configurations that strict fairness deals one by one
_MATCHED_MIN, _DECK = 1 << 20, 1 << 21  # past the indices of a step's draws


@dataclass(frozen=True)
class StepSubnet:
    """One subnet of a step.

    role: "max" (the largest: learns from labels, teaches), "random" or "min". part: which of the step's equal parts
    of images it sees. scale: factor of its loss. member: the weight set it trains, see `supernet.mixture`.
    """

    arch: Arch
    role: str
    part: int = 0
    scale: float = 1.0
    member: int = 0


@dataclass(frozen=True)
class StepContext:
    """What a step plan chooses from.

    space: the choices of the current phase. draw: the sampler's `index`-th subnet of this step. matched_min: the
    sampler's smallest subnet for this step. num_random: sampled subnets a step.
    """

    space: NetworkSpace
    seed: int
    step: int
    num_random: int
    shared_pooling: bool
    draw: Callable[[int], Arch]
    matched_min: Callable[[np.random.Generator], Arch]


@dataclass(frozen=True)
class StepPlan:
    """subnets: those of a step. teaches: the first one is the largest and can teach the others.

    parts: what `num_random` divides: "" nothing, every subnet sees all images; "batch": the batch is split among
    the subnets; "step": a step takes one batch for each subnet. ignores: settings of the recipe that change nothing.
    """

    subnets: Callable[[StepContext], list[StepSubnet]]
    teaches: bool = False
    parts: str = ""
    ignores: tuple[str, ...] = ("max_pooling",)


def step_rng(seed: int, step: int, index: int) -> np.random.Generator:
    """The generator of the `index`-th draw in a step."""
    return np.random.default_rng(np.random.SeedSequence([seed, step, index]))


def sandwich(context: StepContext) -> list[StepSubnet]:
    """The largest subnet, `num_random` sampled ones, the smallest (BigNAS, Yu et al. 2020).

    The largest stands at the reference pooling, or with `shared_pooling` all stand at that of the step's first draw.
    """
    space = context.space
    middle = [context.draw(index) for index in range(context.num_random)]
    archs = [space.largest(), *middle, space.smallest()]
    if context.shared_pooling:
        archs = [space.with_pools(arch, context.draw(0).pool) for arch in archs]
    roles = ["max", *["random"] * len(middle), "min"]
    return [StepSubnet(arch, role) for arch, role in zip(archs, roles, strict=True)]


def largest_on(context: StepContext, parts: int) -> list[StepSubnet]:
    """The largest subnet on each of so many equal parts of the images, where pooling is shared at a drawn pooling: for
    the phases of a schedule.
    """
    arch = context.space.largest()
    if context.shared_pooling:
        arch = context.space.with_pools(arch, context.draw(0).pool)
    return [StepSubnet(arch, "max", part=part, scale=1 / parts) for part in range(parts)]


def single_path(context: StepContext) -> list[StepSubnet]:
    """One sampled subnet (Single Path One-Shot, Guo et al. 2020)."""
    return [StepSubnet(context.draw(0), "random")]


def one_each(context: StepContext) -> list[StepSubnet]:
    """`num_random` sampled subnets, each on images of its own, the gradients averaged.

    With a batch for each: accumulation over submodels (SortedNet, Valipour et al. 2023). With the batch split among
    them: multi-architectural sampling (ViT-ResNAS, Liao et al. 2021), by chunks, since masking would pay full cost.
    """
    n = context.num_random
    return [StepSubnet(context.draw(i), "random", part=i, scale=1 / n) for i in range(n)]


def matched_min(context: StepContext) -> list[StepSubnet]:
    """`num_random` sampled subnets and the smallest of their complexity level (ElasticViT, Tang et al. 2023)."""
    middle = [StepSubnet(context.draw(index), "random") for index in range(context.num_random)]
    smallest = context.matched_min(step_rng(context.seed, context.step, _MATCHED_MIN))
    return [*middle, StepSubnet(smallest, "min")]


def strict_fair(context: StepContext) -> list[StepSubnet]:
    """As many subnets as a gene has choices at most, in which every choice gets its turn (FairNAS, Chu et al. 2021).

    Every gene deals its choices from shuffled decks that run on through the steps, so after any number of subnets two
    choices of a gene differ by at most one update, and by two counted from where a schedule opens them, amid a deck;
    where all genes have equally many, each step trains each once. That is so for genes that every architecture uses:
    where depth is elastic, a kernel dealt to a block that is left out is a turn without an update, and pools dealt
    there move to the last blocks that are left.
    """
    space, seed = context.space, context.seed
    m = max(len(gene.choices) for gene in _free_genes(space))
    poolings = _poolings(space)
    subnets = []
    for i in range(context.step * m, (context.step + 1) * m):
        indices = [_deal(seed, g, i, len(gene.choices)) for g, gene in enumerate(space.genes)]
        arch = space.decode(indices)
        if poolings:
            arch = space.with_pools(arch, poolings[_deal(seed, len(space.genes), i, len(poolings))])
        subnets.append(StepSubnet(arch, "random"))
    return subnets


STEP_PLANS: dict[str, StepPlan] = {
    "sandwich": StepPlan(sandwich, teaches=True, ignores=()),
    "single_path": StepPlan(single_path, ignores=("max_pooling", "num_random")),
    "sorted": StepPlan(one_each, parts="step"),
    "chunked": StepPlan(one_each, parts="batch"),
    "matched_min": StepPlan(matched_min),
    "strict_fair": StepPlan(strict_fair, ignores=("max_pooling", "num_random", "sampler")),
}


def _free_genes(space: NetworkSpace) -> list:
    return [gene for gene in space.genes if not gene.name.startswith("pool")] or list(space.genes)


def _poolings(space: NetworkSpace) -> list[tuple[int, ...]]:
    """All pooling configurations, to be dealt as one gene; none where they are too many, then each pool is a gene."""
    if not space.num_pools or math.comb(space.num_slots, space.num_pools) > MOST_POOLINGS:
        return []
    return list(islice(combinations(range(space.num_slots), space.num_pools), MOST_POOLINGS))


def _deal(seed: int, gene: int, turn: int, choices: int) -> int:
    """The choice at `turn` of a gene that deals shuffled decks of its choices."""
    deck, place = divmod(turn, choices)
    rng = np.random.default_rng(np.random.SeedSequence([seed, _DECK + gene, deck]))
    return int(rng.permutation(choices)[place])
