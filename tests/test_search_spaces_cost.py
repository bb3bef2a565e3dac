"""The vectorised cost equals the plan's, and limits are met or refused in bounded tries."""

from __future__ import annotations

import csv
import itertools
import math
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import NETWORKS

from search_spaces import catalog, cost
from search_spaces.feasible import ENUMERABLE, InfeasibleLimitsError, preflight, sample_feasible
from search_spaces.limits import checked_limit, limit_text, relative_excess, violations
from search_spaces.members import pooled_dearest
from search_spaces.network import NetworkSpace, Stage
from search_spaces.plan import plan
from search_spaces.space import ChoiceSpace

every_network = pytest.mark.parametrize("space", NETWORKS.values(), ids=NETWORKS.keys())


@every_network
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_vectorised_cost_equals_the_plan(space, seed):
    rng = np.random.default_rng(seed)
    archs = [space.sample(rng) for _ in range(5)] + [space.smallest(), space.largest(), space.most_macs()]
    plans = [plan(space, arch) for arch in archs]
    assert cost.macs(space, archs).tolist() == [p.macs for p in plans]
    assert cost.params(space, archs).tolist() == [p.params for p in plans]
    assert cost.macs(space, archs[0]) == plans[0].macs
    assert cost.params(space, archs[0]) == plans[0].params


@every_network
def test_no_architectures_cost_nothing(space):
    assert cost.macs(space, []).shape == (0,)


catalog_only = pytest.mark.parametrize(
    "space", [catalog.get(name) for name in catalog.SPACES], ids=list(catalog.SPACES)
)


@catalog_only
def test_smallest_has_the_fewest_macs_and_most_macs_the_most(space):
    """The other genes only add MACs, so the extremes over all depths and pools are the extremes of the space."""
    depths = list(itertools.product(*(stage.depths for stage in space.stages)))
    combinations = [(d, p) for d in depths for p in _pools(space, d)]
    for base, extreme in ((space.smallest(), min), (space.largest(), max)):
        archs = [space.canonical(replace(base, depth=d, pool=p)) for d, p in combinations]
        expected = space.smallest() if extreme is min else space.most_macs()
        assert extreme(cost.macs(space, archs)) == cost.macs(space, expected)


# Pools round down and strides up: 14 pixels are 4 in the wide block if the pool comes first, 3 if it comes last.
STRIDED = NetworkSpace(
    "strided", (Stage((1, 2), (8,)), Stage((1,), (8,), (3, 5), stride=2), Stage((1, 2), (64,))), 1, image_size=14
)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(15, 40), pools=st.integers(1, 3))
def test_pooled_dearest_is_the_dearest_of_all_poolings_also_past_strides(seed, size, pools):
    space = replace(STRIDED, image_size=size, num_pools=pools)
    arch = space.sample(np.random.default_rng(seed))
    every = [space.with_pools(arch, p) for p in itertools.combinations(space.active_slots(arch.depth), pools)]
    dearest = pooled_dearest(space, arch)
    space.validate(dearest)
    assert replace(dearest, pool=arch.pool) == arch
    assert cost.macs(space, dearest) == max(cost.macs(space, every))
    assert cost.macs(space, space.most_macs()) == max(cost.macs(space, list(space.enumerate())))


def test_the_latest_pool_is_not_always_the_dearest():
    arch = replace(STRIDED.largest(), depth=(2, 1, 1))
    latest = STRIDED.with_pools(arch, (3,))
    assert cost.macs(STRIDED, pooled_dearest(STRIDED, latest)) > cost.macs(STRIDED, latest)


def _pools(space, depth, most=30):
    """All pooling positions at this depth; where they are too many, the earliest, the latest and some at random."""
    active = space.active_slots(depth)
    if math.comb(len(active), space.num_pools) <= 500:
        return list(itertools.combinations(active, space.num_pools))
    rng = np.random.default_rng(0)
    drawn = [tuple(sorted(rng.permutation(active)[: space.num_pools].tolist())) for _ in range(most)]
    return [tuple(active[: space.num_pools]), tuple(active[-space.num_pools :]), *drawn]


