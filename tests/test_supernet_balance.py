"""What is said of the classes: their counts, those that are rare, and those that a split lacks."""

from __future__ import annotations

from dataclasses import replace

import torch
from images import parts, raw_data

from supernet.balance import concerns, summary
from supernet.data import prepare


def test_balanced_classes_give_no_concern():
    data = prepare(raw_data([50, 50]), seed=0)
    assert summary(data) == (
        "80 training images of 2 classes, 40 each; 10 calibration, 10 search-validation and 4 test images"
    )
    assert concerns(replace(data, test=data.train)) == []


def test_rare_and_absent_classes_are_named_with_their_counts():
    data = prepare(raw_data([400, 300, 5]), seed=0)
    assert summary(data).startswith("565 training images of 3 classes, 3 ('c2') to 322 ('c0'); 70 calibration, ")
    rare, absent = concerns(data)
    assert rare.startswith("few of the 565 training images are of 'c2' (3): ")
    assert absent.startswith("no test image is of 'c1', 'c2': ")


def test_a_class_far_below_its_share_is_rare_in_a_large_set():
    data = prepare(raw_data([3000, 150]), seed=0)
    assert concerns(replace(data, test=data.train))[0].startswith("few of the 2520 training images are of 'c1' (120)")


def test_every_split_of_the_training_images_has_even_the_rarest_class():
    data = prepare(raw_data([400, 300, 3]), seed=0)
    assert [int((split.labels == 2).sum()) for split in parts(data)] == [1, 1, 1]
    shares = [torch.bincount(split.labels)[0] / torch.bincount(split.labels)[1] for split in parts(data)]
    assert all(abs(share - 4 / 3) < 0.1 for share in shares)
