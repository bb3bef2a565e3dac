"""The mixture's router: balanced shares of its members, a row for every pooling configuration."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from spaces import NETWORKS, POOLED

from search_spaces import catalog
from search_spaces.network import NetworkSpace, Stage
from supernet.mixture import MOST_ROWS, TOLERANCE, Router, Routing, balance, make_supernet
from supernet.recipe import TrainConfig
from supernet.steps import StepSubnet


def all_pools(space):
    return list(combinations(range(space.num_slots), space.num_pools))


@pytest.mark.parametrize("members", [2, 4, 8])
@pytest.mark.parametrize("temperature", [1.0, 30.0, 100.0])
@pytest.mark.parametrize("useless", [False, True], ids=["alike", "one useless member"])
def test_rows_sum_to_one_and_every_member_has_the_same_share(members, temperature, useless):
    space = catalog.get("resnet20_pooling")
    router, pools = Router(space, members), all_pools(space)
    assert len(pools) == 36
    router.accuracy.copy_(0.7 + 0.3 * torch.rand(router.accuracy.shape, generator=torch.Generator().manual_seed(1)))
    if useless:
        router.accuracy[:, 0] = 0.1
    router.open(pools, (temperature - 1) / 99)
    table = router.probabilities(pools)
    assert router.temperature == temperature
    torch.testing.assert_close(table.sum(1), torch.ones(36, dtype=torch.float64))
    marginal = table.mean(0)
    assert (marginal * (marginal * members).log()).sum() < TOLERANCE
    torch.testing.assert_close(marginal, torch.full_like(marginal, 1 / members), atol=0.01, rtol=0.03)


def test_balancing_ends_however_far_apart_the_scores_are():
    for scores in (torch.zeros(0, 3), torch.tensor([[0.0, 1e4, -1e4]]), torch.tensor([[0.0, 1e4], [0.0, 1e4 + 1]])):
        assert torch.isfinite(balance(scores.double())).all()


def test_a_fresh_configuration_starts_at_one_and_moves_a_tenth_of_the_way():
    space = catalog.get("resnet20_pooling")
    router, (first, second, *_) = Router(space, 2), all_pools(space)
    torch.testing.assert_close(router.probabilities([first]), torch.full((1, 2), 0.5, dtype=torch.float64))
    router.update(first, 1, 0.4)
    assert router.accuracy[router.row(first)].tolist() == [1.0, pytest.approx(0.94)]
    assert (router.accuracy[router.row(second)] == 1).all()


def test_the_temperature_rises_from_1_to_100_over_the_run():
    mixture = make_supernet(catalog.get("digits"), 3)
    routing = Routing(mixture, TrainConfig(members=3), total_steps=10)
    temperatures = []
    for step in range(10):
        routing.begin_step(step, [StepSubnet(mixture.space.largest(), "max")])
        temperatures.append(float(mixture.router.temperature))
    assert temperatures == pytest.approx(np.linspace(1, 100, 10))


@pytest.mark.parametrize("name", POOLED)
def test_every_configuration_has_its_row_and_the_rows_are_bounded(name):
    space = NETWORKS[name]
    router = Router(space, 2)
    rows = [router.row(pool) for pool in all_pools(space)]
    assert len(router.accuracy) <= MOST_ROWS
    assert (len(set(rows)) == len(rows)) == (name != "mobilenet_v3_pooling")  # of its 4845, near ones share a row


def test_a_space_of_many_pools_is_still_tabulated():
    space = NetworkSpace("deep", (Stage((20,), (8,)), Stage((20,), (8,))), num_pools=9, image_size=512)
    assert math.comb(40, 9) > 10**8
    assert len(Router(space, 2).accuracy) <= MOST_ROWS
