"""Samplers: one contract for all of them on every space, then what each method promises."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from spaces import FULL_SIZE

from search_spaces import catalog
from search_spaces.cost import macs
from search_spaces.network import NetworkSpace, Stage
from supernet.samplers import SAMPLERS, Probes, adjacent_band, bins
from supernet.samplers.adjacent_band import AdjacentBand, Bank
from supernet.samplers.bins import macs_bins
from supernet.samplers.macs_binned import CANDIDATES, MacsBinned
from supernet.samplers.shifted import UNIFORM_SHARE, Shifted

JOINT = catalog.get("resnet_cifar")
every_sampler = pytest.mark.parametrize("name", SAMPLERS)
every_space = pytest.mark.parametrize("space", FULL_SIZE.values(), ids=FULL_SIZE.keys())


def loss_of(arch, step=0):
    """A made-up cross-entropy that tells architectures apart and falls with the steps at a pace of its own."""
    unit = zlib.crc32(arch.key.encode()) / 2**32
    return 2 + unit - unit * step / 100


def probes_at(step=0):
    return Probes(lambda arch: loss_of(arch, step), lambda arch: loss_of(arch, step) + 1)


def rng_of(seed, step, index):
    return np.random.default_rng(np.random.SeedSequence([seed, step, index]))


def run(sampler, steps, total_steps=400, draws=2):
    """The architectures of these steps, in order."""
    drawn = []
    for step in steps:
        probes = probes_at(step)
        sampler.begin_step(step, total_steps, probes)
        drawn += [sampler.draw(rng_of(sampler.seed, step, index), probes) for index in range(draws)]
    return drawn


# The contract


@every_space
@every_sampler
def test_draws_are_canonical_members(name, space):
    sampler = SAMPLERS[name](space, seed=1)
    for arch in [*run(sampler, range(6)), sampler.matched_min(rng_of(1, 0, 9))]:
        space.validate(arch)
        assert space.decode(space.encode(arch)) == arch


@every_sampler
def test_a_sampler_that_asks_no_probes_draws_without_any(name):
    if not SAMPLERS[name].asks_probes:
        SAMPLERS[name](JOINT, seed=1).draw(rng_of(1, 0, 0), None)


@every_sampler
def test_draws_are_a_function_of_seed_step_and_index(name):
    first, again, other = (run(SAMPLERS[name](JOINT, seed), range(40)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) > 40


@every_sampler
@pytest.mark.parametrize("stop_at", [1, 40], ids=lambda step: f"stopped after step {step}")
def test_a_resumed_run_draws_what_the_uninterrupted_one_does(name, stop_at, monkeypatch):
    """The state survives as plain arrays and is a copy; banks this small serve draws by then."""
    monkeypatch.setattr(adjacent_band, "CAPACITY", 4)
    whole = SAMPLERS[name](JOINT, seed=3)
    run(whole, range(stop_at))
    saved = whole.state()
    stored = {key: (value.tobytes(), value.dtype, value.shape) for key, value in saved.items()}
    rest = run(whole, range(stop_at, 75))
    assert all(saved[key].tobytes() == data for key, (data, _, _) in stored.items())
    resumed = SAMPLERS[name](JOINT, seed=3)
    resumed.load({key: np.frombuffer(data, dtype).reshape(shape) for key, (data, dtype, shape) in stored.items()})
    assert run(resumed, range(stop_at, 75)) == rest
    np.testing.assert_equal(resumed.state(), whole.state())


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"best_up", "worst_up"}))
def test_every_architecture_of_a_small_space_is_drawn(name):
    """All 36 poolings, unless the loss decides among candidates: that may pass over some for good."""
    space = catalog.get("resnet20_pooling")
    assert len(set(run(SAMPLERS[name](space, seed=0), range(450)))) == 36


@every_sampler
def test_a_space_of_equal_macs_is_one_bin(name, monkeypatch):
    space = NetworkSpace("equal_macs", (Stage((1, 2), (4, 8), (3, 5)),), 0, 1, 5, 2)
    monkeypatch.setattr(bins, "macs", lambda space, archs: np.full(len(archs), 7))
    assert len(macs_bins(space)) == 1
    sampler = SAMPLERS[name](space, seed=0)
    for arch in run(sampler, range(50)):
        space.validate(arch)


@every_sampler
def test_probes_that_answer_with_no_number_stop_no_run(name):
    """A network may diverge; which draws follow is of no matter, but they must be there and the state stay sane."""
    sampler = SAMPLERS[name](JOINT, seed=0)
    broken = Probes(batch=lambda arch: float("nan"), held_out=lambda arch: float("inf"))
    for step in (0, 20, 40):
        sampler.begin_step(step, 100, broken)
        JOINT.validate(sampler.draw(rng_of(0, step, 0), broken))
    for arch in run(sampler, range(60, 80)):
        JOINT.validate(arch)
    resumed = SAMPLERS[name](JOINT, seed=0)
    resumed.load(sampler.state())
    assert resumed.draw(rng_of(0, 90, 0), broken) == sampler.draw(rng_of(0, 90, 0), broken)


# of the second the latest pooling is not the dearest: strides round up, pools down
@pytest.mark.parametrize(
    "space",
    [
        catalog.get("resnet20_pooling"),
        NetworkSpace("strided", (Stage((2,), (8,)), Stage((1,), (8,), stride=2), Stage((1,), (64,))), 1, image_size=14),
    ],
    ids=lambda space: space.name,
)
def test_macs_weighted_draws_each_subnet_in_proportion_to_its_macs(space):
    archs = list(space.enumerate())
    counts = Counter(run(SAMPLERS["macs_weighted"](space, seed=0), range(3000), draws=1))
    weights = macs(space, archs) / macs(space, archs).sum()
    assert chisquare([counts[arch] for arch in archs], 3000 * weights).pvalue > 0.01
    assert chisquare([counts[arch] for arch in archs]).pvalue < 1e-6


def test_pool_weighted_places_pools_in_proportion_to_macs_and_leaves_the_rest_uniform():
    """Given the other genes, so each placement counts by its share of the MACs that all placements have together."""
    space = NetworkSpace(
        "two_widths", (Stage((2, 3), (4, 8), (3,)),), num_pools=1, in_channels=1, image_size=8, num_classes=2
    )
    archs = list(space.enumerate())
    costs = dict(zip(archs, macs(space, archs).tolist(), strict=True))
    together = {
        rest: sum(costs[a] for a in archs if (a.depth, a.width) == rest) for rest in {(a.depth, a.width) for a in archs}
    }
    expected = [4000 / len(together) * costs[arch] / together[arch.depth, arch.width] for arch in archs]
    counts = Counter(run(SAMPLERS["pool_weighted"](space, seed=0), range(4000), draws=1))
    assert len(archs) == 10
    assert chisquare([counts[arch] for arch in archs], expected).pvalue > 0.01
    assert chisquare([counts[arch] for arch in archs]).pvalue < 1e-9


def test_pool_weighted_without_pools_is_uniform():
    space = catalog.get("mobilenet_v3")
    assert space.num_pools == 0
    assert run(SAMPLERS["pool_weighted"](space, seed=0), range(20)) == run(
        SAMPLERS["uniform"](space, seed=0), range(20)
    )


def test_the_package_needs_no_torch():
    code = "import sys, supernet.samplers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=catalog.__file__.rsplit("/", 2)[0]).returncode == 0


# Best-up and worst-up


@pytest.mark.parametrize(("name", "pick"), [("best_up", min), ("worst_up", max)])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_best_and_worst_up_pick_by_loss_among_candidates_of_one_bin(name, pick, seed):
    probed = []
    probes = replace(probes_at(), batch=lambda arch: probed.append(arch) or loss_of(arch))
    sampler = SAMPLERS[name](JOINT, seed=0)
    arch = sampler.draw(np.random.default_rng(seed), probes)
    assert len(probed) == CANDIDATES
    assert arch == pick(probed, key=loss_of)
    assert len(set(sampler.bins.index(macs(JOINT, probed)))) == 1


@pytest.mark.parametrize("name", ["best_up", "worst_up"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_candidate_without_a_finite_loss_is_not_picked(name, bad):
    answers = iter([bad, 2.0, bad])
    probed = []
    probes = replace(probes_at(), batch=lambda arch: probed.append(arch) or next(answers))
    assert SAMPLERS[name](JOINT, seed=0).draw(np.random.default_rng(0), probes) is probed[1]


# Adjacent band


@pytest.fixture
def band():
    return AdjacentBand(JOINT, seed=5)


def test_a_step_has_one_level_and_the_next_is_at_most_one_away(band):
    levels = [band.level]
    for step in range(150):
        drawn = run(band, [step], draws=3)
        levels.append(band.level)
        shared = [*drawn, band.matched_min(rng_of(0, 0, 0))]
        assert set(band.bins.index(macs(JOINT, shared))) == {band.level}
    assert set(np.abs(np.diff(levels))) == {0, 1}
    assert set(levels) == set(range(len(band.bins)))


def test_the_lowest_level_has_the_smallest_subnet_as_its_minimum(band):
    band.level = 0
    assert macs(JOINT, band.matched_min(rng_of(0, 0, 0))) <= macs(JOINT, JOINT.smallest())
    assert MacsBinned(JOINT, 0).matched_min(rng_of(0, 0, 0)) == JOINT.smallest()


@pytest.mark.parametrize(("step", "chance"), [(0, 0.2), (200, 0.575), (400, 0.95)])
def test_reuse_grows_with_the_progress_of_the_run(band, step, chance):
    band.begin_step(step, 400, probes_at())
    assert band.reuse == pytest.approx(chance)


def test_a_bank_serves_draws_only_when_more_than_half_full(band, monkeypatch):
    monkeypatch.setattr(adjacent_band, "CAPACITY", 10)
    band.reuse = 1.0
    bank, probes, probed = band.banks[band.level], probes_at(), []
    counting = replace(probes_at(), batch=lambda arch: probed.append(arch) or probes.batch(arch))
    for index in range(30):
        arch = band.draw(rng_of(0, 0, index), counting)
        assert arch in probed
        assert arch in bank.archs
    assert len(bank.archs) == 6
    assert all(value == -loss_of(arch) for arch, value in zip(bank.archs, bank.values))


POOLINGS = list(catalog.get("resnet20_pooling").enumerate())


@given(offers=st.lists(st.tuples(st.integers(0, 35), st.floats(-5, 0) | st.just(float("nan"))), max_size=80))
def test_a_bank_holds_the_best_each_once(offers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adjacent_band, "CAPACITY", 5)
        bank, worst = Bank(), -np.inf
        for i, value in offers:
            known, full = POOLINGS[i] in bank.archs, len(bank.archs) == 5
            bank.offer(POOLINGS[i], value)
            kept = not np.isnan(value) and (known or not full or value > worst)
            assert not kept or bank.values[bank.archs.index(POOLINGS[i])] == value
            assert kept or known or POOLINGS[i] not in bank.archs
            assert len(bank.archs) == len(bank.values) == len(set(bank.archs)) <= 5
            worst = min(bank.values, default=-np.inf)


def test_a_bank_is_drawn_from_by_softmax():
    bank = Bank(POOLINGS[:3], [-1000.0, -1001.0, -1002.0])
    rng = np.random.default_rng(0)
    drawn = [POOLINGS.index(bank.draw(rng)) for _ in range(4000)]
    expected = np.exp([0, -1, -2]) / np.exp([0, -1, -2]).sum()
    np.testing.assert_allclose(np.bincount(drawn) / 4000, expected, atol=0.03)


# Shifted


@pytest.fixture
def shifted():
    return Shifted(JOINT, seed=0)


@given(data=st.data())
def test_every_bin_keeps_a_share_and_a_steeper_slope_never_has_less(data):
    sampler = Shifted(JOINT, seed=0)
    count = len(sampler.bins)
    sampler.slopes = np.array(data.draw(st.lists(st.floats(-10, 10), min_size=count, max_size=count)))
    p = sampler.probability
    assert p.sum() == pytest.approx(1)
    assert (p >= UNIFORM_SHARE / count).all()
    assert (np.diff(p[np.argsort(sampler.slopes)]) >= 0).all()


@given(slope=st.floats(-10, 10))
def test_equal_slopes_give_uniform(slope):
    sampler = Shifted(JOINT, seed=0)
    sampler.slopes = np.full(len(sampler.bins), slope)
    np.testing.assert_allclose(sampler.probability, 1 / len(sampler.bins), rtol=1e-6)


def test_the_bin_whose_held_out_loss_falls_is_drawn_more(shifted):
    target = shifted.references[3]
    for step in range(0, 2000, 20):
        held_out = lambda arch, step=step: 2.0 - (step / 2000 if arch == target else 0.0)  # noqa: E731
        shifted.begin_step(step, 2000, replace(probes_at(), held_out=held_out))
    assert shifted.probability.argmax() == 3
    drawn = [shifted.draw(rng_of(0, 0, index), probes_at()) for index in range(800)]
    share = np.bincount(shifted.bins.index(macs(JOINT, drawn)), minlength=len(shifted.bins)) / len(drawn)
    np.testing.assert_allclose(share, shifted.probability, atol=0.05)


def test_the_same_references_one_per_bin_are_probed_every_period(shifted):
    probed = {}
    for step in range(60):
        probes = replace(probes_at(), held_out=lambda a, step=step: probed.setdefault(step, []).append(a) or 1.0)
        shifted.begin_step(step, 60, probes)
    assert list(probed) == [0, 20, 40]
    assert probed[0] == probed[20] == probed[40]
    assert shifted.bins.index(macs(JOINT, probed[0])).tolist() == list(range(len(shifted.bins)))


def test_a_loss_that_is_not_finite_leaves_the_slopes_alone(shifted):
    for step, loss in ((0, 2.0), (20, np.nan), (40, np.inf), (60, 1.0)):
        shifted.begin_step(step, 100, replace(probes_at(), held_out=lambda arch, loss=loss: loss))
    assert (shifted.slopes == 0).all()
    shifted.begin_step(80, 100, replace(probes_at(), held_out=lambda arch: 0.5))
    np.testing.assert_allclose(shifted.slopes, 0.05)
