"""A network trained alone: its seed decides it, it learns, and it starts as a supernet's subnet does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from search_spaces import catalog
from search_spaces.network import NetworkSpace
from search_spaces.plan import plan
from search_spaces.stage import Stage
from supernet import datasets
from supernet.batches import train_batches
from supernet.data import prepare
from supernet.model import Supernet
from supernet.optim import make_average
from supernet.recipe import TrainConfig
from supernet.standalone import initialised, train_alone
from supernet.train import Trainer, TrainingError

SPACE = catalog.get("digits")
SMALL = plan(SPACE, SPACE.smallest())
CONFIG = TrainConfig(batch_size=128, lr=0.1)


@pytest.fixture(scope="module")
def data():
    return prepare(datasets.load("digits"), 0)


def weights(subnet):
    return {name: tensor.clone() for name, tensor in subnet.state_dict().items()}


def test_equal_arguments_give_equal_weights_whatever_the_process_drew_before(data):
    torch.manual_seed(1)
    first = weights(train_alone(SMALL, data, CONFIG, 2, 3, "cpu"))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = weights(train_alone(SMALL, data, CONFIG, 2, 3, "cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = weights(train_alone(SMALL, data, CONFIG, 2, 4, "cpu"))
    assert not torch.equal(first["head.fc.weight"], other["head.fc.weight"])


RECIPES = {
    "plain": TrainConfig(regularize_biggest_only=True),
    "everything": TrainConfig(mixup=0.2, drop_connect=0.3, ema=0.9, regularize_biggest_only=False),
    "a teacher": TrainConfig(distillation="ce_kd", teacher="given"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_the_training_of_a_supernet_that_holds_one_network(data, name):
    config = replace(RECIPES[name], epochs=1, batch_size=128, step_plan="single_path", seed=5)
    stages = (Stage((1,), (8,), (3,), stride=2), Stage((2,), (12,), (3,)))
    space = NetworkSpace("one", stages, num_pools=0, in_channels=1, image_size=8)
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)) if config.teacher else None
    lowered = plan(space, space.largest())
    trainer = Trainer(Supernet(space), data, config, "cpu", teacher)
    for weight, start in zip(trainer.supernet.parameters(), initialised(lowered, 5).parameters(), strict=True):
        weight.data.copy_(start.data.view_as(weight))
    if trainer.average:
        trainer.average = make_average(trainer.supernet, config)
    for _, images, labels in train_batches(trainer.data, 128, 5, 0):
        trainer.train_step(images, labels)
    subnet = train_alone(lowered, data, config, 1, 5, "cpu", teacher=teacher)
    together = trainer.ready.export(space.largest())
    for (key, weight), other in zip(subnet.named_parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


def test_what_regularises_the_biggest_alone_leaves_others_alone(data):
    config = replace(CONFIG, step_plan="sandwich", dropout=0.5, drop_connect=0.5)
    plain = replace(CONFIG, dropout=0.0, drop_connect=0.0)
    small, without = (weights(train_alone(SMALL, data, c, 1, 3, "cpu")) for c in (config, plain))
    big = weights(train_alone(SMALL, data, config, 1, 3, "cpu", largest=True))
    assert all(torch.equal(small[name], without[name]) for name in small)
    assert not all(torch.equal(small[name], big[name]) for name in small)


def test_no_network_is_regularised_alone_that_is_not_in_its_supernet(data):
    """Where the supernet does not single out the largest, it is trained alone as all are whose ranks are compared."""
    config = TrainConfig(batch_size=64, lr=0.1)
    assert config.dropout > 0
    trained, without = (
        weights(train_alone(SMALL, data, c, 1, 3, "cpu", largest=True)) for c in (config, replace(config, dropout=0.0))
    )
    assert all(torch.equal(trained[name], without[name]) for name in trained)


def test_it_learns_and_reports_every_tenth_step_and_the_last(data):
    records = []
    subnet = train_alone(SMALL, data, TrainConfig(batch_size=64, lr=0.3), 4, 0, "cpu", records.append)
    total = 4 * (len(data.train) // 64)
    assert [r["step"] for r in records] == [*range(10, total, 10), total]
    assert records[-1]["loss"] < 0.9 * records[0]["loss"]
    assert subnet.training


@pytest.mark.parametrize("name", catalog.SPACES)
def test_every_residual_branch_starts_at_zero_and_every_bias_too(name):
    space = catalog.get(name)
    subnet = initialised(plan(space, space.smallest()), 0)
    layers = [(block, layer) for block in subnet.plain_blocks() for layer in block.block.layers]
    norms = [(b.get_submodule(layer.name).weight, layer.ends_residual) for b, layer in layers if layer.op == "norm"]
    assert any(ends for _, ends in norms)
    assert all(weight.eq(0.0 if ends else 1.0).all() for weight, ends in norms)
    convs = [b.get_submodule(layer.name) for b, layer in layers if layer.op == "conv"]
    for conv in convs:
        fan_out = conv.weight.shape[0] * conv.weight.shape[2] * conv.weight.shape[3]
        if conv.weight.numel() > 1000:
            assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.15)
        assert conv.bias is None or conv.bias.eq(0).all()


def test_a_diverging_training_names_step_and_learning_rate(data):
    with pytest.raises(TrainingError, match=r"not finite at step \d+ of 18 .*the recipe's lr is 1e\+30"):
        train_alone(SMALL, data, TrainConfig(batch_size=128, lr=1e30), 2, 0, "cpu")


@pytest.mark.parametrize(("epochs", "device", "message"), [(0, "cpu", "epochs is 0"), (1, "tpu", "unknown device")])
def test_bad_arguments_are_named(data, epochs, device, message):
    with pytest.raises(ValueError, match=message):
        train_alone(SMALL, data, CONFIG, epochs, 0, device)
