"""Continuing a study by `nas resume` and `nas search`: its settings, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from search_cases import history
from studies import make_run, make_trials, write_study

from nas.run import Run
from nas.searching import open_study


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def test_resume_goes_on_with_the_recorded_settings(nas, run_copy, tmp_path):
    settings = ("--max-macs", "3M", "--strategy", "random", "--seed", 4, "--objective", "top1", "--num-workers", 0)
    assert nas("search", run_copy, "--n-trials", 10, *settings)[0] == 0
    run = Run.open(run_copy)
    whole, journal = history(open_study(run).trials), run.study("default")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-4]) + lines[-4][:50])  # killed while it wrote its seventh trial
    assert len(open_study(run).trials) == 6

    code, out, err = nas("resume", run_copy, "--num-workers", 0)
    assert code == 0, err
    assert "10 trials, 0 failed; macs ≤ 3M" in out
    assert f"next: nas export {run_copy} --best" in err
    assert history(open_study(run).trials) == whole

    before = journal.read_bytes()
    code, _, err = nas("resume", run_copy)
    assert code == 0
    assert "study 'default' is finished with 10 trials; extend it with --n-trials N" in err
    assert journal.read_bytes() == before

    assert nas("resume", run_copy, "--n-trials", 13, "--num-workers", 0)[0] == 0
    assert json.loads(nas("studies", run_copy, "--json")[1])[0]["n_asked"] == 13
    assert nas("search", run_copy, "--n-trials", 13, "--study-name", "fresh", *settings)[0] == 0
    assert history(open_study(run).trials) == history(open_study(run, "fresh").trials)
    for changed in (("--max-macs", "2M"), ("--seed", 5), ("--strategy", "evolution")):
        code, _, err = nas("search", run_copy, "--n-trials", 13, *settings, *changed)
        assert code == 2
        assert "exists and is another search: " in err
        assert changed[0].removeprefix("--max-").removeprefix("--") in err


def test_a_search_goes_on_that_was_killed_before_its_first_record(run_copy, nas):
    settings = ("--n-trials", 3, "--num-workers", 0)
    assert nas("search", run_copy, *settings)[0] == 0
    run = Run.open(run_copy)
    whole, journal = history(open_study(run).trials), run.study("default")
    for records in (0, 1, 2):
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[:records]))
        code, _, err = nas("search", run_copy, *settings)
        assert code == 0, err
        assert history(open_study(run).trials) == whole


def test_a_damaged_record_is_named_by_its_line(run, nas):
    write_study(run, "default", make_trials(3))
    lines = run.study("default").read_bytes().splitlines(keepends=True)
    run.study("default").write_bytes(b"".join([*lines[:4], b"garbage\n", *lines[5:]]))
    code, _, err = nas("pareto", run.path)
    assert code == 2
    assert "is damaged: JournalError: line 5 is no record" in err


@pytest.mark.parametrize("command", ["search", "query"])
def test_an_accuracy_in_percent_is_refused(run, nas, command):
    code, out, err = nas(command, run.path, "--min-top1", 70)
    assert (code, out, err) == (2, "", "error: limit on top1 is 70; valid: 0 to 1, such as 0.7 for 70 %\n")


def test_resume_needs_a_number_of_trials_where_the_study_has_none(run, nas):
    write_study(run, "default", make_trials(4))
    code, _, err = nas("resume", run.path)
    assert code == 2
    assert "does not say how many trials it is to have; say it with --n-trials" in err


def test_a_calibrated_study_is_resumed_as_one(run_copy, nas):
    assert nas("trust", run_copy, "--archs", 4, "--epochs", 1)[0] == 0
    assert nas("search", run_copy, "--score", "calibrated", "--n-trials", 3, "--num-workers", 0)[0] == 0
    assert nas("resume", run_copy, "--n-trials", 5, "--num-workers", 0)[0] == 0
    trials = open_study(run_copy).trials
    assert len(trials) == 5
    assert all("top1_inherited" in trial.metrics for trial in trials)
