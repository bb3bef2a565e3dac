"""Fine-tuning starts from the weights it is given, on shared images that hold no test image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from supernets import randomised

from search_spaces import catalog
from search_spaces.plan import plan
from supernet import datasets
from supernet.data import prepare
from supernet.evaluate import count_correct
from supernet.finetune import Images, fine_tune, scored, shared_images
from supernet.recipe import TrainConfig
from supernet.standalone import train_alone
from supernet.train import TrainingError

SPACE = catalog.get("digits")
ARCH = SPACE.smallest()
SMALL = plan(SPACE, ARCH)
CONFIG = TrainConfig(batch_size=128, lr=0.05)


@pytest.fixture(scope="module")
def data():
    return prepare(datasets.load("digits"), 0)


@pytest.fixture(scope="module")
def start():
    return randomised(SPACE).export(ARCH)


def tuned(start, data, config=CONFIG, epochs=2):
    """After every epoch: the weights and how many images they get right."""
    found = []
    fine_tune(
        SMALL, start.state_dict(), data, config, epochs, 0,
        lambda subnet, correct: found.append((subnet.state_dict(), correct)),
    )  # fmt: skip
    return found


def test_it_is_the_training_of_a_network_alone_from_given_weights(data, start):
    before = {name: t.clone() for name, t in start.state_dict().items()}
    found = tuned(start, data)
    alone = train_alone(SMALL, data, CONFIG, 2, 0, "cpu", start=start)
    ready, correct = scored(alone, data)
    assert found[1][1] == correct == count_correct(ready, data.validation, data.mean, data.std)
    assert all(torch.equal(found[1][0][name], t) for name, t in ready.state_dict().items())
    assert all(torch.equal(before[name], t) for name, t in start.state_dict().items())
    assert alone.training
    assert not torch.equal(found[0][0]["head.fc.weight"], found[1][0]["head.fc.weight"])


def test_a_rate_of_nearly_zero_leaves_the_weights_where_they_start(data, start):
    found = tuned(start, data, replace(CONFIG, lr=1e-12), epochs=1)
    kernels = [name for name, t in start.state_dict().items() if t.ndim == 4]
    for name in kernels:
        torch.testing.assert_close(found[0][0][name], start.state_dict()[name], rtol=0, atol=1e-9)
    assert found[0][1] == scored(start, data)[1]


def test_shared_images_are_used_in_place_and_hold_no_test_image(data, start):
    shared = shared_images(data)
    for array in shared.values():
        array.setflags(write=False)  # as an object store gives them
    again = Images.of(data).data(shared)
    assert len(again.test) == 0
    assert sum(len(a) for name, a in shared.items() if name.endswith(".labels")) == sum(
        len(split) for split in (data.train, data.calibration, data.validation)
    )
    assert again.train.images.data_ptr() == data.train.images.data_ptr()
    (_, correct), (_, expected) = tuned(start, again, epochs=1)[0], tuned(start, data, epochs=1)[0]
    assert correct == expected


def test_streamed_training_images_travel_as_their_files(data):
    files = object()  # stands for `supernet.streaming.ImageFiles`, which is handed on as it is
    streamed = replace(data, train=replace(data.train, images=files))
    shared = shared_images(streamed)
    assert "images.train" not in shared
    assert Images.of(streamed).data(shared).train.images is files


@pytest.mark.parametrize("lr", [1e30, 1e6])
def test_a_training_that_diverges_says_so(data, start, lr):
    with pytest.raises(TrainingError, match="not finite"):
        tuned(start, data, replace(CONFIG, lr=lr, clip_norm=1e30))
