"""Bins of MACs: they cover a space, none is rare, and their members are drawn as the space draws its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import FULL_SIZE

from search_spaces import catalog
from search_spaces.cost import macs
from supernet.samplers import bins
from supernet.samplers.bins import MacsBins, macs_bins

JOINT = catalog.get("resnet_cifar")
every_space = pytest.mark.parametrize("space", FULL_SIZE.values(), ids=FULL_SIZE.keys())


@every_space
def test_bins_cover_the_space_and_none_is_rare(space):
    table = macs_bins(space)
    assert table.probability.sum() == pytest.approx(1)
    assert len(table) == 1 or table.probability.min() >= bins.MIN_SHARE
    assert len(table) <= bins.MAX_BINS
    ends = table.index(macs(space, [space.smallest(), space.largest()]))
    assert ends[0] == 0
    assert (np.diff(table._inner) > 0).all()


@every_space
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_architecture_of_a_bin_lies_in_it(space, seed):
    table = macs_bins(space)
    rng = np.random.default_rng(seed)
    index = table.draw_index(rng)
    archs = [table.draw(index, rng), table.cheapest(index), table.median(index)]
    cost = macs(space, archs)
    assert (table.index(cost) == index).all()
    assert cost[1] <= cost[2]


def test_a_bin_that_is_never_hit_is_served_from_the_samples_after_bounded_tries(monkeypatch):
    table = MacsBins(catalog.get("digits"))
    tried = []

    def never(space, archs):
        tried.extend(archs)
        return np.full(len(archs), 10**12)

    monkeypatch.setattr(bins, "macs", never)
    arch = table.draw(2, np.random.default_rng(0))
    assert len(tried) == bins.TRIES
    assert table.index(macs(table.space, [arch]))[0] == 2


def test_a_bin_is_drawn_from_evenly():
    """Pools and kernels of rarely active blocks occur as in a sample of the space that fell into the bin by itself.

    The filler of inactive blocks must not make their kernels small, nor collisions crowd the pools.
    """
    table, rng = macs_bins(JOINT), np.random.default_rng(0)
    drawn = [table.draw(table.draw_index(rng), rng) for _ in range(1000)]
    sampled = [JOINT.sample(rng) for _ in range(1000)]
    slot = JOINT.stage_slots(1)[-1]

    def kernels(archs):
        active = [arch.kernel[slot] for arch in archs if slot in JOINT.active_slots(arch.depth)]
        return np.array([active.count(k) for k in (3, 5, 7)]) / len(active)

    def pools(archs):
        return np.bincount([p for arch in archs for p in arch.pool], minlength=JOINT.num_slots) / len(archs)

    np.testing.assert_allclose(kernels(drawn), kernels(sampled), atol=0.08)
    np.testing.assert_allclose(pools(drawn), pools(sampled), atol=0.08)
