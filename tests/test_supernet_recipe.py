"""The recipe: what is out of range, unknown, or excludes something else is refused with the reason."""

from __future__ import annotations

import math
import re

import pytest
from torch import nn

from supernet.optim import OPTIMIZERS, make_optimizer
from supernet.recipe import OPTIMIZER_NAMES, TrainConfig
from supernet.train import resolve_device


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch_size", 0), ("lr", 0.0), ("lr", math.nan), ("lr", math.inf), ("dropout", 1.0), ("seed", -1)],
)
def test_a_recipe_out_of_range_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field} is "):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "kind"),
    [
        ("epochs", 1.5, "int"), ("epochs", True, "int"), ("epochs", "3", "int"), ("batch_size", None, "int"),
        ("seed", 1.5, "int"), ("lr", "0.1", "float"), ("ema", False, "float"), ("sampler", ["uniform"], "str"),
        ("sampler", None, "str"), ("teacher", 5, "str"), ("regularize_biggest_only", "no", "bool"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused_with_the_type(field, value, kind):
    with pytest.raises(ValueError, match=re.escape(f"{field} is {value!r}; it must be of type {kind}")):
        TrainConfig(**{field: value})


def test_whole_numbers_are_numbers():
    assert TrainConfig(lr=1, ema=0, clip_norm=2).lr == 1


@pytest.mark.parametrize("trained", [{"step_plan": "sandwich"}, {"schedule": "delayed_epsilon"}])
def test_what_is_for_the_largest_alone_needs_a_largest_that_is_trained(trained):
    assert TrainConfig(**trained, dropout=0.3, drop_connect=0.2).trains_largest
    assert not TrainConfig(dropout=0.0, drop_connect=0.0).trains_largest
    assert not TrainConfig(dropout=0.3, drop_connect=0.2, regularize_biggest_only=False).trains_largest


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match="unknown sampler 'best'; valid: uniform, macs_weighted, pool_weighted"):
        TrainConfig(sampler="best")
    with pytest.raises(ValueError, match="unknown device 'tpu'; valid: auto, cpu, cuda"):
        resolve_device("tpu")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "delayed_epsilon", "optimizer": "adamw"}, "'delayed_epsilon' needs optimizer 'sgd', not 'adamw'"),
        (
            {"step_plan": "chunked", "batch_size": 100, "num_random": 3},
            "batch_size 100 is not divisible by num_random 3",
        ),
        ({"step_plan": "single_path", "distillation": "soft_ce"}, "needs a teacher, and step plan 'single_path'"),
        ({"step_plan": "sandwich", "members": 2}, "set max_pooling 'shared'"),
        ({"step_plan": "sorted", "num_random": 0}, "needs num_random of at least 1"),
        ({"step_plan": "matched_min", "num_random": 0}, "needs num_random of at least 1"),
        ({"teacher": " "}, "teacher is ' '; leave it out"),
        ({"step_plan": "single_path", "num_random": 4}, "num_random 4 has no effect with step plan 'single_path'"),
        ({"step_plan": "strict_fair", "sampler": "best_up"}, "sampler 'best_up' has no effect with .* 'strict_fair'"),
        ({"drop_connect": 0.3}, "drop_connect 0.3 has no effect: .* 'single_path' does not single out"),
        ({"step_plan": "sorted", "dropout": 0.5}, "dropout 0.5 has no effect: .* set regularize_biggest_only to false"),
        ({"teacher": "x", "distillation": "none"}, "teacher 'x' has no effect with distillation 'none'"),
        ({"teacher": "x", "label_smoothing": 0.4}, "label_smoothing 0.4 has no effect: .* 'soft_ce' no subnet learns"),
        ({"step_plan": "sandwich", "num_random": 0, "sampler": "best_up"}, "'best_up' has no effect with num_random 0"),
        ({"step_plan": "sorted", "max_pooling": "shared"}, "max_pooling 'shared' has no effect with .* 'sorted'"),
    ],
)
def test_parts_that_exclude_each_other_are_refused_with_the_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**fields)


def test_the_recipe_knows_every_optimizer():
    assert set(OPTIMIZER_NAMES) == set(OPTIMIZERS)


def test_a_momentum_that_is_a_whole_number_is_one_for_every_optimizer():
    for name in OPTIMIZERS:
        make_optimizer(nn.Linear(2, 2).named_parameters(), TrainConfig(optimizer=name, momentum=0))
