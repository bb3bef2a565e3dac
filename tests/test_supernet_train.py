"""Training: the sandwich rule holds, a resumed run is the uninterrupted one bit for bit, bad runs are refused."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from trainings import CONFIG, TINY, assert_same_run, digits, new_trainer, train_all

from search_spaces import catalog
from supernet import checkpoint, datasets
from supernet.batches import train_batches
from supernet.data import prepare
from supernet.distill import DISTILLATIONS, soft_cross_entropy
from supernet.fit import Hooks, fit
from supernet.model import Supernet
from supernet.samplers import SAMPLERS
from supernet.shrink import SCHEDULES, Phase
from supernet.steps import STEP_PLANS
from supernet.train import Trainer, TrainingError, load_supernet


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def few():
    """Enough images for three small batches an epoch."""
    return digits(160)


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    trainer = new_trainer(data)
    assert train_all(trainer, folder)
    return folder


def resume(data, config, folder, stop_at, space=None):
    """Stops a run after `stop_at` steps and finishes it with a new trainer."""
    first = new_trainer(data, config, space)
    assert not train_all(first, folder, stop_at)
    second = new_trainer(data, config, space)
    torch.manual_seed(999)  # whatever the new process's generator holds must not matter
    second.restore(folder / "checkpoint.safetensors")
    assert second.step == stop_at
    assert train_all(second, folder)


@pytest.mark.parametrize("stop_at", [1, 9, 12], ids=lambda n: f"stopped after step {n}")
def test_resumed_equals_uninterrupted_bit_for_bit(data, uninterrupted, tmp_path, stop_at):
    """Stops inside the first epoch, at its end (9 steps each) and inside the second."""
    assert new_trainer(data).steps_per_epoch == 9
    resume(data, CONFIG, tmp_path, stop_at)
    assert_same_run(tmp_path, uninterrupted)


PARTS = {
    **{f"step plan {name}": {"step_plan": name} for name in STEP_PLANS if name != "sandwich"},
    **{f"sampler {name}": {"sampler": name} for name in SAMPLERS if name != "uniform"},
    **{f"schedule {name}": {"schedule": name} for name in SCHEDULES if name != "none"},
    **{f"distillation {name}": {"distillation": name} for name in DISTILLATIONS if name != "soft_ce"},
    "optimizer adamw": {"optimizer": "adamw", "lr": 0.002},
    "max pooling shared": {"max_pooling": "shared"},
    "matched bands": {"step_plan": "matched_min", "sampler": "adjacent_band"},
    "mixup, drop-connect, average": {"mixup": 0.2, "drop_connect": 0.2, "ema": 0.9, "regularize_biggest_only": False},
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS.keys())
def test_every_part_trains_and_resumes_bit_for_bit(few, tmp_path, part):
    """Some steps on few images, stopped inside the last epoch, when every schedule has opened its choices."""
    config = replace(CONFIG, epochs=3, batch_size=32, **part)
    expected, resumed = tmp_path / "expected", tmp_path / "resumed"
    whole = new_trainer(few, config, TINY)
    assert train_all(whole, expected)
    resume(few, config, resumed, stop_at=whole.total_steps - 1, space=TINY)
    assert_same_run(resumed, expected)


def test_the_average_is_what_is_searched_and_the_trained_weights_are_kept(data, tmp_path):
    trainer = new_trainer(data, replace(CONFIG, epochs=1, ema=0.5))
    train_all(trainer, tmp_path)
    loaded, _ = load_supernet(tmp_path / "checkpoint.safetensors")
    weight, average = trainer.supernet.head.fc.weight, trainer.average.module.head.fc.weight
    assert torch.equal(loaded.head.fc.weight, average)
    assert not torch.equal(weight, average)


@pytest.mark.parametrize(("ema", "kept"), [(0.25, (2 / 11, 0.25, 0.25)), (0.999, (2 / 11, 3 / 12, 4 / 13))])
def test_an_average_follows_its_formula(data, ema, kept):
    trainer = new_trainer(data, replace(CONFIG, ema=ema))
    batches = train_batches(trainer.data, 128, CONFIG.seed, 0)
    expected = None
    for step, (_, images, labels) in enumerate(itertools.islice(batches, 4)):
        trainer.train_step(images, labels)
        weight = trainer.supernet.head.fc.weight.detach().clone()
        expected = torch.lerp(weight, expected, kept[step - 1]) if step else weight
    torch.testing.assert_close(trainer.average.module.head.fc.weight, expected)


@pytest.mark.parametrize("plan", ["sorted", "chunked"])
def test_images_too_few_for_a_batch_are_dealt_to_all_subnets_or_refused(few, plan):
    trainer = new_trainer(few, replace(CONFIG, step_plan=plan, num_random=40, batch_size=400, epochs=1))
    assert len(few.train.images.chunk(40)) < 40
    _, images, labels = next(train_batches(few, 400, 0, 0))
    assert math.isfinite(trainer.train_step(images, labels)["loss_random"])
    small = replace(few, train=replace(few.train, images=few.train.images[:39], labels=few.train.labels[:39]))
    with pytest.raises(ValueError, match=rf"num_random is 40: step plan '{plan}' cannot deal 39 .*valid: 1 to 39"):
        new_trainer(small, trainer.config)


def test_an_outside_teacher_teaches_every_subnet_on_the_same_crops(data):
    """Other labels change nothing, and the teacher sees the very images of the step."""
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.eye(10)[torch.arange(len(x)) % 10] * 5

    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, dropout=0.0)
    losses = []
    for labels in (torch.zeros(16, dtype=torch.int64), torch.ones(16, dtype=torch.int64)):
        torch.manual_seed(0)
        trainer = Trainer(Supernet(catalog.get("digits")), data, config, "cpu", Spy())
        losses.append({k: v for k, v in trainer.train_step(images, labels).items() if k.startswith("loss")})
    assert losses[0] == losses[1]
    assert all(torch.equal(x, images) for x in seen)


def test_a_teacher_that_changed_is_refused_on_resume(few, tmp_path):
    def taught(seed):
        torch.manual_seed(seed)
        teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
        return Trainer(Supernet(TINY), few, replace(CONFIG, batch_size=32), "cpu", teacher)

    trainer = taught(seed=1)
    train_all(trainer, tmp_path, stop_at=1)
    taught(seed=1).restore(tmp_path / "checkpoint.safetensors")
    with pytest.raises(TrainingError, match="the teacher's weights are not those it was trained with"):
        taught(seed=2).restore(tmp_path / "checkpoint.safetensors")


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
    for subnet in new_trainer(data, config)._subnets(x, labels):
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


def test_beta_scales_what_the_smaller_subnets_teach_and_leaves_the_largest_ones_gradient_alone(data):
    """g(beta) = g(largest alone) + beta·g(others), as delayed epsilon-shrinking has it."""
    x, labels = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10

    def gradient(beta, only_largest=False):
        trainer = new_trainer(data, replace(CONFIG, dropout=0.0))
        trainer.autocast = nullcontext
        phase = Phase("ramp", TINY, only_largest, beta)
        trainer.schedule = SimpleNamespace(phase=lambda step: phase, sort_steps=lambda: ())
        trainer._backward(trainer._subnets(x, labels), x, labels)
        parameters = trainer.supernet.named_parameters()
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters}

    alone, none, quarter, all_of_it = gradient(1, only_largest=True), gradient(0), gradient(0.25), gradient(1)
    assert any((all_of_it[name] - alone[name]).abs().max() > 1e-3 for name in alone)
    for name, own in alone.items():
        torch.testing.assert_close(none[name], own, rtol=0, atol=0)
        torch.testing.assert_close(quarter[name], own + 0.25 * (all_of_it[name] - own), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("plan", sorted(STEP_PLANS))
def test_the_largest_learns_on_while_the_others_fade_in(data, plan):
    """Whatever the step plan, the ramp begins with the largest's gradient on all images, not with none."""
    x, labels = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 10

    def gradient(largest_only=False):
        parts = {"step_plan": plan, "num_random": 2, "schedule": "delayed_epsilon"}
        config = replace(CONFIG, dropout=0.0, mixup=0.0, epochs=20, **parts)
        trainer = new_trainer(data, config)
        trainer.autocast = nullcontext
        trainer.step = trainer.schedule.start
        phase = trainer.schedule.phase(trainer.step)
        assert phase.beta == 0
        phase = replace(phase, largest_only=largest_only)
        trainer.schedule = SimpleNamespace(phase=lambda step: phase, sort_steps=lambda: ())
        subnets = trainer._subnets(x, labels)
        assert {s.role for s in subnets} > {"max"} or largest_only
        trainer._backward(subnets, x, labels)
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trainer.supernet.named_parameters()
        }

    alone, first = gradient(largest_only=True), gradient()
    assert any(own.abs().max() > 1e-3 for own in alone.values())
    if not STEP_PLANS[plan].parts:  # a batch norm sees another part of the images otherwise
        for name, own in alone.items():
            torch.testing.assert_close(first[name], own, rtol=0, atol=0)
    else:
        assert any(own.abs().max() > 1e-3 for own in first.values())


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_no_other_subnet_is_run_while_the_largest_is_trained_alone(data, sampler, monkeypatch):
    """Nor probed to draw the pooling at which the largest stands."""
    shared = {"schedule": "delayed_epsilon", "max_pooling": "shared", "epochs": 10, "step_plan": "sandwich"}
    trainer = new_trainer(data, replace(CONFIG, sampler=sampler, **shared))
    for probe in ("loss", "held_out_loss"):
        monkeypatch.setattr(trainer.probe, probe, lambda *arguments: pytest.fail("probed"))
    poolings = set()
    for step in range(trainer.schedule.start):
        trainer.step = step
        (subnet,) = trainer._subnets(torch.zeros(8, 1, 8, 8), torch.arange(8))
        poolings.add(subnet.arch.pool)
    assert len(poolings) > 1


