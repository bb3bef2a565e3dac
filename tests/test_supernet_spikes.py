"""A loss that is no number, or collapses: back to the last good state, reported, and at last stopped."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from trainings import CONFIG, TINY, assert_same_run, digits, new_trainer, records, train_all

from search_spaces.plan import plan
from supernet.distill import DISTILLATIONS, soft_cross_entropy
from supernet.model import Supernet
from supernet.spikes import SpikeDetector
from supernet.standalone import train_alone
from supernet.train import SpikeError, Trainer, TrainingError


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def few():
    return digits(160)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_architectures(data):
    trainer = new_trainer(data)
    before = {name: t.clone() for name, t in trainer.supernet.named_parameters()}
    x = torch.full((16, 1, 8, 8), float("nan"))
    with pytest.raises(SpikeError, match=r"not finite at step 0 .*d2-1_w8-8"):
        trainer.train_step(x, torch.zeros(16, dtype=torch.int64))
    assert all(torch.equal(before[name], t) for name, t in trainer.supernet.named_parameters())


def poisoned(trainer, steps, times):
    """A trainer whose images are not numbers at these steps, as often as `times` says."""
    honest, left = trainer.train_step, dict.fromkeys(steps, times)

    def train_step(images, labels):
        if left.get(trainer.step):
            left[trainer.step] -= 1
            images = torch.full_like(images, math.nan)
        return honest(images, labels)

    trainer.train_step = train_step
    return trainer


def test_a_loss_that_is_not_finite_rolls_back_to_the_epoch_before_at_half_the_rate_and_is_reported(data, tmp_path):
    """And if it happens again from there, which may have been broken already, to the one before."""
    trainer = poisoned(new_trainer(data), steps=[12], times=2)
    assert train_all(trainer, tmp_path)
    back = [r for r in records(tmp_path) if "rollback" in r]
    assert [(r["step"], r["rollback"]) for r in back] == [(9, 1), (0, 2)]
    assert "not finite at step 12" in back[0]["reason"]
    assert "d2-1_w8-8" in back[0]["reason"]
    assert trainer.rollbacks == 2
    assert trainer.learning_rate(15) == pytest.approx(new_trainer(data).learning_rate(15) / 4)
    steps = [r["step"] for r in records(tmp_path) if "loss_max" in r]
    assert steps == sorted(set(steps)), "no step is recorded twice"


def test_weights_broken_by_an_epochs_last_step_are_found_and_rolled_back(few, tmp_path):
    """No loss is computed with them before the epoch ends; a short epoch would else never see its spike."""
    config = replace(CONFIG, epochs=2, batch_size=128, lr=1e30, clip_norm=1e30)
    trainer = new_trainer(few, config, TINY)
    assert trainer.steps_per_epoch == 1
    with pytest.raises(TrainingError, match=r"not finite.*after 3 rollbacks; start a new run with a lower lr"):
        train_all(trainer, tmp_path)
    assert len([r for r in records(tmp_path) if "rollback" in r]) == 3


def test_the_fourth_spike_stops_the_run_naming_step_and_architectures(data, tmp_path):
    trainer = poisoned(new_trainer(data), steps=[3], times=9)
    with pytest.raises(
        TrainingError, match=r"at step 3 .*d2-1_w8-8.*after 3 rollbacks; start a new run with a lower lr than 0.1"
    ):
        train_all(trainer, tmp_path)
    assert len([r for r in records(tmp_path) if "rollback" in r]) == 3


@pytest.mark.parametrize("later", [[], [16]], ids=["one spike", "another after the resumption"])
def test_a_rolled_back_run_resumes_as_it_would_have_gone_on(data, tmp_path, later):
    expected, resumed = tmp_path / "expected", tmp_path / "resumed"
    assert train_all(poisoned(new_trainer(data), [10, *later], 1), expected)
    assert not train_all(poisoned(new_trainer(data), [10], 1), resumed, stop_at=14)
    second = poisoned(new_trainer(data), later, 1)
    second.restore(resumed / "checkpoint.safetensors")
    assert second.rollbacks == 1
    assert train_all(second, resumed)
    assert_same_run(resumed, expected)


def broken_once(trainer, step, change):
    """A trainer whose weights after this step become what `change` makes of them, with nothing left of its momentum."""
    honest, left = trainer.train_step, [step]

    def train_step(images, labels):
        metrics = honest(images, labels)
        if [trainer.step - 1] == left:
            left.clear()
            trainer.optimizer.state.clear()
            with torch.no_grad():
                for p in trainer.supernet.parameters():
                    p.copy_(change(p))
        return metrics

    trainer.train_step = train_step
    return trainer


@pytest.mark.parametrize(
    ("step", "ema"),
    [(203, 0.0), (205, 0.0), (206, 0.9)],
    ids=["amid an epoch", "in its last steps", "by its last step"],
)
def test_weights_scrambled_once_are_gone_back_from_whenever_it_happens(data, tmp_path, step, ema):
    """Near the end of an epoch no loss has yet shown it when the state is saved, nor need the averaged weights."""
    config = replace(CONFIG, epochs=26, lr=0.05, step_plan="single_path", dropout=0.0, ema=ema)
    torch.manual_seed(0)
    trainer = broken_once(new_trainer(data, config), step, lambda p: p + torch.randn_like(p) * 3 * p.std(correction=0))
    assert train_all(trainer, tmp_path)
    back = [r["step"] for r in records(tmp_path) if "rollback" in r]
    assert back[-1] == 198
    top1 = [r["val_top1_max"] for r in records(tmp_path) if "val_top1_max" in r]
    assert top1[-1] > 0.9 * max(top1)
    assert len(top1) == 26


def test_weights_that_have_died_are_gone_back_from_though_the_loss_has_not_far_to_rise(data, tmp_path):
    config = replace(CONFIG, epochs=5, batch_size=32, step_plan="single_path")
    trainer = broken_once(new_trainer(data, config), 150, torch.zeros_like)
    assert train_all(trainer, tmp_path)
    (back,) = [r for r in records(tmp_path) if "rollback" in r]
    assert back["step"] == 144
    assert "the largest subnet's top-1 has fallen from " in back["reason"]
    assert "that of guessing, after step 179" in back["reason"]


def test_a_validated_top1_is_lost_where_it_is_that_of_guessing_and_was_not():
    detector = SpikeDetector(math.log(10))
    assert not detector.is_lost(0.1, guess=0.1, images=1000), "nothing is lost that was never there"
    assert not detector.is_lost(0.15, guess=0.1, images=1000)
    assert not detector.is_lost(0.1, guess=0.1, images=1000), "nor what was hardly there"
    assert not detector.is_lost(0.5, guess=0.1, images=1000)
    assert not detector.is_lost(0.2, guess=0.1, images=1000)
    assert detector.is_lost(0.1, guess=0.1, images=1000)
    assert not any(SpikeDetector(math.log(2)).is_lost(1.0, guess=1.0, images=5) for _ in range(2))


def test_a_jump_of_the_loss_towards_chance_is_a_spike_and_noise_is_not():
    rng = np.random.default_rng(0)
    detector = SpikeDetector(chance=math.log(10))
    assert not any(detector.is_spike(loss) for loss in 0.5 + 0.3 * rng.standard_normal(2000))
    collapse = [detector.is_spike(2.3) for _ in range(20)]
    assert any(collapse)
    assert not collapse[0], "a single bad batch is no collapse"


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("share", [0.1, 0.45, 0.55, 0.75])
def test_a_collapse_to_chance_is_found_wherever_it_begins(classes, share):
    rng, chance = np.random.default_rng(0), math.log(classes)
    detector = SpikeDetector(chance)
    assert not any(detector.is_spike(share * chance + 0.1 * rng.standard_normal()) for _ in range(2000))
    assert detector.is_calm()
    found = [detector.is_spike(chance) for _ in range(40)]
    assert any(found)
    assert not found[0]


@pytest.mark.parametrize("level", [0.3, 1.2, 1.9, 2.2, 2.4])
def test_a_loss_that_scatters_about_a_level_is_no_spike(level):
    """Of small batches and of subnets of all sizes."""
    rng = np.random.default_rng(1)
    detector = SpikeDetector(chance=math.log(10))
    calm = []
    for _ in range(50_000):
        assert not detector.is_spike(level + 0.3 * rng.standard_normal())
        calm.append(detector.is_calm())
    assert sum(calm) > 0.95 * len(calm)


def test_a_loss_beyond_all_sense_is_a_spike_from_the_tenth_step_on(data, tmp_path):
    """Before there is a past to compare with; else a broken state would be the one that later spikes go back to."""
    detector = SpikeDetector(chance=math.log(10))
    assert not any(detector.is_spike(loss) for loss in [2.3] * 20 + [60.0])
    exploding = SpikeDetector(chance=math.log(10))
    assert [exploding.is_spike(1000.0) for _ in range(12)] == [False] * 10 + [True] * 2
    trainer = new_trainer(data, replace(CONFIG, lr=1000.0, clip_norm=1e9, epochs=3))
    with pytest.raises(
        TrainingError, match=r"has jumped to .* at step 1\d .*start a new run with a lower lr than 1000"
    ):
        train_all(trainer, tmp_path)


def test_what_to_do_about_a_training_that_ended_at_chance():
    short, long, good = (
        SpikeDetector(math.log(10), fast, fast, seen) for fast, seen in ((2.4, 8), (2.4, 900), (2.2, 900))
    )
    assert (
        short.concern(0.1) == "the loss ended at 2.4, no better than guessing (2.3): start a new run with more epochs"
    )
    assert long.concern(0.1).endswith("start a new run with a lower lr than 0.1")
    assert SpikeDetector(math.log(10), 9.0, 9.0, 8).concern(0.1).endswith("a lower lr than 0.1")
    assert good.concern(0.1) is None
    dead = SpikeDetector(math.log(10), 2.3024, 2.3024, 900)
    assert "no better than guessing" in dead.concern(0.1)


def test_a_divergence_that_jumps_is_no_collapse(data, tmp_path, monkeypatch):
    """The value of a loss on a teacher says nothing of chance: only the loss on the labels is watched."""
    teacher = train_alone(plan(TINY, TINY.largest()), data, CONFIG, 1, 0, "cpu", lambda record: None)
    calls = itertools.count()

    def jumping(student, taught, targets, smoothing):
        return soft_cross_entropy(student, taught) + (1e7 if next(calls) >= 60 else 0)

    monkeypatch.setitem(DISTILLATIONS, "soft_ce", jumping)
    config = replace(CONFIG, epochs=14, lr=0.05, step_plan="single_path", distillation="soft_ce", teacher="another")
    torch.manual_seed(CONFIG.seed)
    trainer = Trainer(Supernet(TINY), data, config, "cpu", teacher)
    assert trainer.total_steps > 120
    assert train_all(trainer, tmp_path)
    assert max(r["loss_random"] for r in records(tmp_path) if "loss_random" in r) > 1e6
    assert trainer.rollbacks == 0


@pytest.mark.parametrize("schedule", ["delayed_epsilon", "progressive"])
def test_subnets_that_a_schedule_opens_may_start_at_chance(data, monkeypatch, schedule):
    """They were never trained, so their losses are no collapse of the largest subnet that the steps before trained."""
    trainer = new_trainer(data, replace(CONFIG, epochs=60, step_plan="single_path", schedule=schedule))
    monkeypatch.setattr("supernet.train.sort_channels", lambda *weights: None)
    opened = {}

    def backward(subnets, images, labels):
        phase = trainer.schedule.phase(trainer.step).name
        loss = 2.5 * 0.97 ** (trainer.step - opened.setdefault(phase, trainer.step))
        return [torch.tensor(loss)] * len(subnets), torch.tensor(loss), torch.tensor(0.0)

    monkeypatch.setattr(trainer, "_backward", backward)
    images, labels = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    for _ in range(trainer.total_steps):
        trainer.train_step(images, labels)
    assert len(opened) > 2
