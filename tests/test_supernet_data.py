"""Splits, the numbers that normalise, and the fingerprint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images import (
    indices,
    parts,
    raw_data,
)

from supernet.data import DataError, fingerprint, prepare, stratified_split


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(3, 120), min_size=2, max_size=12), seed=st.integers(0, 2**64))
def test_splits_are_disjoint_stratified_and_deterministic(counts: list[int], seed: int) -> None:
    raw = raw_data(counts)
    data, again = prepare(raw, seed), prepare(raw, seed)
    found = [indices(split) for split in parts(data)]
    assert sorted(index for split in found for index in split) == list(range(sum(counts)))
    assert found == [indices(split) for split in parts(again)]
    for split, index in zip(parts(data), found, strict=True):
        assert torch.equal(split.labels, raw.train_labels[index])
        assert torch.equal(split.images, raw.train_images[index])
    tenth = sum(counts) // 10
    for split in (data.calibration, data.validation):
        share = torch.bincount(split.labels, minlength=len(counts)).numpy()
        quota = np.array(counts) * tenth / sum(counts)
        assert (share >= np.maximum(np.floor(quota), 1)).all()
        assert (share <= np.maximum(np.ceil(quota), 1)).all()
        assert len(split) == tenth or (len(split) > tenth and share.min() == 1)
    assert data.train.labels.unique().tolist() == list(range(len(counts)))


def test_split_depends_on_the_seed_and_mixes_classes() -> None:
    raw = raw_data([100, 100, 100])
    one, two = prepare(raw, 1), prepare(raw, 2)
    assert set(indices(one.validation)) != set(indices(two.validation))
    assert one.calibration.labels[:10].unique().numel() > 1
    assert torch.equal(one.test.images, raw.test_images)
    assert (one.in_channels, one.image_size, one.num_classes) == (3, 8, 3)


def test_split_sizes_are_capped() -> None:
    parts = stratified_split(
        torch.arange(70000) % 7,
        tuple("abcdefg"),
        {"calibration": 2000, "validation": 5000},
        np.random.default_rng(0),
    )
    assert {name: len(index) for name, index in parts.items()} == {
        "calibration": 2000,
        "validation": 5000,
        "train": 63000,
    }


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_training_images(count: int) -> None:
    with pytest.raises(DataError, match=rf"class 'c1' has {count} images.*at least 3"):
        prepare(raw_data([9, count, 9]), 0)


def test_three_images_a_class_are_enough() -> None:
    data = prepare(raw_data([3, 3]), 0)
    assert [split.labels.sort().values.tolist() for split in parts(data)] == [[0, 1]] * 3


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mean_and_std_are_those_of_train(channels: int) -> None:
    data = prepare(raw_data([2600, 2600], channels=channels), 0)  # more than one chunk
    pixels = data.train.images.numpy() / 255
    assert data.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), rel=1e-12)


def test_std_of_a_constant_channel_has_a_floor() -> None:
    raw = raw_data([10, 10])
    data = prepare(replace(raw, train_images=torch.full_like(raw.train_images, 7)), 0)
    assert data.mean == pytest.approx([7 / 255] * 3, rel=1e-12)
    assert data.std == (1e-3,) * 3


def test_fingerprint() -> None:
    raw = raw_data([20, 20])
    base = fingerprint(prepare(raw, 0))
    assert base == fingerprint(prepare(raw, 0)) == fingerprint(prepare(raw, 0).to("cpu"))
    assert len(base) == 64
    pixel, label, test = raw.train_images.clone(), raw.train_labels.clone(), raw.test_images.clone()
    pixel[5, 0, 3, 3] ^= 1
    label[5] = 1
    test[0, 0, 0, 0] ^= 1
    others = [
        replace(raw, train_images=pixel),
        replace(raw, train_labels=label),
        replace(raw, test_images=test),
        replace(raw, classes=("c0", "other")),
        replace(raw, flip=False),
    ]
    assert len({base, fingerprint(prepare(raw, 1)), *(fingerprint(prepare(other, 0)) for other in others)}) == 7
