"""`nas.search` against users' own functions: what they get wrong is named, and never ends a search that can go on."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

import nas
from search_spaces.space import ChoiceSpace

SPACE = ChoiceSpace({"a": tuple(range(10)), "b": tuple(range(10)), "c": tuple(range(10))})


def score(arch):
    return {"top1": arch["a"] / 10}


class Unspeakable(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError("no words")


def failing_with(error):
    def evaluate(arch):
        if arch["a"] % 2:
            raise error
        return score(arch)

    return evaluate


@pytest.mark.parametrize(
    "error",
    [ValueError("x" * 5_000_000), Unspeakable(), SystemExit(3), asyncio.CancelledError()],
    ids=lambda e: type(e).__name__,
)
def test_whatever_an_evaluation_raises_is_a_failed_trial_with_a_short_message(error):
    study = nas.search(SPACE, failing_with(error), n_trials=20, strategy="random")
    states = {t.state for t in study.trials}
    assert states == {"complete", "failed"}
    for trial in study.trials:
        assert (trial.state == "failed") == (trial.arch["a"] % 2 == 1)
        assert trial.error is None or type(error).__name__ in trial.error
        assert len(trial.error or "") < 1200


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda arch: {"macs": math.nan}, "the cost 'macs' of a=0,b=0,c=0 is nan; it must be a finite number"),
        (lambda arch: {"macs": "many"}, "is 'many'; it must be a finite number"),
        (lambda arch: None, "the cost of a=0,b=0,c=0 is None; it must be a mapping"),
        (lambda arch: {"macs": 1} if arch["a"] == 0 else {"flops": 1}, "has other metrics than that of"),
    ],
)
def test_a_cost_that_is_none_names_the_architecture(cost, message):
    with pytest.raises(ValueError, match=message):
        nas.search(SPACE, score, n_trials=20, cost=cost, limits={"macs": 5})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ["top1"]}, "objectives: give at least one, for example"),
        ({"n_trials": 1.5}, "n_trials must be an integer of at least 0, got 1.5"),
        ({"n_trials": -1}, "n_trials must be an integer"),
        ({"num_workers": -1}, "num_workers must be an integer"),
        ({"limits": {"top1": math.nan}}, "limit 'top1' is nan"),
    ],
)
def test_settings_that_make_no_sense_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        nas.search(SPACE, score, **({"n_trials": 3} | settings))


def test_exhausted_means_every_feasible_architecture_was_tried():
    """Nine of a thousand are within the limit, far apart from one another."""

    def cost(arch):
        return {"macs": 1.0 if arch["a"] == arch["b"] == arch["c"] > 0 else 100.0}

    study = nas.search(SPACE, score, n_trials=60, cost=cost, limits={"macs": 5})
    assert study.outcome == "exhausted"
    assert sorted(t.arch["a"] for t in study.trials) == list(range(1, 10))


def test_a_search_that_failed_to_start_leaves_its_name_free(tmp_path):
    storage = tmp_path / "study.journal"
    with pytest.raises(ConnectionError):
        nas.search(SPACE, score, n_trials=3, storage=storage, num_workers=1, address="127.0.0.1:1")
    study = nas.search(SPACE, score, n_trials=3, storage=storage, seed=7, objectives={"top1": "minimize"})
    assert len(study.trials) == 3
    assert len(nas.load_study(storage).trials) == 3


def edit_lines(path, change):
    lines = path.read_text().splitlines()
    trials = [i for i, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    path.write_text("\n".join(change(lines, trials)) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines, t: lines[: t[2]] + lines[t[2] + 1 :], "trial 2 is missing or doubled"),
        (lambda lines, t: lines[: t[2]] + lines[t[2] - 1 :], "trial 2 is missing or doubled"),
        (lambda lines, t: [line.replace('"top1":0.', '"top1":"x",'[:-1] + ',"y":0.') for line in lines], "no number"),
        (lambda lines, t: [*lines, '{"op_code":99}'], "is not a study file, or is damaged"),
    ],
    ids=["deleted", "doubled", "text for a number", "unknown record"],
)
def test_an_edited_journal_is_refused_rather_than_renumbered(tmp_path, change, message):
    storage = tmp_path / "study.journal"
    nas.search(SPACE, score, n_trials=5, storage=storage)
    edit_lines(storage, change)
    with pytest.raises(ValueError, match=message) as raised:
        nas.load_study(storage)
    assert str(storage) in str(raised.value)
    with pytest.raises(ValueError, match=message):
        nas.search(SPACE, score, n_trials=6, storage=storage)


def test_blank_lines_at_the_end_of_a_journal_do_no_harm(tmp_path):
    storage = tmp_path / "study.journal"
    nas.search(SPACE, score, n_trials=5, storage=storage)
    with open(storage, "a") as file:
        file.write("\n\n")
    assert len(nas.search(SPACE, score, n_trials=6, storage=storage).trials) == 6
    assert len(nas.load_study(storage).trials) == 6


@pytest.mark.parametrize("metrics", ['{"top1": "abc"}', '{"top1": null}', "[1]", '"x"', '{"top1": NaN}'])
def test_cached_evaluations_that_are_none_are_done_again(tmp_path, metrics):
    storage, cache = tmp_path / "study.journal", tmp_path / "cache.jsonl"
    context = {"weights": "w"}
    expected = nas.search(SPACE, score, n_trials=5, context=context, cache=cache, storage=storage).trials
    entries = [json.loads(line) for line in cache.read_text().splitlines()]
    cache.write_text(
        "".join(json.dumps(e | {"metrics": 0}).replace('"metrics": 0', f'"metrics": {metrics}') + "\n" for e in entries)
    )
    storage.unlink()
    again = nas.search(SPACE, score, n_trials=5, context=context, cache=cache, storage=storage).trials
    assert [(t.arch, t.metrics) for t in again] == [(t.arch, t.metrics) for t in expected]
