"""The latency model, on a device that follows a formula."""

from __future__ import annotations

import json

import devices
import numpy as np
import pytest

from nas.latency_model import Errors, LatencyModel, held_out
from search_spaces.catalog import SPACES
from search_spaces.plan import plan


def fitted(name: str, **options: int):
    space = SPACES[name](**options)
    known = devices.measured(space, n=120)
    table = LatencyModel.of_blocks(space, {block: time.median_ms for block, time in known.blocks.items()})
    archs = [arch for arch, _ in known.archs]
    return space, table, archs, np.array([time.median_ms for _, time in known.archs])


@pytest.mark.parametrize(("name", "options"), [("resnet_cifar", {}), ("mobilenet_v3", {"image_size": 64})])
def test_what_is_not_additive_is_corrected(name: str, options: dict[str, int]) -> None:
    space, table, archs, times = fitted(name, **options)
    model = table.corrected(archs, times)
    rng = np.random.default_rng(99)
    new = [space.sample(rng) for _ in range(100)]
    truth = np.array([devices.network_ms(space, arch) for arch in new])
    added, corrected = Errors.of(table.added(new), truth), Errors.of(model.predict(new), truth)
    assert corrected.median < 0.02 < 0.1 < added.median
    assert corrected.spearman > 0.999
    assert Errors.of(held_out(table, archs, times), times).median < 0.02


def test_the_sum_is_that_of_the_plan_s_blocks() -> None:
    space, table, archs, _ = fitted("resnet_cifar")
    expected = [sum(devices.block_ms(block) for block in plan(space, arch).blocks) for arch in archs]
    np.testing.assert_allclose(table.added(archs), expected)
    assert table.predict([]).shape == (0,)


def test_a_block_that_was_not_measured_is_predicted_from_the_others() -> None:
    space, table, _, _ = fitted("resnet_cifar")
    names = sorted(table.blocks, key=repr)
    hidden = [block for block in names if block.kind == "basic"][::10]
    seen = {block: ms for block, ms in table.blocks.items() if block not in hidden}
    times = dict(LatencyModel.of_blocks(space, seen)._times(hidden))
    off = [abs(times[block] / devices.block_ms(block) - 1) for block in hidden]
    assert np.median(off) < 0.05


def test_json_holds_all_of_it() -> None:
    space, table, archs, times = fitted("resnet_cifar")
    model = table.corrected(archs, times)
    again = LatencyModel.from_dict(space, json.loads(json.dumps(model.to_dict())))
    np.testing.assert_array_equal(again.predict(archs), model.predict(archs))


@pytest.mark.parametrize("n", [19, 40, 100])
def test_the_margin_covers_95_of_100_that_were_not_measured(n: int) -> None:
    ratios = np.random.default_rng(0).lognormal(0, 0.1, (2000, n + 1))
    covered = [row[-1] <= 1 + Errors.of(np.ones(n), row[:-1]).margin for row in ratios]
    error = np.sqrt(0.05 * 0.95 / len(ratios))
    assert 0.95 - 3 * error < np.mean(covered) < 0.95 + 1 / (n + 1) + 3 * error


def test_no_margin_makes_a_limit_looser() -> None:
    assert Errors.of(np.ones(3), np.full(3, 0.5)).margin == 0