def test_weight_decay_spares_norms_biases_and_transforms(data):
    trainer = new_trainer(data)
    names = {id(p): name for name, p in trainer.supernet.named_parameters()}
    decayed = {names[id(p)] for p in trainer.optimizer.param_groups[0]["params"]}
    assert trainer.optimizer.param_groups[1]["weight_decay"] == 0
    for name in names.values():
        is_kernel = name.endswith(".weight") and ".bn" not in name and "_bn" not in name
        assert (name in decayed) == is_kernel, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: (replace(CONFIG, lr=0.2), None, d), "recipe lr was 0.1 and is now 0.2"),
        (lambda d: (CONFIG, catalog.resnet_cifar(1, 8, 10), d), "space name was 'tiny' and is now"),
        (lambda d: (CONFIG, None, prepare(datasets.load("digits"), seed=1)), "images, labels or splits"),
    ],
    ids=["recipe", "space", "data"],
)
def test_resuming_another_run_is_refused_naming_what_differs(data, uninterrupted, change, message):
    config, space, other = change(data)
    with pytest.raises(TrainingError, match=message):
        new_trainer(other, config, space).restore(uninterrupted / "checkpoint.safetensors")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_records_that_do_not_fit_on_the_disk_are_an_error_that_names_their_file(few, tmp_path):
    metrics = tmp_path / "metrics.jsonl"

    def fill(record):
        metrics.unlink()
        metrics.symlink_to("/dev/full")

    with pytest.raises(OSError, match=f"No space left on device: '{metrics}'"):
        fit(new_trainer(few), tmp_path / "checkpoint.safetensors", metrics, Hooks(on_record=fill))


def test_a_checkpoint_gives_the_supernet_back(data, uninterrupted):
    supernet, state = load_supernet(uninterrupted / "checkpoint.safetensors")
    assert state["step"] == state["total_steps"] == 18
    assert state["weights_hash"] == checkpoint.weights_hash(supernet.state_dict())
