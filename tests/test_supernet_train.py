"""Training: the sandwich rule holds, a resumed run is the uninterrupted one bit for bit, bad runs are refused."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from search_spaces import catalog
from supernet import checkpoint, datasets
from supernet.data import prepare
from supernet.distill import soft_cross_entropy
from supernet.model import Supernet
from supernet.recipe import TrainConfig
from supernet.sampling import SAMPLERS, sandwich, step_rng
from supernet.train import Hooks, Trainer, TrainingError, fit, load_supernet, resolve_device

CONFIG = TrainConfig(epochs=2, batch_size=128, lr=0.1, seed=3)


@pytest.fixture(scope="module")
def data():
    return prepare(datasets.load("digits"), seed=0)


def new_trainer(data, config=CONFIG, space=None):
    torch.manual_seed(config.seed)
    return Trainer(Supernet(space or catalog.get("digits")), data, config, device="cpu")


def run(trainer, folder, stop_at=None):
    hooks = Hooks(should_stop=lambda: trainer.step == stop_at)
    return fit(trainer, folder / "checkpoint.safetensors", folder / "metrics.jsonl", hooks)


def records(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_s"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = new_trainer(data)
    assert run(trainer, folder)
    return folder


@pytest.mark.parametrize("stop_at", [1, 9, 12], ids=lambda n: f"stopped after step {n}")
def test_resumed_equals_uninterrupted_bit_for_bit(data, uninterrupted, tmp_path, stop_at):
    """Stops inside the first epoch, at its end (9 steps each) and inside the second."""
    first = new_trainer(data)
    assert first.steps_per_epoch == 9
    assert not run(first, tmp_path, stop_at)
    second = new_trainer(data)
    torch.manual_seed(999)  # whatever the new process's generator holds must not matter
    second.restore(tmp_path / "checkpoint.safetensors")
    assert second.step == stop_at
    assert run(second, tmp_path)
    tensors, state = checkpoint.load(tmp_path / "checkpoint.safetensors")
    expected, expected_state = checkpoint.load(uninterrupted / "checkpoint.safetensors")
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, expected[name]), name
    assert state == expected_state
    assert records(tmp_path) == records(uninterrupted)


def test_records_written_after_the_last_checkpoint_are_replaced(data, uninterrupted, tmp_path):
    """A killed run leaves records of steps that its checkpoint does not have, and perhaps half a line."""
    run(new_trainer(data), tmp_path, stop_at=10)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 17, "epoch": 2, "loss_max": 99}\n{"step": 1')
    second = new_trainer(data)
    second.restore(tmp_path / "checkpoint.safetensors")
    run(second, tmp_path)
    assert records(tmp_path) == records(uninterrupted)


def test_training_learns(uninterrupted):
    losses = [r["loss_max"] for r in records(uninterrupted) if "loss_max" in r]
    assert losses[-1] < math.log(10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_trains_largest_sampled_smallest_and_derives_from_seed_and_step(name):
    space = catalog.get("resnet_cifar")
    step = sandwich(space, SAMPLERS[name], seed=1, step=5, num_random=3)
    assert [s.role for s in step] == ["max", "random", "random", "random", "min"]
    assert (step[0].arch, step[-1].arch) == (space.largest(), space.smallest())
    for subnet in step:
        space.validate(subnet.arch)
    assert step == sandwich(space, SAMPLERS[name], seed=1, step=5, num_random=3)
    assert step[1:4] != sandwich(space, SAMPLERS[name], seed=1, step=6, num_random=3)[1:4]
    assert step[1:4] != sandwich(space, SAMPLERS[name], seed=2, step=5, num_random=3)[1:4]
    # the draws of a step do not depend on how many there are, nor on one another
    assert step[1:3] == sandwich(space, SAMPLERS[name], seed=1, step=5, num_random=2)[1:3]
    assert step_rng(1, 5, 0).random() != step_rng(1, 5, 1).random()


def test_soft_cross_entropy_has_the_gradient_of_kl_and_none_for_the_teacher():
    student, teacher = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    soft_cross_entropy(student, teacher).backward()
    assert teacher.grad is None
    soft = student.grad.clone()
    student.grad = None
    kl = F.kl_div(F.log_softmax(student, 1), F.softmax(teacher.detach(), 1), reduction="batchmean")
    kl.backward()
    torch.testing.assert_close(soft, student.grad)


def step_gradients(trainer, labels):
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in trainer.supernet.named_parameters()}
    metrics = trainer.train_step(x, labels)
    after = dict(trainer.supernet.named_parameters())
    return metrics, {name: after[name].detach() - before[name] for name in before}


def test_only_the_largest_subnet_sees_labels(data):
    """With other labels the losses of the distilled subnets stay what they were: they learn from its logits."""
    a, b = (new_trainer(data, replace(CONFIG, dropout=0.0)) for _ in range(2))
    first, _ = step_gradients(a, torch.zeros(16, dtype=torch.int64))
    second, _ = step_gradients(b, torch.arange(16) % 10)
    assert first["loss_max"] != second["loss_max"]
    assert first["loss_random"] == second["loss_random"]
    assert first["loss_min"] == second["loss_min"]


def test_gradients_are_summed_over_the_subnets(data):
    """One step moves the weights as the sum of the subnets' own gradients says (first step of plain SGD, unclipped)."""
    config = replace(CONFIG, dropout=0.0, momentum=0.0, weight_decay=0.0, clip_norm=1e9, warmup=0.0)
    trainer = new_trainer(data, config)
    trainer.autocast = nullcontext
    labels = torch.arange(16) % 10
    twin = new_trainer(data, config).supernet.train()
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    teacher = None
    for subnet in sandwich(twin.space, SAMPLERS["uniform"], config.seed, 0, 2):
        logits = twin(x, subnet.arch)
        if teacher is None:
            F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing).backward()
            teacher = logits.detach()
        else:
            soft_cross_entropy(logits, teacher).backward()
    _, moved = step_gradients(trainer, labels)
    for name, p in twin.named_parameters():
        expected = torch.zeros_like(p) if p.grad is None else -config.lr * p.grad
        torch.testing.assert_close(moved[name], expected, rtol=1e-3, atol=1e-6)


