"""`nas query`: what is best within limits among what was evaluated, against every trial looked at one by one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from studies import CONTEXT, IDENTITY, SPACE, make_run, make_trials, set_weights, write_study

from nas.querying import query_run
from nas.run import Run, RunError
from nas.store import JournalStore


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two studies: some trials failed, and all of the second one's architectures are in the first, too."""
    made = make_run(tmp_path / "run")
    trials = make_trials(40, failed=(0, 7))
    again = [dataclasses.replace(trial, number=i) for i, trial in enumerate(trials[30:])]
    write_study(made, "a", trials)
    write_study(made, "b", again)
    return made


def violated(limits, trial) -> bool:
    pairs = {name: limit if isinstance(limit, tuple) else (None, limit) for name, limit in limits.items()}
    return any(
        (low is not None and trial.metrics[name] < low) or (high is not None and trial.metrics[name] > high)
        for name, (low, high) in pairs.items()
    )


@pytest.mark.parametrize("objectives", [("top1", "macs"), ("macs",), ("params", "top1")])
@pytest.mark.parametrize(
    "limits", [{}, {"macs": 2.5e6}, {"macs": 2e6, "params": 90e3}, {"macs": (1e6, 2.5e6)}, {"top1": (0.3, None)}]
)
def test_the_answer_is_what_a_look_at_every_trial_finds(run: Run, limits, objectives) -> None:
    answer = query_run(run, limits, objectives=objectives)
    signs = {"top1": -1, "macs": 1, "params": 1}
    values = [tuple(signs[name] * found.metrics[name] for name in objectives) for found in answer.within]
    assert values == sorted(values)
    assert answer.evaluated == 38
    complete = [trial for trial in make_trials(40, failed=(0, 7)) if trial.state == "complete"]
    fits = {t.arch.key for t in complete if not violated(limits, t)}
    assert fits
    assert sorted(found.arch.key for found in answer.within) == sorted(fits)
    assert {found.study for found in answer.within} == {"a"}  # where they are first
    assert answer.nearest == {}


def test_when_nothing_fits_the_nearest_are_named(run: Run) -> None:
    answer = query_run(run, {"macs": 1.0, "params": 1.0})
    assert answer.within == []
    complete = [t for t in make_trials(40, failed=(0, 7)) if t.state == "complete"]
    for name in ("macs", "params"):
        assert answer.nearest[name].metrics[name] == min(t.metrics[name] for t in complete)
    total = min(t.metrics["macs"] + t.metrics["params"] for t in complete)
    assert sum(answer.nearest["together"].metrics[name] for name in ("macs", "params")) == total


def test_nearest_to_a_limit_that_can_be_met_alone_is_the_best_within_it(run: Run) -> None:
    answer = query_run(run, {"macs": 2.5e6, "params": 1.0})
    assert answer.nearest["macs"].arch == query_run(run, {"macs": 2.5e6}).within[0].arch


def test_calibrated_studies_answer_with_their_inherited_scores(run: Run) -> None:
    trials = make_trials(6, 5)
    calibrated = [
        dataclasses.replace(
            t, metrics={**t.metrics, "top1": 0.999, "top1_std": 0.1, "top1_inherited": t.metrics["top1"]}
        )
        for t in trials
    ]
    write_study(run, "c", calibrated, context=CONTEXT | {"score": "calibrated", "calibration": "x"})
    answer = query_run(run, study_name="c")
    assert {found.arch.key: dict(found.metrics) for found in answer.within} == {t.arch.key: t.metrics for t in trials}
    assert all(found.metrics["top1"] < 0.999 for found in query_run(run).within)


def test_studies_on_other_weights_are_left_out(run: Run, nas) -> None:
    write_study(run, "old", make_trials(5, 3), context=CONTEXT | {"weights": "0" * 16})
    answer = query_run(run)
    assert (answer.studies, list(answer.left_out)) == (["a", "b"], ["old"])
    assert {found.study for found in answer.within} <= {"a", "b"}
    set_weights(run, "c")  # trained further
    with pytest.raises(RunError, match="no study to ask; a: searched on weights that the run no longer has; b:"):
        query_run(run)
    code, out, err = nas("query", run.path)
    assert (code, out) == (2, "")
    assert "weights that the run no longer has" in err


