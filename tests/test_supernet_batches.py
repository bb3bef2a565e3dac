"""Training batches: augmentation, order, and the middle of an epoch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from images import (
    raw_data,
)
from torch.nn import functional as F

from supernet.batches import augment, steps_per_epoch, train_batches
from supernet.data import Split, fingerprint, normalize, prepare


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize(dtype: torch.dtype) -> None:
    images = raw_data([5, 5]).train_images
    before, mean, std = images.clone(), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    result = normalize(images, mean, std, dtype=dtype)
    assert result.dtype == dtype
    assert torch.equal(result, ((images.float() / 255 - shift) / scale).to(dtype))
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("size", "pad", "expected_pad"), [(8, None, 1), (6, None, 1), (32, None, 4), (8, 3, 3), (8, 0, 0)]
)
@pytest.mark.parametrize("flip", [True, False])
def test_augment_gives_crops_of_the_padded_image(size: int, pad: int | None, expected_pad: int, flip: bool) -> None:
    images = torch.randint(1, 256, (200, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    result = augment(images, torch.Generator().manual_seed(1), flip, pad)
    assert torch.equal(images, before)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    padded = F.pad(images, (expected_pad,) * 4)
    seen: set[tuple[int, int, bool]] = set()
    for crop, wide in zip(result, padded, strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(2 * expected_pad + 1)
            for left in range(2 * expected_pad + 1)
            for mirrored in (False, True)
            if torch.equal(crop.flip(2) if mirrored else crop, wide[:, top : top + size, left : left + size])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert {mirrored for *_, mirrored in seen} == ({False, True} if flip else {False})
    assert {top for top, *_ in seen} == {left for _, left, _ in seen} == set(range(2 * expected_pad + 1))
    assert (
        len({(top, left) for top, left, _ in seen}) > (2 * expected_pad + 1) ** 2 // 2
    )  # rows and columns independent


def test_half_of_the_images_are_flipped() -> None:
    images = torch.zeros((4000, 1, 8, 8), dtype=torch.uint8)
    images[..., :4] = 255
    result = augment(images, torch.Generator().manual_seed(0), flip=True, pad=0)
    flipped = (result[:, 0, 0, 0] == 0).float().mean()
    assert 0.46 < flipped < 0.54  # 5 standard deviations


def test_augment_is_deterministic_and_takes_a_batch_of_any_size_and_layout() -> None:
    images = raw_data([6, 5]).train_images
    first, second = (augment(images, torch.Generator().manual_seed(3), True) for _ in range(2))
    assert torch.equal(first, second)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, augment(last, torch.Generator().manual_seed(3), True))
    assert augment(images[:1], torch.Generator().manual_seed(3), True).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(10, 3, 3), (9, 3, 3), (10, 10, 1), (10, 64, 1), (1, 1, 1)])
def test_steps_per_epoch(n: int, batch_size: int, steps: int) -> None:
    assert steps_per_epoch(n, batch_size) == steps


@pytest.mark.parametrize(("n", "batch_size"), [(0, 8), (8, 0), (8, -1)])
def test_steps_per_epoch_refuses_nothing(n: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"{n} images in batches of {batch_size}"):
        steps_per_epoch(n, batch_size)


@pytest.mark.parametrize("start", [0, 1, 4, 7, 8])
def test_batches_resumed_in_the_middle_are_the_same(start: int) -> None:
    data = prepare(raw_data([40, 40]), 0)
    full = list(train_batches(data, 8, seed=5, epoch=2))
    assert [step for step, *_ in full] == list(range(len(data.train) // 8))
    resumed = list(train_batches(data, 8, seed=5, epoch=2, start=start))
    assert len(resumed) == len(full) - start
    for (step, images, labels), (full_step, full_images, full_labels) in zip(resumed, full[start:], strict=True):
        assert step == full_step
        assert torch.equal(images, full_images)
        assert torch.equal(labels, full_labels)


def test_an_epoch_visits_each_image_once_in_an_order_of_its_own() -> None:
    data = prepare(raw_data([40, 40]), 0)
    plain = replace(data, mean=(0.0,) * 3, std=(1 / 255,) * 3, flip=False)
    colours = torch.arange(len(data.train), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    plain = replace(plain, train=Split(colours, data.train.labels))

    def visits(seed: int, epoch: int) -> list[int]:
        batches = list(train_batches(plain, 8, seed, epoch))
        order = [round(value) for _, images, _ in batches for value in images[:, 0, 4, 4].tolist()]
        assert torch.equal(data.train.labels[order], torch.cat([labels for *_, labels in batches]))
        return order

    first = visits(0, 0)
    assert sorted(first) == list(range(64))
    assert first not in (visits(0, 1), visits(1, 0), sorted(first))


def test_every_step_epoch_and_seed_augments_in_its_own_way() -> None:
    data = prepare(raw_data([40, 40]), 0)
    same = data.train.images[:1].expand(len(data.train), -1, -1, -1).contiguous()
    data = replace(data, train=Split(same, data.train.labels))
    runs = [(0, 0), (0, 1), (1, 0)]
    batches = [images.numpy().tobytes() for run in runs for _, images, _ in train_batches(data, 8, *run)]
    assert len(set(batches)) == len(batches) == 24


def test_a_batch_larger_than_the_set_is_the_whole_set() -> None:
    data = prepare(raw_data([5, 5]), 0)
    ((step, images, labels),) = train_batches(data, 512, 0, 0)
    assert step == 0
    assert images.dtype == torch.float32
    assert len(images) == len(labels) == len(data.train)


@pytest.mark.parametrize("start", [-1, 9])
def test_start_outside_the_epoch_is_refused_at_the_call(start: int) -> None:
    with pytest.raises(ValueError, match=f"start {start} is not in 0 to 8"):
        train_batches(prepare(raw_data([40, 40]), 0), 8, 0, 0, start)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_are_the_same_on_a_gpu() -> None:
    data = prepare(raw_data([40, 40]), 0)
    there = data.to("cuda")
    assert fingerprint(there) == fingerprint(data)
    for here, gpu in zip(train_batches(data, 8, 0, 0), train_batches(there, 8, 0, 0), strict=True):
        assert gpu[1].is_cuda
        assert torch.allclose(gpu[1].cpu(), here[1], atol=1e-6)
        assert torch.equal(gpu[2].cpu(), here[2])
    images = augment(there.train.images, torch.Generator("cuda").manual_seed(0), flip=True)
    assert images.is_cuda