def test_resnet20_has_the_published_macs():
    space = catalog.get("resnet20_pooling")
    lowered = plan(space, space.with_pools(space.largest(), (3, 6)))
    assert round(lowered.macs / 1e6, 1) == 40.8  # 40.6M of ResNet-20 with option-A shortcuts, and two 1x1 shortcuts
    assert [block.level for block in lowered.blocks] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert [block.in_size for block in lowered.blocks[4:6]] == [32, 16]


def test_resnet_cifar_reaches_the_promised_range():
    space = catalog.get("resnet_cifar")
    assert cost.macs(space, space.smallest()) < 10e6
    assert cost.macs(space, space.largest()) > 150e6


def _ofa_table() -> Path:
    """NAS_TABLES, or data/tables of the shared folder beside this checkout; both are optional."""
    folder = os.environ.get("NAS_TABLES") or Path(__file__).parents[2] / "shared" / "data" / "tables"
    return Path(folder) / "ofa_mbv3w10_dynast.csv"


@pytest.mark.skipif(not _ofa_table().exists(), reason=f"no table {_ofa_table()}; NAS_TABLES names its folder")
def test_mobilenet_v3_costs_what_once_for_all_counts():
    """Every row of a public table of Once-for-All subnets (kernels, expand ratios and depths, with their costs)."""
    space = catalog.get("mobilenet_v3")
    with open(_ofa_table(), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2373
    width = [stage.widths[0] for stage in space.stages]
    genes = {"depth": "d", "kernel": "ks", "expand": "e"}
    archs = [
        space.arch_from_dict({
            **{gene: [int(digit) for digit in row[column]] for gene, column in genes.items()},
            "width": width,
            "resolution": int(row["r"]),
        })
        for row in rows
    ]  # fmt: skip
    known = cost.costs(space, archs)
    assert known["macs"].tolist() == [int(row["macs"]) for row in rows]
    assert known["params"].tolist() == [int(row["params"]) for row in rows]
    for arch, row in zip(archs[::50], rows[::50]):
        assert (plan(space, arch).macs, plan(space, arch).params) == (int(row["macs"]), int(row["params"]))


def test_resnet50_contains_the_published_one():
    """25.56M parameters and 4.1 GMACs, and our average-pooled shortcuts change neither."""
    space = catalog.get("resnet50")
    resnet50 = replace(space.largest(), depth=(3, 4, 6, 3), expand=(0.25,) * space.num_slots)
    lowered = plan(space, space.canonical(resnet50))
    assert lowered.params == 25_557_032
    assert round(lowered.macs / 1e9, 2) == 4.09


def test_wide_resnet_contains_the_published_one():
    space = catalog.get("wide_resnet")
    lowered = plan(space, space.largest())
    assert round(lowered.params / 1e6, 1) == 11.0  # WRN-16-8
    assert [b.out_size for b in lowered.blocks[:-1]] == [32, 32, 32, 16, 16, 8, 8]


def test_moving_the_downsampling_leaves_the_parameters():
    strided, pooled = catalog.get("mobilenet_v3"), catalog.get("mobilenet_v3_pooling")
    rng = np.random.default_rng(0)
    for _ in range(20):
        arch = strided.sample(rng)
        moved = pooled.with_pools(arch, (0, 4, 8, 16))
        assert cost.params(pooled, moved) == cost.params(strided, arch)
        # in front of the whole block rather than at its depthwise convolution: the expansion runs on a quarter
        assert cost.macs(pooled, moved) < cost.macs(strided, arch)


@every_network
@pytest.mark.parametrize("share", [1.0, 1.05, 2.0])
def test_feasible_samples_meet_even_the_tightest_limit(space, share):
    limits = {"macs": share * cost.macs(space, space.smallest()), "params": 1e12}
    known = partial(cost.costs, space)
    for seed in range(5):
        arch = sample_feasible(space, np.random.default_rng(seed), limits, known)
        space.validate(arch)
        assert cost.macs(space, arch) <= limits["macs"]


@catalog_only
def test_unreachable_limits_name_the_nearest_value(space):
    least = cost.macs(space, space.smallest())
    known = partial(cost.costs, space)
    for act in (
        lambda: preflight(space, {"macs": least - 1}, known),
        lambda: sample_feasible(space, np.random.default_rng(0), {"macs": least - 1}, known),
    ):
        with pytest.raises(InfeasibleLimitsError) as raised:
            act()
        assert raised.value.nearest["macs"] == least
        assert "macs ≤" in str(raised.value)
        assert raised.value.proven == (space.size() <= ENUMERABLE)
        assert ("no architecture meets" in str(raised.value)) == raised.value.proven, "none found is not none there"


def test_limits_that_exclude_each_other_name_both():
    space = ChoiceSpace({"x": tuple(range(10)), "y": (0, 1)})

    def known(archs):
        x = np.array([float(a["x"]) for a in archs])  # type: ignore[arg-type]
        return {"up": x, "down": 9 - x}

    with pytest.raises(InfeasibleLimitsError, match=r"limits together: up ≤ 3 .*down ≤ 3 "):
        preflight(space, {"up": 3, "down": 3}, known)
    preflight(space, {"up": 4, "down": 5}, known)
    arch = sample_feasible(space, np.random.default_rng(0), {"up": 4, "down": 5}, known)
    assert arch["x"] == 4


def test_limits_on_unknown_metrics_are_left_to_the_evaluation():
    space = ChoiceSpace({"x": (1, 2)})
    preflight(space, {"latency_ms": 0.0}, lambda archs: {"macs": np.ones(len(archs))})
    assert violations({"macs": np.ones(2)}, {"latency_ms": 0.0}).tolist() == [[0], [0]]


def test_an_excess_is_relative_to_the_limit():
    known = {"macs": np.array([30.0]), "params": np.array([5.0])}
    assert violations(known, {"macs": 20.0, "params": 10.0}).tolist() == [[0.5, 0.0]]
    assert relative_excess(3.0, 0.0) == 3.0
    assert relative_excess(np.array([5.0, 10.0, 12.0, 30.0]), (10.0, 20.0)).tolist() == [0.5, 0.0, -0.2, 0.5]
    assert relative_excess(5.0, (10.0, None)) == 0.5


@every_network
@pytest.mark.parametrize("width", [1e-3, 1e-2])
def test_samples_within_a_narrow_band_are_found(space, width):
    """Around the MACs of an architecture that exists."""
    known = partial(cost.costs, space)
    for seed in range(5):
        aim = cost.macs(space, space.sample(np.random.default_rng(seed)))
        limits = {"macs": ((1 - width) * aim, (1 + width) * aim)}
        preflight(space, limits, known)
        arch = sample_feasible(space, np.random.default_rng(seed), limits, known)
        assert limits["macs"][0] <= cost.macs(space, arch) <= limits["macs"][1]


@every_network
def test_samples_within_a_percent_of_two_costs_are_found(space):
    known = partial(cost.costs, space)
    for seed in range(8):
        aims = known([space.sample(np.random.default_rng(seed))])
        limits = {name: (0.99 * float(aims[name][0]), 1.01 * float(aims[name][0])) for name in ("macs", "params")}
        preflight(space, limits, known)
        arch = sample_feasible(space, np.random.default_rng(seed), limits, known)
        assert violations(known([arch]), limits).sum() == 0


def test_limits_that_are_out_of_reach_one_by_one_name_both_values():
    space = ChoiceSpace({"x": tuple(range(10))})

    def known(archs):
        x = np.array([float(a["x"]) for a in archs])  # type: ignore[arg-type]
        return {"up": x + 5, "down": 2 * (9 - x)}

    with pytest.raises(InfeasibleLimitsError, match=r"up ≤ 3 \(nearest reachable: 12, by itself 5\)") as raised:
        preflight(space, {"up": 3, "down": 4}, known)
    assert raised.value.nearest == {"up": 12, "down": 4}
    assert raised.value.alone == {"up": 5}


def test_a_space_is_listed_once_whatever_the_number_of_limits():
    space, costed = ChoiceSpace({gene: tuple(range(12)) for gene in "xyz"}), []

    def known(archs):
        costed.extend(archs)
        x, y = (np.array([float(a[gene]) for a in archs]) for gene in "xy")  # type: ignore[arg-type]
        return {"x": x + 20, "y": y + 20, "sum": x + y}

    with pytest.raises(InfeasibleLimitsError) as raised:
        preflight(space, {"x": 10, "y": (50, None), "sum": (4.2, 4.8)}, known)
    assert raised.value.alone == {"x": 20, "y": 31, "sum": 5}
    assert len(costed) < 2 * space.size()


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ((4.0, 3.0), "contradicts itself: at least 4 and at most 3"),
        ((None, None), "a pair is"),
        ((1.0,), "a pair is"),
        ((None, float("inf")), "must be a finite number"),
        ("60M", "must be a finite number"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(limit, message):
    with pytest.raises(ValueError, match=message):
        checked_limit("macs", limit)


def test_limits_read_as_people_write_them():
    limits = (4e7, (None, 4e7), (1e7, None), (1e7, 4e7), 40_001_234, (0, 312_550), 2.71828, 1e9 / 3)
    assert [limit_text("macs", checked_limit("macs", limit)) for limit in limits] == [
        "macs ≤ 40M", "macs ≤ 40M", "macs ≥ 10M", "10M ≤ macs ≤ 40M",
        "macs ≤ 40.001234M", "0 ≤ macs ≤ 312.55k", "macs ≤ 2.71828", "macs ≤ 333.333333333333M",
    ]  # fmt: skip


@given(st.lists(st.floats(1e-3, 1e12).map(lambda x: float(f"{x:.12g}")), min_size=2, max_size=2, unique=True))
def test_no_two_limits_that_people_write_look_the_same(limits):
    assert len({limit_text("macs", limit) for limit in limits}) == 2


def test_a_feasible_corner_that_no_descent_finds_is_listed():
    """Cost 1 at one architecture of 81 and 100 elsewhere: only looking at all of them can tell."""
    space = ChoiceSpace({"a": (0, 1, 2), "b": (0, 1, 2), "c": tuple(range(9))})

    def known(archs):
        return {"macs": np.array([1.0 if tuple(a.values()) == (1, 1, 5) else 100.0 for a in archs])}

    preflight(space, {"macs": 5}, known)
    assert tuple(sample_feasible(space, np.random.default_rng(0), {"macs": 5}, known).values()) == (1, 1, 5)
    with pytest.raises(InfeasibleLimitsError, match="nearest reachable: 1"):
        preflight(space, {"macs": 0.5}, known)


def test_a_needle_among_as_many_as_are_listed_is_found():
    space = ChoiceSpace({"a": tuple(range(40)), "b": tuple(range(40)), "c": tuple(range(60))})
    assert 90_000 < space.size() < ENUMERABLE

    def known(archs):
        return {"macs": np.array([1.0 if tuple(a.values()) == (11, 23, 35) else 100.0 for a in archs])}

    preflight(space, {"macs": 5}, known)
    with pytest.raises(InfeasibleLimitsError, match="nearest reachable: 1\\)"):
        preflight(space, {"macs": 0.5}, known)
    with pytest.raises(InfeasibleLimitsError):  # what is not looked at is not found
        sample_feasible(space, np.random.default_rng(0), {"macs": 5}, known, exhaustive=False)


def test_a_deeper_network_that_is_cheaper_than_the_smallest_is_found():
    stages = (Stage((1, 3), (8,)), Stage((1, 2), (64,)), Stage((1, 2), (8, 16), (3, 5)))
    space = NetworkSpace("o", stages, 3, 1, 32, 10)
    least = int(cost.macs(space, list(space.enumerate())).min())
    assert least < cost.macs(space, space.smallest())
    known = partial(cost.costs, space)
    preflight(space, {"macs": least}, known)
    preflight(space, {"macs": 1242192}, known)
    for seed in range(5):
        arch = sample_feasible(space, np.random.default_rng(seed), {"macs": 1242192}, known)
        assert cost.macs(space, arch) <= 1242192
    with pytest.raises(InfeasibleLimitsError) as raised:
        preflight(space, {"macs": least - 1}, known)
    assert raised.value.nearest["macs"] == least