def test_weight_decay_spares_norms_biases_and_transforms(data):
    trainer = new_trainer(data)
    names = {id(p): name for name, p in trainer.supernet.named_parameters()}
    decayed = {names[id(p)] for p in trainer.optimizer.param_groups[0]["params"]}
    assert trainer.optimizer.param_groups[1]["weight_decay"] == 0
    for name in names.values():
        is_kernel = name.endswith(".weight") and ".bn" not in name and "_bn" not in name
        assert (name in decayed) == is_kernel, name


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_architectures(data):
    trainer = new_trainer(data)
    before = {name: t.clone() for name, t in trainer.supernet.named_parameters()}
    x = torch.full((16, 1, 8, 8), float("nan"))
    with pytest.raises(TrainingError, match=r"not finite at step 0 .*d2-2_w32-64.*lower lr than 0.1"):
        trainer.train_step(x, torch.zeros(16, dtype=torch.int64))
    assert all(torch.equal(before[name], t) for name, t in trainer.supernet.named_parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (replace(CONFIG, lr=0.2), None, d), "recipe lr was 0.1 and is now 0.2"),
        (lambda d: (CONFIG, catalog.resnet_cifar(1, 8, 10), d), "space name was 'digits' and is now"),
        (lambda d: (CONFIG, None, prepare(datasets.load("digits"), seed=1)), "images, labels or splits"),
    ],
    ids=["recipe", "space", "data"],
)
def test_resuming_another_run_is_refused_naming_what_differs(data, uninterrupted, change, message):
    config, space, other = change(data)
    with pytest.raises(TrainingError, match=message):
        new_trainer(other, config, space).restore(uninterrupted / "checkpoint.safetensors")


def test_a_checkpoint_gives_the_supernet_back(data, uninterrupted):
    supernet, state = load_supernet(uninterrupted / "checkpoint.safetensors")
    assert state["step"] == state["total_steps"] == 18
    assert state["weights_hash"] == checkpoint.weights_hash(supernet.state_dict())


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", 0), ("lr", 0.0), ("lr", math.nan), ("lr", math.inf), ("dropout", 1.0), ("seed", -1)],
)
def test_a_recipe_out_of_range_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field} is "):
        TrainConfig(**{field: value})


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match="unknown sampler 'best'; valid: uniform"):
        TrainConfig(sampler="best")
    with pytest.raises(ValueError, match="unknown device 'tpu'; valid: auto, cpu, cuda"):
        resolve_device("tpu")
