"""Even influence: how shares follow from overlaps, how overlaps are measured, and that a run with both resumes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainings import CONFIG, TINY, assert_same_run, digits, new_trainer, train_all

from search_spaces import catalog
from supernet.batches import train_batches
from supernet.distill import label_loss
from supernet.distributed import ALONE
from supernet.model import Supernet
from supernet.probe import Probe
from supernet.samplers import Probes, influence_even
from supernet.samplers.influence_even import InfluenceEven, even_shares

POOLING = catalog.get("resnet20_pooling")


@pytest.fixture(scope="module")
def data():
    return digits(160)


def probes_of(overlaps):
    return Probes(batch=lambda arch: 1.0, held_out=lambda arch: 1.0, overlaps=overlaps)


def influences(shares, overlaps):
    return shares @ overlaps / np.diag(overlaps)


def test_groups_that_share_nothing_get_equal_shares_whatever_their_size():
    groups = np.repeat([0, 1, 2], [1, 3, 8])
    shares = even_shares((groups[:, None] == groups).astype(float))
    np.testing.assert_allclose(np.bincount(groups, shares), 1 / 3, atol=0.01)


def test_architectures_that_share_nothing_are_drawn_uniformly_however_steep_their_losses():
    np.testing.assert_allclose(even_shares(np.diag([0.01, 1.0, 1.0, 100.0])), 1 / 4)


def test_architectures_that_undo_each_other_are_drawn_uniformly():
    np.testing.assert_allclose(even_shares(np.array([[1.0, -1.0], [-1.0, 1.0]])), 1 / 2)
    shares = even_shares(np.array([[1.0, -2.0], [-2.0, 4.0]]))
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 36), shared=st.floats(0, 3))
def test_influence_is_more_even_than_by_uniform_draws(seed, n, shared):
    """On gradients that agree more or less; relative to its mean, for fewer steps on all change no ranking."""
    rng = np.random.default_rng(seed)
    gradients = rng.standard_normal((n, 50)) + shared * rng.standard_normal(50)
    overlaps = gradients @ gradients.T
    shares = even_shares(overlaps)
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)
    ours, uniform = (influences(p, overlaps) for p in (shares, np.full(n, 1 / n)))
    assert ours.std() / ours.mean() <= uniform.std() / uniform.mean() + 0.01


def test_draws_follow_the_shares_but_for_a_uniform_fifth():
    sampler = InfluenceEven(POOLING, seed=0)
    favoured = list(range(30, 36))

    def overlaps(archs):  # the last six share nothing, the others are one and the same
        alike = np.ones((36, 36))
        alike[favoured] = alike[:, favoured] = 0
        return alike + np.diag([float(i in favoured) for i in range(36)])

    sampler.begin_step(sampler.period, 10 * sampler.period, probes_of(overlaps))
    rng = np.random.default_rng(0)
    drawn = [sampler.draw(rng, probes_of(overlaps)) for _ in range(3000)]
    share = np.mean([arch in [sampler.archs[i] for i in favoured] for arch in drawn])
    assert share == pytest.approx(0.2 * 6 / 36 + 0.8 * 6 / 7, abs=0.03)


def test_it_measures_once_a_period_and_keeps_what_it_knows_when_a_network_diverges():
    sampler, asked = InfluenceEven(POOLING, seed=0), []
    for step in range(2 * sampler.period + 1):
        sampler.begin_step(step, 10**6, probes_of(lambda archs, step=step: asked.append(step) or np.eye(len(archs))))
    assert asked == [sampler.period, 2 * sampler.period]
    known = sampler.state()
    for bad in (np.nan, np.inf, 0.0):
        sampler.begin_step(sampler.period, 10**6, probes_of(lambda archs, bad=bad: np.full((36, 36), bad)))
    np.testing.assert_equal(sampler.state(), known)


def test_overlaps_of_the_same_architectures_are_averaged_whatever_their_scale():
    sampler, rng = InfluenceEven(POOLING, seed=0), np.random.default_rng(0)
    expected = None
    for step, scale in enumerate((1.0, 50.0, 0.01), start=1):
        gradients = rng.standard_normal((36, 50)) + 1
        overlaps = gradients @ gradients.T
        sampler.begin_step(step * sampler.period, 10**6, probes_of(lambda archs, g=scale * overlaps: g))
        relative = overlaps / np.diag(overlaps).mean()
        expected = relative if expected is None else 0.8 * expected + 0.2 * relative
        np.testing.assert_allclose(sampler.overlaps, expected)
        np.testing.assert_allclose(sampler.shares, even_shares(expected))
        resumed = InfluenceEven(POOLING, seed=0)
        resumed.load(sampler.state())
        sampler = resumed


def test_a_small_space_is_compared_whole_and_a_large_one_by_new_samples():
    asked = []
    probes = probes_of(lambda archs: asked.append(archs) or np.eye(len(archs)))
    for space in (POOLING, catalog.get("resnet_cifar")):
        sampler = InfluenceEven(space, seed=0)
        for step in (sampler.period, 2 * sampler.period):
            sampler.begin_step(step, 10**6, probes)
    assert set(asked[0]) == set(asked[1])
    assert [len(set(archs)) for archs in asked] == [36] * 4
    assert not set(asked[2]) & set(asked[3])


def test_gradients_of_large_networks_are_kept_to_a_gibibyte(monkeypatch):
    assert InfluenceEven(catalog.get("resnet_cifar"), seed=0).most == 36
    monkeypatch.setattr(influence_even, "FLOATS", 1 << 20)
    assert 2 <= InfluenceEven(catalog.get("resnet_cifar"), seed=0).most < 36


def test_overlaps_are_inner_products_of_gradients_and_leave_no_trace(data):
    torch.manual_seed(0)
    supernet = Supernet(TINY).train()
    with torch.no_grad():  # zeros at the end of every block would hide what is before
        for weight in supernet.parameters():
            weight += 0.1 * torch.randn_like(weight)
    archs = [TINY.sample(np.random.default_rng(i)) for i in range(4)]
    _, images, labels = next(train_batches(data, 32, seed=0, epoch=0))
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    overlaps = Probe(data, 0, nullcontext, ALONE).overlaps(supernet, archs, images, labels)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())
    assert all(weight.grad is None for weight in supernet.parameters())
    rows = []
    for arch in archs:
        supernet.zero_grad(set_to_none=False)
        label_loss(supernet(images, arch), labels).backward()
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in supernet.parameters()]
        rows.append(torch.cat([grad.flatten() for grad in grads]))
    expected = torch.stack(rows) @ torch.stack(rows).T
    np.testing.assert_allclose(overlaps, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_run_that_measures_resumes_bit_for_bit(data, tmp_path, monkeypatch):
    monkeypatch.setattr(influence_even, "STEPS_EACH", 1)
    monkeypatch.setattr(influence_even, "CANDIDATES", 4)
    config = replace(CONFIG, epochs=4, batch_size=32, step_plan="single_path", sampler="influence_even")
    expected, resumed = tmp_path / "expected", tmp_path / "resumed"
    whole = new_trainer(data, config, TINY)
    assert train_all(whole, expected)
    assert len(whole.sampler.archs) == 4
    assert not train_all(new_trainer(data, config, TINY), resumed, stop_at=6)
    second = new_trainer(data, config, TINY)
    second.restore(resumed / "checkpoint.safetensors")
    assert second.sampler.archs
    assert train_all(second, resumed)
    assert_same_run(resumed, expected)
