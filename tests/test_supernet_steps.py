"""Step plans and shrink schedules: which subnets a step trains, and when choices open up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from search_spaces import catalog
from supernet.optim import learning_rate
from supernet.recipe import TrainConfig
from supernet.shrink import SCHEDULES, DelayedEpsilon, Progressive
from supernet.steps import STEP_PLANS, StepContext, step_rng

POOLED = catalog.get("resnet_cifar")


def context(space=POOLED, seed=1, step=5, num_random=3, shared=False):
    return StepContext(
        space, seed, step, num_random, shared,
        draw=lambda index: space.sample(step_rng(seed, step, index)), matched_min=lambda rng: space.smallest(),
    )  # fmt: skip


@pytest.mark.parametrize("name", STEP_PLANS)
def test_a_step_derives_from_seed_and_step_and_trains_valid_subnets(name):
    plan = STEP_PLANS[name]
    step = plan.subnets(context())
    for subnet in step:
        POOLED.validate(subnet.arch)
        assert subnet.role in ("max", "random", "min")
    assert step == plan.subnets(context())
    assert step != plan.subnets(context(step=6))
    assert step != plan.subnets(context(seed=2))
    assert plan.teaches == (step[0].role == "max")


@pytest.mark.parametrize("name", STEP_PLANS)
def test_what_a_plan_says_it_ignores_changes_nothing_and_all_else_does(name):
    other_draws = replace(context(), draw=lambda index: POOLED.sample(step_rng(7, 5, index)))
    changed = {"max_pooling": context(shared=True), "num_random": context(num_random=4), "sampler": other_draws}
    plan = STEP_PLANS[name]
    same = {setting for setting, other in changed.items() if plan.subnets(other) == plan.subnets(context())}
    assert same == set(plan.ignores)


def test_the_sandwich_is_the_largest_sampled_ones_and_the_smallest():
    step = STEP_PLANS["sandwich"].subnets(context())
    assert [s.role for s in step] == ["max", "random", "random", "random", "min"]
    assert (step[0].arch, step[-1].arch) == (POOLED.largest(), POOLED.smallest())
    # the draws of a step do not depend on how many there are, nor on one another
    assert step[1:3] == STEP_PLANS["sandwich"].subnets(context(num_random=2))[1:3]
    assert step_rng(1, 5, 0).random() != step_rng(1, 5, 1).random()


def test_with_shared_pooling_teacher_and_students_pool_where_the_first_draw_does():
    for step in range(20):
        subnets = STEP_PLANS["sandwich"].subnets(context(step=step, shared=True))
        pools = subnets[1].arch.pool
        assert pools == context(step=step).draw(0).pool
        for subnet in subnets:
            # a shallower net has fewer slots: a pool moves to the nearest there is
            assert subnet.arch == POOLED.with_pools(subnet.arch, pools)


def test_one_subnet_each_part_with_gradients_averaged():
    for name, parts in (("sorted", "step"), ("chunked", "batch")):
        step = STEP_PLANS[name].subnets(context(num_random=4))
        assert STEP_PLANS[name].parts == parts
        assert [s.part for s in step] == [0, 1, 2, 3]
        assert sum(s.scale for s in step) == 1
    # one subnet a step is plain random sampling
    alone, single = (STEP_PLANS[name].subnets(context(num_random=1)) for name in ("sorted", "single_path"))
    assert alone == single


def test_sorted_takes_a_batch_for_each_submodel():
    assert TrainConfig(step_plan="sorted", num_random=3, batch_size=32).images_per_step == 96
    assert TrainConfig(step_plan="chunked", num_random=4, batch_size=32).images_per_step == 32


def test_strict_fairness_gives_every_choice_of_a_gene_the_same_number_of_updates():
    """Kernels have 3 choices, widths 3, depths 4: 4 subnets a step, so after 3 steps each choice had 4 or 3 turns."""
    space = replace(POOLED, stages=tuple(replace(s, depths=s.depths[-1:]) for s in POOLED.stages))
    archs = [s.arch for step in range(30) for s in STEP_PLANS["strict_fair"].subnets(context(space, step=step))]
    for gene in range(space.num_slots):
        counts = Counter(arch.kernel[gene] for arch in archs)
        assert set(counts) == {3, 5, 7}
        assert max(counts.values()) - min(counts.values()) <= 1
    for stage in range(3):
        counts = Counter(arch.width[stage] for arch in archs)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_strict_fairness_deals_every_pooling_configuration_once_a_round():
    space = catalog.get("resnet20_pooling")
    archs = [s.arch for step in range(36) for s in STEP_PLANS["strict_fair"].subnets(context(space, step=step))]
    counts = Counter(arch.pool for arch in archs)
    assert len(counts) == 36
    assert max(counts.values()) - min(counts.values()) <= 1


# Schedules


def schedule(name, space=POOLED, total=2000, per_epoch=100, config=None):
    config = config or TrainConfig(epochs=20)
    return SCHEDULES[name](space, total, per_epoch, lambda step: learning_rate(config, step, total))


@pytest.mark.parametrize(
    ("name", "total"),
    [(name, total) for name in SCHEDULES for total in (1, 2, 7, 2000) if total > 2 or name != "progressive"],
)
def test_every_schedule_ends_with_all_choices_at_full_strength(name, total):
    """The six phases of `progressive` do not fit into two steps."""
    made = schedule(name, total=total)
    last = made.phase(total - 1)
    assert not last.largest_only
    assert last.beta == 1
    assert last.space == POOLED
    for step in range(0, total, max(1, total // 50)):
        phase = made.phase(step)
        POOLED.validate(POOLED.canonical(phase.space.sample(np.random.default_rng(0))))


def test_delayed_epsilon_trains_the_largest_alone_then_ramps_beta_from_0_to_1():
    made = schedule("delayed_epsilon")
    assert isinstance(made, DelayedEpsilon)
    full, start = made.full, made.start
    assert (start, full) == (800, 1000)  # a tenth of the run before its half
    assert all(made.phase(step).largest_only for step in range(start))
    betas = [made.phase(step).beta for step in range(start, full + 1)]
    assert betas[0] == 0
    assert betas[-1] == 1
    assert all(0 <= after - before < 0.02 for before, after in pairwise(betas))
    rate = made.learning_rate
    assert betas[100] == 0.5 * rate(full) / rate(start + 100)
    assert made.sort_steps() == (start,)


def test_the_ramp_is_at_most_five_epochs():
    made = schedule("delayed_epsilon", total=20000, per_epoch=100)
    assert made.full - made.start == 500


def test_progressive_opens_kernel_then_depth_then_width_from_the_top():
    made = schedule("progressive")
    assert isinstance(made, Progressive)
    phases = {}
    for step in range(2000):
        phase = made.phase(step)
        phases.setdefault(phase.name, phase)
    assert list(phases) == ["largest", "kernel", "depth 1", "depth", "width 1", "width"]
    assert phases["largest"].largest_only
    top = {name: phase.space.stages[0] for name, phase in phases.items()}
    assert [len(top[name].kernels) for name in phases] == [1, 3, 3, 3, 3, 3]
    assert [top[name].depths for name in phases] == [(4,), (4,), (3, 4), (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4)]
    assert [len(top[name].widths) for name in phases] == [1, 1, 1, 1, 2, 3]
    for phase in phases.values():
        assert POOLED.canonical(phase.space.largest()) == POOLED.largest()
    (step,) = made.sort_steps()  # a later sort would mix the slices that "width 1" has trained with others
    assert (made.phase(step - 1).name, made.phase(step).name) == ("depth", "width 1")
