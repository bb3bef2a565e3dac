"""Records of fine-tuning: the best weights are kept, and nothing counts whose weights are gone."""

from __future__ import annotations

import shutil

import pytest
import torch

from nas.finetune_records import Candidate, Records, best
from nas.run import Run
from supernet import checkpoint


@pytest.fixture
def records(tmp_path):
    """Makes records anew from their files, on some basis."""
    run = Run(tmp_path)
    return lambda weights="0": Records(run, "default", {"weights": weights})


def candidate(*correct, **changes):
    return Candidate(**{"trial": 3, "key": "a", "images": 10, "correct": correct, "weights": "w"} | changes)


def weights(value):
    return {"w": torch.full((2,), float(value))}


def test_the_best_weights_are_kept_and_the_first_of_equals(records):
    tried = [candidate(5), candidate(5, sample=0), candidate(7, sample=1), candidate(7, sample=2)]
    for number, one in enumerate(tried):
        records().add(one, weights(number))
    records().add(candidate(sample=3, error="diverged"), None)
    found = records().of(3, "a")
    assert found[:4] == tried
    assert best(found) == tried[2]
    assert torch.equal(checkpoint.load(records().file(3))[0]["w"], weights(2)["w"])
    assert (records().of(3, "b"), records().of(4, "a"), records("1").of(3, "a")) == ([], [], [])
    assert records("1").others == len(found)


def test_a_kill_between_weights_and_line_loses_nothing(records):
    tried = [candidate(5), candidate(7, sample=0)]
    for one in tried:
        records().add(one, weights(0))
    lines = records().folder / "samples.jsonl"
    lines.write_text(lines.read_text().splitlines()[0] + "\n")
    assert records().of(3, "a") == tried


def test_a_record_whose_weights_are_lost_is_none(records):
    for one in (candidate(5), candidate(7, sample=0), candidate(4, sample=1)):
        records().add(one, weights(0))
    file, older = records().file(3), records().folder / "older"
    shutil.copy(file, older)
    records().add(candidate(8, sample=2), weights(1))
    shutil.move(older, file)
    assert [c.sample for c in records().of(3, "a")] == [None, 0, 1]
    file.write_bytes(b"damaged")
    assert records().of(3, "a") == []


@pytest.mark.parametrize(
    ("changes", "state", "top1", "reached"),
    [
        ({"correct": (5,)}, "inherited", 0.5, 0),
        ({"correct": (5, 6), "sample": 0, "epochs": 2}, "finished", 0.6, 2),
        ({"correct": (5,), "sample": 0, "epochs": 2}, "stopped", 0.5, 1),
        ({"correct": (5,), "sample": 0, "epochs": 2, "error": "not finite"}, "diverged", 0.0, 1),
    ],
)
def test_states(changes, state, top1, reached):
    one = candidate(**changes)
    assert (one.state, one.top1, one.reached) == (state, top1, reached)
    assert Candidate.from_dict(one.to_dict()) == one


@pytest.mark.parametrize("correct", [[], [11], [-1]])
def test_a_line_that_cannot_be_is_left_out(records, correct):
    records().add(candidate(5), weights(0))
    lines = records().folder / "samples.jsonl"
    lines.write_text(lines.read_text() + lines.read_text().replace("[5]", str(correct)).replace("null", "0", 1))
    assert records().of(3, "a") == [candidate(5)]
    assert records().others == 1