def test_a_metric_that_no_trial_has_is_refused_with_those_there_are(run: Run) -> None:
    with pytest.raises(ValueError, match="no trial has metric 'latency_ms'; there are: macs, params, peak_memory"):
        query_run(run, {"latency_ms": 3.0})
    with pytest.raises(ValueError, match="no trial has metric 'speed'; there are: macs"):
        query_run(run, objectives=["speed"])
    with pytest.raises(ValueError, match="limit 'macs' is"):
        query_run(run, {"macs": float("nan")})


def test_a_trial_without_a_limited_metric_does_not_fit(run: Run) -> None:
    measured = [dataclasses.replace(t, metrics={**t.metrics, "latency_ms": 5.0}) for t in make_trials(3, 8)]
    write_study(run, "timed", measured)
    answer = query_run(run, {"latency_ms": 6.0})
    assert {found.study for found in answer.within} == {"timed"}


def test_it_reads_while_a_search_writes(run: Run) -> None:
    trials = make_trials(3, 4)
    store = JournalStore(run.study("live"), dataclasses.replace(IDENTITY, study_name="live"), SPACE)
    store.append(trials[0])
    assert [found.arch.key for found in query_run(run, study_name="live").within] == [trials[0].arch.key]
    store.append(trials[1])
    assert len(query_run(run, study_name="live").within) == 2
    store.close()


def test_a_damaged_study_is_left_out_with_the_reason(run: Run) -> None:
    run.study("bad").write_text("hello\n")
    answer = query_run(run)
    assert answer.studies == ["a", "b"]
    assert "is not a study file" in answer.left_out["bad"]


def test_the_command_ends_with_the_export_of_the_best(run: Run, nas) -> None:
    best = query_run(run, {"macs": 2.5e6}).within[0]
    suffix = f"--study-name {best.study} --trial {best.number} -o DIR"
    code, out, err = nas("query", run.path, "--max-macs", "2.5M", "--top", 3)
    assert code == 0
    assert "the best 3:" in out
    assert "macs ≤ 2.5M" in out
    assert err == f"next: nas export {run.path} {suffix}\n"
    code, out, err = nas("query", run.path, "--max-macs", "2.5M", "--top", 3, "--json")
    answer = json.loads(out)
    assert (code, err, len(answer["within"])) == (0, "", 3)
    assert answer["n_within"] == len(query_run(run, {"macs": 2.5e6}).within)
    assert answer["within"][0]["arch"] == best.arch.to_dict()


def test_lower_limits_are_passed_on(run: Run, nas) -> None:
    code, out, _ = nas("query", run.path, "--min-macs", "1M", "--max-macs", "2.5M", "--min-top1", 0.1)
    assert code == 0
    assert "1M ≤ macs ≤ 2.5M" in out
    code, _, err = nas("query", run.path, "--min-params", "1k", "--min-top1", "0.9999")
    assert code == 1
    assert err == f"next: nas search {run.path} --study-name NAME --min-params 1k --min-top1 0.9999\n"


def test_nothing_fits_is_exit_code_1(run: Run, nas) -> None:
    code, out, err = nas("query", run.path, "--max-macs", "1k", "--max-params", "1k")
    assert code == 1
    assert "nothing fits; the nearest:" in out
    assert "all limits" in out
    assert err.startswith(
        f"next: nas query {run.path} with wider limits: no architecture meets the limits together: macs ≤ 1k"
    )
    code, out, _ = nas("query", run.path, "--max-macs", "1k", "--json")
    assert code == 1
    assert set(json.loads(out)["nearest"]) == {"macs", "together"}


@pytest.mark.parametrize(("failed", "said"), [((), "0 architectures"), ((0, 1, 2), "0 architectures")])
def test_studies_without_results_have_no_answer(tmp_path: Path, nas, failed, said) -> None:
    made = make_run(tmp_path / "empty")
    write_study(made, "default", make_trials(len(failed), failed=failed))
    code, out, err = nas("query", made.path)
    assert code == 1
    assert said in out
    assert "nothing fits" in out
    assert err.startswith("next: nas search")


def test_a_run_without_studies_and_an_unknown_one(tmp_path: Path, nas) -> None:
    made = make_run(tmp_path / "none")
    code, out, err = nas("query", made.path)
    assert (code, out) == (2, "")
    assert "has no study to ask; make one with `nas search`" in err
    code, _, err = nas("query", made.path, "--study-name", "x")
    assert code == 2
    assert "has no study 'x'; studies: none yet" in err
