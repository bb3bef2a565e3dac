"""Scores: recalibration is the average of batch statistics, private to the subnet, and the same for every worker."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from spaces import NETWORKS
from supernets import randomised

from search_spaces import catalog
from supernet import datasets
from supernet.data import Split, normalize, prepare
from supernet.evaluate import (
    BATCH,
    SupernetEvaluator,
    calibration_batches,
    count_correct,
    evaluator_from_arrays,
    predict,
    recalibrate,
    shared_arrays,
)
from supernet.subnet import resized


@pytest.fixture(scope="module")
def data():
    return prepare(datasets.load("digits"), seed=0)


@pytest.fixture(scope="module")
def supernet():
    return randomised(catalog.get("digits")).eval()


def test_recalibration_is_the_cumulative_average_of_batch_statistics(supernet, data):
    subnet = supernet.export(supernet.space.largest())
    images = data.train.images[: 2 * BATCH]
    recalibrate(subnet, images, data.mean, data.std)
    x = normalize(images, data.mean, data.std)
    with torch.no_grad():
        conv = [subnet.stem.conv(part) for part in x.split(BATCH)]
    mean = torch.stack([out.mean((0, 2, 3)) for out in conv]).mean(0)
    var = torch.stack([out.var((0, 2, 3)) for out in conv]).mean(0)
    torch.testing.assert_close(subnet.stem.bn.running_mean, mean)
    torch.testing.assert_close(subnet.stem.bn.running_var, var)
    assert not subnet.training
    assert subnet.stem.bn.momentum == 0.1


def test_a_remainder_of_one_image_has_no_batch_of_its_own(supernet, data):
    """Of 251 images, one alone would decide half of every statistic, and have none where features are of one pixel."""
    for n, sizes in ((1, [1]), (BATCH, [250]), (BATCH + 1, [126, 125]), (2 * BATCH, [250, 250])):
        assert [len(batch) for batch in calibration_batches(data.train.images[:n])] == sizes
    subnet, other = (supernet.export(supernet.space.largest()) for _ in range(2))
    recalibrate(subnet, data.train.images[:BATCH], data.mean, data.std)
    recalibrate(other, data.train.images[: BATCH + 1], data.mean, data.std)
    torch.testing.assert_close(other.stem.bn.running_var, subnet.stem.bn.running_var, rtol=0.02, atol=0)


def test_recalibration_forgets_what_was_there_before(supernet, data):
    arch, images = supernet.space.smallest(), data.calibration.images
    a, b = supernet.export(arch), supernet.export(arch)
    with torch.no_grad():
        b.stem.bn.running_mean += 5
    for subnet in (a, b):
        recalibrate(subnet, images, data.mean, data.std)
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def test_images_are_resized_to_the_resolution_as_in_the_elastic_forward(data):
    space = replace(catalog.get("digits"), resolutions=(6, 8))
    supernet = randomised(space).eval()
    arch, images = space.smallest(), data.validation.images[:50]
    assert arch.resolution == 6
    with torch.no_grad():
        elastic = supernet(normalize(images, data.mean, data.std), arch)
    torch.testing.assert_close(predict(supernet.export(arch), images, data.mean, data.std), elastic, rtol=0, atol=1e-5)
    subnet = supernet.export(arch)
    recalibrate(subnet, images, data.mean, data.std)
    x = resized(normalize(images, data.mean, data.std), 6)
    torch.testing.assert_close(subnet.stem.bn.running_mean, subnet.stem.conv(x).mean((0, 2, 3)))


@pytest.mark.parametrize("name", [n for n, s in NETWORKS.items() if s.in_channels == 1 and s.image_size == 8])
def test_evaluation_leaves_the_supernet_and_other_evaluations_alone(name, data):
    supernet = randomised(NETWORKS[name])
    evaluator = SupernetEvaluator(supernet, data.calibration.images, data.validation, data.mean, data.std)
    before = {k: t.clone() for k, t in supernet.state_dict().items()}
    rng = np.random.default_rng(0)
    archs = [supernet.space.sample(rng) for _ in range(3)]
    together = evaluator.evaluate(archs)
    one_by_one = [evaluator.evaluate([arch])[0] for arch in reversed(archs)][::-1]
    assert together == one_by_one
    assert all(torch.equal(before[k], t) for k, t in supernet.state_dict().items())


def test_an_evaluator_over_shared_arrays_gives_the_same_scores_and_writes_to_none(supernet, data):
    direct = SupernetEvaluator(supernet, data.calibration.images, data.validation, data.mean, data.std)
    arrays = shared_arrays(supernet.state_dict(), data)
    for array in arrays.values():
        array.flags.writeable = False
    factory = partial(evaluator_from_arrays, supernet.space.to_dict(), data.mean, data.std, "cpu")
    archs = [supernet.space.smallest(), supernet.space.largest()]
    assert factory(arrays).evaluate(archs) == direct.evaluate(archs)
    assert sorted(n for n in arrays if not n.startswith("weights.")) == ["calibration", "labels", "validation"]


def test_scores_do_not_depend_on_the_threads_of_the_process(supernet, data):
    evaluator = SupernetEvaluator(supernet, data.calibration.images, data.validation, data.mean, data.std)
    arch, before = supernet.space.largest(), torch.get_num_threads()
    scores = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            scores.append(evaluator.evaluate([arch]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert scores[0] == scores[1]


def test_counting_is_the_share_of_right_answers(supernet, data):
    subnet = supernet.export(supernet.space.smallest())
    recalibrate(subnet, data.calibration.images, data.mean, data.std)
    answers = predict(subnet, data.validation.images, data.mean, data.std).argmax(1)
    perfect = Split(data.validation.images, answers)
    assert count_correct(subnet, perfect, data.mean, data.std) == len(answers)
    wrong = Split(data.validation.images, (answers + 1) % 10)
    assert count_correct(subnet, wrong, data.mean, data.std) == 0


def test_logits_that_are_not_finite_are_an_error_and_no_score(data):
    supernet = randomised(catalog.get("digits"))
    with torch.no_grad():
        supernet.head.fc.bias.fill_(float("nan"))
    evaluator = SupernetEvaluator(supernet, data.calibration.images, data.validation, data.mean, data.std)
    with pytest.raises(ValueError, match="not finite"):
        evaluator.evaluate([supernet.space.smallest()])
