"""`nas.search` against users' own functions: what they get wrong is named, and never ends a search that can go on."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import os
import re
import signal
import time

import numpy as np
import pytest

import nas
from search_spaces.space import ChoiceSpace
from workers.evaluator import EvaluatorSpec
from workers.pool import WorkerStartError

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
    [ValueError("x" * 5_000_000), Unspeakable(), SystemExit(3), asyncio.CancelledError(), GeneratorExit()],
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


def going_wrong(kill, arch):
    """One gene decides how; the first of those that kill or hang are enough."""
    if arch.key in kill["kills"]:
        os.kill(os.getpid(), signal.SIGKILL)
    if arch.key in kill["hangs"]:
        time.sleep(1000)
    match arch["a"]:
        case 0:
            raise ValueError("bad shape")
        case 1:
            return {"top1": math.nan}
        case 2:
            return {"accuracy": 0.5}
    return score(arch)


@pytest.mark.usefixtures("ray_address")
def test_whatever_goes_wrong_on_a_worker_is_a_failed_trial_with_the_reason():
    expected = nas.search(SPACE, score, n_trials=40, strategy="random")
    kills, hangs = [trial.arch.key for trial in expected.trials if trial.arch["a"] > 2][7:9]
    study = nas.search(
        SPACE, functools.partial(going_wrong, {"kills": kills, "hangs": hangs}), n_trials=40, strategy="random",
        num_workers=2, evaluation_timeout=3,
    )  # fmt: skip
    reasons = {
        0: r"^ValueError: bad shape \(test_nas_study.py:\d+\)$",
        1: "metric 'top1' is nan",
        2: "^the evaluator did not return metric 'top1'; it returned: accuracy$",
        kills: f"^3 workers were lost to {kills}; the last one died \\(ActorDiedError\\)$",
        hangs: f"^3 workers were lost to {hangs}; the last one took longer than the evaluation timeout of 3 s$",
    }
    for trial, other in zip(study.trials, expected.trials, strict=True):
        assert trial.arch == other.arch
        reason = reasons.get(trial.arch.key, reasons.get(trial.arch["a"]))
        if reason is None:
            assert (trial.state, trial.metrics) == ("complete", other.metrics)
        else:
            assert trial.state == "failed"
            assert re.search(reason, trial.error)


@pytest.mark.parametrize("timeout", [0, -1.0, math.inf, math.nan])
def test_an_evaluation_timeout_is_positive(timeout):
    with pytest.raises(ValueError, match=f"must be a positive number of seconds, got {timeout}"):
        nas.search(SPACE, score, n_trials=5, num_workers=1, evaluation_timeout=timeout)


def test_an_interrupt_is_no_failed_trial():
    with pytest.raises(KeyboardInterrupt):
        nas.search(SPACE, failing_with(KeyboardInterrupt()), n_trials=20, strategy="random")


KEY = r"a=\d,b=\d,c=\d"


def one_for_all(archs):
    return {"macs": np.array(1.0)}


one_for_all.batched = True


def batched(value):
    def cost(archs):
        return {"macs": np.array([value if arch["a"] == 3 else 1.0 for arch in archs])}

    cost.batched = True
    return cost


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda arch: {"macs": math.nan}, rf"the cost 'macs' of {KEY} is nan; it must be a finite number"),
        (lambda arch: {"macs": "many"}, "is 'many'; it must be a finite number"),
        (lambda arch: None, rf"the cost of {KEY} is None; it must be a mapping"),
        (lambda arch: {"macs": None}, rf"the cost 'macs' of {KEY} is None; it must be a finite number"),
        (lambda arch: 5, rf"the cost of {KEY} is 5; it must be a mapping"),
        (lambda arch: {"macs": 1} if arch["a"] < 3 else {}, rf"the cost of {KEY} has (no )?'macs', unlike"),
        (lambda arch: {"macs": 1} if arch["a"] > 0 else {}, rf"the cost of {KEY} has (no )?'macs', unlike"),
        (batched(math.inf), r"the cost 'macs' of a=3,b=\d,c=\d is .*inf.*; it must be a finite number"),
        (one_for_all, r"the batched cost 'macs' of \d+ architectures has the shape \(\); it must hold one number for"),
    ],
)
@pytest.mark.parametrize("limits", [{"macs": 5}, {}], ids=["limited", "unlimited"])
def test_a_cost_that_is_none_names_the_architecture(cost, message, limits):
    with pytest.raises(ValueError, match=message):
        nas.search(SPACE, score, n_trials=50, strategy="random", cost=cost, limits=limits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": ["top1"]}, r"objectives: give at least one, for example .*, not \['top1'\]"),
        ({"limits": ["top1"]}, r"limits must map metrics to numbers, .*, not \['top1'\]"),
        ({"n_trials": 1.5}, "n_trials must be an integer of at least 0, got 1.5"),
        ({"n_trials": -1}, "n_trials must be an integer"),
        ({"num_workers": -1}, "num_workers must be an integer"),
        ({"seed": 1.5}, "seed must be an integer of at least 0, got 1.5"),
        ({"lookahead": None}, "lookahead must be an integer of at least 1, got None"),
        ({"limits": {"top1": math.nan}}, "limit 'top1' is nan"),
        ({"metrics": "top1"}, r"metrics must be a sequence of names, for example \['top1'\], got 'top1'"),
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


def failing_factory():
    raise FileNotFoundError("no checkpoint at RUN")


def test_a_search_that_failed_to_start_leaves_its_name_free(tmp_path):
    storage = tmp_path / "study.journal"
    with pytest.raises(WorkerStartError):
        nas.search(SPACE, EvaluatorSpec(failing_factory), n_trials=3, storage=storage)
    study = nas.search(SPACE, score, n_trials=3, storage=storage, seed=7, objectives={"top1": "minimize"})
    assert len(study.trials) == 3
    assert len(nas.load_study(storage).trials) == 3


def edit_lines(path, change):
    lines = path.read_text().splitlines()
    trials = [i for i, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    path.write_text("\n".join(change(lines, trials)) + "\n")


def swap(lines, a, b):
    return [lines[{a: b, b: a}.get(i, i)] for i in range(len(lines))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines, t: lines[: t[2]] + lines[t[2] + 1 :], "trial 2 is missing or doubled"),
        (lambda lines, t: lines[: t[2]] + lines[t[2] - 1 :], "trial 2 is missing or doubled"),
        (lambda lines, t: swap(lines, t[1], t[3]), "trial 1 is missing or doubled"),
        (lambda lines, t: [*lines, lines[t[1]].replace('"number":1', '"number":5')], "trial 5 has the architecture of"),
        (lambda lines, t: [line.replace('"top1":0.', '"top1":"x","y":0.') for line in lines], "trial 0 has a metric"),
        (lambda lines, t: [line.replace('"top1":0.', '"top1":NaN,"y":0.') for line in lines], "trial 0 has a metric"),
        (lambda lines, t: [line.replace('"top1":0.', '"y":0.') for line in lines], "trial 0 lacks an objective"),
        (lambda lines, t: [*lines[: t[3]], "", *lines[t[3] :]], "is not a study file, or is damaged"),
        (lambda lines, t: [*lines, "[" * 100_000], "is not a study file, or is damaged"),
        (lambda lines, t: [*lines, '{"op_code":99}'], "is not a study file, or is damaged"),
    ],
    ids=[
        "deleted",
        "doubled",
        "swapped",
        "doubled with another number",
        "text for a number",
        "no number",
        "without an objective",
        "blank line",
        "deeply nested",
        "unknown record",
    ],
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


def test_a_journal_from_before_trials_were_numbered_is_read(tmp_path):
    storage = tmp_path / "study.journal"
    expected = nas.search(SPACE, score, n_trials=5, storage=storage).trials
    edit_lines(storage, lambda lines, t: [re.sub(r'"number":\d,', "", line) for line in lines])
    assert '"number"' not in storage.read_text()
    assert list(nas.load_study(storage).trials) == list(expected)


def test_blank_lines_at_the_end_of_a_journal_do_no_harm(tmp_path):
    storage = tmp_path / "study.journal"
    nas.search(SPACE, score, n_trials=5, storage=storage)
    with open(storage, "a") as file:
        file.write("\n\n")
    assert len(nas.load_study(storage).trials) == 5
    assert len(nas.search(SPACE, score, n_trials=6, storage=storage).trials) == 6
    assert len(nas.load_study(storage).trials) == 6


BAD_METRICS = ['{"top1": "abc"}', '{"top1": null}', '{"top1": NaN}', f'{{"top1": 1{"0" * 400}}}', "[1]", '"x"']


@pytest.mark.parametrize("metrics", BAD_METRICS, ids=["text", "null", "NaN", "huge", "list", "no mapping"])
def test_cached_evaluations_that_are_none_are_done_again(tmp_path, caplog, metrics):
    storage, cache = tmp_path / "study.journal", tmp_path / "cache.jsonl"
    context = {"weights": "w"}
    expected = nas.search(SPACE, score, n_trials=5, context=context, cache=cache, storage=storage).trials
    entries = [json.loads(line) for line in cache.read_text().splitlines()]
    cache.write_text(
        "".join(json.dumps(e | {"metrics": 0}).replace('"metrics": 0', f'"metrics": {metrics}') + "\n" for e in entries)
    )
    storage.unlink()
    again = nas.search(SPACE, score, n_trials=5, context=context, cache=cache, storage=storage).trials
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [f"{cache}: 5 entries that are no metrics are left out and evaluated again"]
    assert [(t.arch, t.metrics) for t in again] == [(t.arch, t.metrics) for t in expected]
