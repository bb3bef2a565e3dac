"""Calibration, its sample and its figures: exact where there is an exact answer, and no worse than what is simpler."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import NETWORKS

from nas.calibration import LEAST_PAIRS, Calibration, fidelity_curve, random_samples
from nas.ranking import bootstrap_interval, kendall, noise_ceiling, spearman
from nas.sampling import spread_sample
from search_spaces import catalog, cost
from search_spaces.feasible import InfeasibleLimitsError

POOLING = catalog.get("resnet20_pooling")
EVERY = list(POOLING.enumerate())


def table(seed=0):
    """Accuracies that depend on where each layer stands, and inherited ones that are noisy and favour many MACs."""
    rng = np.random.default_rng(seed)
    levels = np.stack([POOLING.to_vector(arch) for arch in EVERY])[:, -POOLING.num_slots :]
    true = 0.9 - 0.02 * ((levels - np.linspace(0.0, 0.8, POOLING.num_slots)) ** 2).sum(axis=1)
    macs = np.log2(cost.macs(POOLING, EVERY).astype(float))
    return true + 0.02 * (macs - macs.mean()) + rng.normal(0, 0.01, len(EVERY)), true


def fitted(k=8, seed=0):
    inherited, true = table()
    picked = np.random.default_rng(seed).permutation(len(EVERY))[:k]
    return Calibration.fit(POOLING, [EVERY[i] for i in picked], inherited[picked], true[picked]), picked


values = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20)


@given(values)
def test_correlations_are_scipys_with_ties(pairs):
    a, b = np.array(pairs, dtype=float).T
    for ours, theirs in ((kendall, scipy.stats.kendalltau), (spearman, scipy.stats.spearmanr)):
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert ours(a, b) == pytest.approx(theirs(a, b).statistic, abs=1e-12)
        else:
            assert np.isnan(ours(a, b))


def test_an_interval_holds_its_value_and_narrows_with_more_pairs():
    rng = np.random.default_rng(0)
    a = rng.random(200)
    b = a + rng.normal(0, 0.2, 200)
    wide, narrow = (bootstrap_interval(kendall, a[:n], b[:n], np.random.default_rng(1), 300) for n in (12, 200))
    assert wide[0] < kendall(a[:12], b[:12]) < wide[1]
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


@pytest.mark.parametrize("n", [4, 12])
def test_the_interval_counts_resamples_without_an_order_as_none(n):
    a, b = np.arange(n, dtype=float), np.eye(n)[-1]  # all but one value of b are equal
    low, high = bootstrap_interval(kendall, a, b, np.random.default_rng(0))
    assert low == 0 <= kendall(a, b) <= high
    assert np.isnan(bootstrap_interval(kendall, a, np.zeros(n), np.random.default_rng(0))).all()


def test_the_noise_ceiling_rises_with_images_and_difference():
    def ceiling(images, accuracies):
        rng = np.random.default_rng(0)
        correct = rng.random((len(accuracies), images)) < np.array(accuracies)[:, None]
        return noise_ceiling(kendall, correct, np.random.default_rng(1), 100)

    spread = np.linspace(0.7, 0.75, 10)
    assert ceiling(100, spread) < ceiling(5000, spread) < 1
    assert ceiling(5000, np.linspace(0.1, 0.9, 4)) == 1
    alike = np.ones((5, 100), dtype=bool)
    assert np.isnan(noise_ceiling(kendall, alike, np.random.default_rng(0)))


def test_the_truth_reaches_the_noise_ceiling_and_does_not_exceed_it():
    """Over many draws of networks and images; neither does it fall short, for then the ceiling would be too high."""
    shown, ceilings = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        true = 0.9 + 0.02 * rng.standard_normal(12)
        correct = rng.random((12, 500)) < true[:, None]
        shown.append(kendall(true, correct.mean(axis=1)))
        ceilings.append(noise_ceiling(kendall, correct, rng, 50))
    assert np.nanmean(ceilings) == pytest.approx(np.mean(shown), abs=0.05)


def test_what_is_hard_for_every_network_is_no_noise():
    """Two networks that differ in one image of 1,000 are ranked alike by every reading that holds it."""
    rng = np.random.default_rng(0)
    shared = rng.random(1000) < 0.5
    correct = np.stack([shared & (np.arange(1000) % 20 != 0), shared, shared | (np.arange(1000) % 20 == 1)])
    assert noise_ceiling(kendall, correct, np.random.default_rng(0), 100) > 0.95


@pytest.mark.parametrize("name", NETWORKS)
def test_a_longer_sample_extends_a_shorter_one(name):
    space = NETWORKS[name]
    n = min(12, space.size())
    sample = spread_sample(space, n, seed=3)
    assert len({arch.key for arch in sample}) == n
    assert spread_sample(space, n // 2, seed=3) == sample[: n // 2]
    for arch in sample:
        space.validate(arch)


def test_a_sample_covers_macs_and_poolings():
    for seed in range(5):
        sample = spread_sample(POOLING, 12, seed)
        macs = np.log2(cost.macs(POOLING, EVERY).astype(float))
        edges = np.quantile(macs, [0, 0.25, 0.5, 0.75, 1])
        counts = np.histogram(np.log2(cost.macs(POOLING, sample).astype(float)), edges)[0]
        assert counts.min() >= 1
        assert {slot for arch in sample for slot in arch.pool} == set(range(POOLING.num_slots))
    assert len({spread_sample(POOLING, 1, seed)[0].key for seed in range(20)}) > 5


def test_a_sample_beyond_the_space_is_refused():
    assert sorted(a.key for a in spread_sample(POOLING, 36, 0)) == sorted(a.key for a in EVERY)
    for n in (0, 37):
        with pytest.raises(ValueError, match=f"{n} architectures .* valid: 1 to 36"):
            spread_sample(POOLING, n)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("quantile", [0.0, 0.5], ids=["the smallest", "half"])
def test_a_sample_below_a_limit_holds_no_other_and_is_extended_too(name, quantile):
    space = NETWORKS[name]
    rng = np.random.default_rng(0)
    known = list(space.enumerate()) if space.size() < 1000 else [space.sample(rng) for _ in range(200)]
    macs = np.sort(cost.macs(space, list({arch.key: arch for arch in known}.values())))
    limit = max(macs[3], np.quantile(macs, quantile))
    sample = spread_sample(space, 4, seed=3, max_macs=limit)
    assert cost.macs(space, sample).max() <= limit
    assert len({arch.key for arch in sample}) == 4
    assert spread_sample(space, 2, seed=3, max_macs=limit) == sample[:2]


def test_a_limit_leaves_few_architectures_or_none():
    macs = np.sort(cost.macs(POOLING, EVERY))
    assert len(spread_sample(POOLING, 3, max_macs=macs[2])) == 3
    with pytest.raises(ValueError, match=rf"4 architectures .* within {macs[2]:,} MACs; valid: 1 to 3"):
        spread_sample(POOLING, 4, max_macs=macs[2])
    with pytest.raises(InfeasibleLimitsError, match="nearest reachable"):
        spread_sample(POOLING, 1, max_macs=macs[0] - 1)


@pytest.mark.parametrize("k", [LEAST_PAIRS, 6, 12])
def test_a_calibration_from_json_predicts_the_same(k):
    calibration, _ = fitted(k)
    again = Calibration.from_dict(POOLING, json.loads(json.dumps(calibration.to_dict())))
    inherited, _ = table()
    for ours, theirs in zip(calibration.predict(EVERY, inherited), again.predict(EVERY, inherited)):
        assert np.array_equal(ours, theirs)
    assert again.identity == calibration.identity
    assert fitted(k, seed=1)[0].identity != calibration.identity


def test_leaving_one_out_is_fitting_to_the_others():
    calibration, picked = fitted(6)
    inherited, true = table()
    unseen = calibration.leave_one_out()
    for i, index in enumerate(picked):
        others = np.delete(picked, i)
        partial = Calibration.fit(POOLING, [EVERY[j] for j in others], inherited[others], true[others])
        assert partial.predict([EVERY[index]], [inherited[index]])[0][0] == unseen[i]


def test_what_says_nothing_ranks_pairs_left_out_neither_way():
    """Each left out alone it ranks them in reverse: the mean of the others falls as the one left out rises."""
    alone, in_pairs = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        picked = rng.permutation(len(EVERY))[:8]
        calibration = Calibration.fit(POOLING, [EVERY[i] for i in picked], *(0.9 + 0.01 * rng.standard_normal((2, 8))))
        alone.append(kendall(calibration.leave_one_out(), calibration.standalone))
        in_pairs.append(calibration.leave_pairs_out_kendall())
    assert np.mean(alone) < -0.1
    assert abs(np.mean(in_pairs)) < 2 * np.std(in_pairs) / np.sqrt(len(in_pairs))


def test_leaving_pairs_out_is_fitting_to_the_others():
    calibration, picked = fitted(6)
    inherited, true = table()
    agree = []
    for pair in itertools.combinations(picked, 2):
        others = np.setdiff1d(picked, pair)
        partial = Calibration.fit(POOLING, [EVERY[i] for i in others], inherited[others], true[others])
        first, second = partial.predict([EVERY[i] for i in pair], inherited[list(pair)])[0]
        agree.append(np.sign(first - second) * np.sign(true[pair[0]] - true[pair[1]]))
    assert calibration.leave_pairs_out_kendall() == pytest.approx(np.mean(agree))


def test_the_deviation_is_small_at_the_pairs():
    calibration, picked = fitted(8)
    mean, std = calibration.predict(EVERY, table()[0])
    elsewhere = np.setdiff1d(np.arange(len(EVERY)), picked)
    assert std[picked].max() < std[elsewhere].mean()
    assert np.abs(mean[picked] - table()[1][picked]).max() < 0.01
    assert all(part.shape == (0,) for part in calibration.predict([], []))


@given(st.floats(0.01, 10), st.floats(-1, 1), st.permutations(range(8)))
@settings(max_examples=20, deadline=None)
def test_units_and_order_of_the_pairs_do_not_matter(scale, shift, order):
    calibration, picked = fitted(8)
    inherited, true = table()
    reordered = picked[np.array(order)]
    archs = [EVERY[i] for i in reordered]
    other = Calibration.fit(POOLING, archs, scale * inherited[reordered], scale * true[reordered] + shift)
    mean, std = calibration.predict(EVERY, inherited)
    scaled_mean, scaled_std = other.predict(EVERY, scale * inherited)
    np.testing.assert_allclose(scaled_mean, scale * mean + shift, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(scaled_std, scale * std, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("constant", ["inherited", "standalone", "both"])
def test_constant_accuracies_give_finite_predictions(constant):
    inherited, true = (np.full(6, 0.5) if constant in (name, "both") else np.linspace(0.4, 0.9, 6)
                       for name in ("inherited", "standalone"))  # fmt: skip
    calibration = Calibration.fit(POOLING, EVERY[:6], inherited, true)
    mean, std = calibration.predict(EVERY, np.linspace(0, 1, len(EVERY)))
    assert np.isfinite(mean).all()
    assert np.isfinite(std).all()
    if constant != "inherited":
        np.testing.assert_allclose(mean, 0.5)


def test_the_curve_rises_with_k_and_lies_above_ridge():
    inherited, true = table()
    curve = fidelity_curve(POOLING, EVERY, inherited, true, random_samples(36, (6, 12), 20, seed=1))
    assert [point.k for point in curve] == [6, 12]
    assert curve[0].kendall < curve[1].kendall
    assert all(point.kendall > point.ridge_kendall and point.picked >= point.ridge_picked for point in curve)
    assert curve == fidelity_curve(POOLING, EVERY, inherited, true, random_samples(36, (6, 12), 20, seed=1))


def test_bad_pairs_are_named():
    archs = EVERY[:4]
    for arguments, message in (
        ((archs[:3], [0.1, 0.2, 0.3], [0.1, 0.2, 0.3]), "at least 4"),
        ((archs, [0.1], [0.1, 0.2, 0.3, 0.4]), "4 architectures, 1 inherited and 4"),
        (([*archs[:3], archs[0]], [0.1] * 4, [0.2] * 4), "twice"),
        ((archs, [0.1, 0.2, 0.3, float("nan")], [0.2] * 4), "not a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            Calibration.fit(POOLING, *arguments)


@pytest.mark.parametrize(
    "data", [{}, {"pairs": 3}, {"pairs": [{}]}, {"pairs": [3]}, {"pairs": []},
             {"pairs": [{"arch": {"depth": [9]}, "inherited": 0.1, "standalone": 0.1}]},
             {"pairs": [{"arch": EVERY[i].to_dict(), "inherited": "a", "standalone": 0.1} for i in range(4)]},
             *({"pairs": [{"arch": EVERY[i].to_dict(), "inherited": 0.1, "standalone": bad} for i in range(4)]}
               for bad in ({}, [], "0.9", True, None))]
)  # fmt: skip
def test_a_changed_file_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"\w"):
        Calibration.from_dict(POOLING, data)
