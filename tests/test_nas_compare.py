"""Strategies side by side: equal evaluations, medians over seeds, hypervolume against the whole front each time."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from search_cases import choice_space
from studies import CONTEXT, IDENTITY, SPACE, make_run, make_trials, write_study

from nas import pareto
from nas.compare import as_json, checkpoints, compare
from nas.plots import save_comparison
from nas.run import RunError
from nas.store import JournalStore, StudyError
from nas.studies import find_studies, group_studies
from nas.trial import Trial

ARCH = choice_space().smallest()
BOTH = {"top1": "maximize", "macs": "minimize"}

rows = st.tuples(
    st.floats(0, 1), st.floats(1, 100), st.sampled_from([-1.0, 0.0, 0.5]), st.sampled_from(["complete", "failed"])
)
studies_ = st.lists(st.lists(rows, min_size=1, max_size=30), min_size=1, max_size=5)


def make(study: list[tuple[float, float, float, str]]) -> list[Trial]:
    return [
        Trial(i, ARCH, state, {"macs": macs} if state == "failed" else {"top1": top1, "macs": macs},
              {"macs": excess}, "test", 0.0)  # type: ignore[arg-type]
        for i, (top1, macs, excess, state) in enumerate(study)
    ]  # fmt: skip


def good(*values: float) -> list[Trial]:
    return make([(value, 50.0, 0.0, "complete") for value in values])


def naive_best(trials: list[Trial], n: int) -> float:
    best = pareto.best(trials[:n], {"top1": "maximize"})
    return math.nan if best is None else best.metrics["top1"]


@settings(deadline=None)
@given(studies_)
@example([[(0.0, 1.0, -1.0, "complete"), (0.0, 1.0000000000000002, -1.0, "complete")]])  # equal but for rounding
def test_curves_are_those_of_the_first_n_trials(group: list[list[tuple[float, float, float, str]]]) -> None:
    studies = [make(study) for study in group]
    shortest = min(map(len, studies))
    comparison = compare({"a": studies}, BOTH)
    at = comparison.evaluations.tolist()
    assert at == list(range(1, shortest + 1))
    curves = comparison.groups["a"]
    expected = [[naive_best(trials, n) for n in at] for trials in studies]
    np.testing.assert_array_equal(curves.best, expected)
    feasible = [t for trials in studies for t in trials[:shortest] if t.feasible]
    if not feasible:
        assert curves.hypervolume is None
        assert comparison.measures == ("best",)
        return
    for trial in feasible:  # inside the box
        assert comparison.reference["top1"] < trial.metrics["top1"] <= comparison.ideal["top1"]
        assert comparison.reference["macs"] > trial.metrics["macs"] >= comparison.ideal["macs"]
    box = math.prod(abs(comparison.reference[name] - comparison.ideal[name]) for name in BOTH)
    assert curves.hypervolume is not None
    volumes = [[pareto.hypervolume(trials[:n], BOTH, comparison.reference) / box for n in at] for trials in studies]
    np.testing.assert_allclose(curves.hypervolume, volumes, rtol=1e-12)
    assert curves.hypervolume.max() <= 1 + 1e-12


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=7), st.sampled_from([1, -1]))
def test_median_and_quartiles_are_numpys(values: list[list[float]], sign: int) -> None:
    objectives = {"top1": "maximize" if sign == 1 else "minimize"}
    comparison = compare({"a": [good(*row) for row in values]}, objectives)
    best = sign * np.maximum.accumulate(sign * np.array(values), axis=1)
    spread = comparison.spread("a", "best")
    for found, q in ((spread.median, 0.5), (spread.low, 0.25), (spread.high, 0.75)):
        np.testing.assert_allclose(found, np.quantile(best, q, axis=0), rtol=1e-12, atol=1e-15)


def test_a_study_that_found_nothing_is_worse_than_any_that_did() -> None:
    infeasible = make([(0.9, 50.0, 0.5, "complete")] * 2)
    three = compare({"a": [good(0.5, 0.6), good(0.7, 0.7), infeasible]}, {"top1": "maximize"})
    spread = three.spread("a", "best")
    assert spread.median.tolist() == [0.5, 0.6]
    assert np.isnan(spread.low).all()
    assert spread.high.tolist() == [0.6, pytest.approx(0.65)]
    two = compare({"a": [good(0.5, 0.6), infeasible]}, {"top1": "maximize"}).spread("a", "best")
    assert np.isnan(two.median).all()
    fewer = compare({"a": [good(0.5), good(0.7), make([(0.9, 50.0, 0.5, "complete")])]}, {"top1": "minimize"})
    assert fewer.spread("a", "best").median.tolist() == [0.7]


def test_one_seed_has_no_interval() -> None:
    comparison = compare({"a": [good(0.1, 0.2)], "b": [good(0.1), good(0.3)]}, BOTH)
    assert comparison.spread("a", "best").low is None
    found = as_json(comparison)["groups"]
    assert (found["a"]["n"], found["a"]["best"]["low"], found["a"]["best"]["median"]) == (1, None, [0.1])
    assert (found["b"]["n"], found["b"]["best"]["low"]) == (2, [pytest.approx(0.15)])


def test_what_comes_after_the_shortest_study_does_not_count() -> None:
    short, long = good(*np.linspace(0, 0.5, 30)), good(*np.linspace(0, 1, 300))
    cut = compare({"a": [short], "b": [long[:30]]}, BOTH)
    whole = compare({"a": [short], "b": [long]}, BOTH)
    assert as_json(whole) == as_json(cut)
    assert whole.checkpoints == [10, 20, 30]


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, [1]), (10, [10]), (11, [10, 11]), (120, [10, 20, 50, 100, 120]), (1000, [10, 20, 50, 100, 200, 500, 1000])],
)
def test_checkpoints(length: int, expected: list[int]) -> None:
    assert checkpoints(length) == expected


def test_ten_thousand_trials_are_read_at_few_points() -> None:
    rng = np.random.default_rng(0)
    study = make([(a, b, 0.0, "complete") for a, b in rng.random((10_000, 2)).tolist()])
    comparison = compare({"a": [study]}, BOTH)
    assert len(comparison.evaluations) < 220
    assert set(comparison.checkpoints) <= set(comparison.evaluations.tolist())
    volume = comparison.groups["a"].hypervolume
    assert volume is not None
    box = math.prod(abs(comparison.reference[name] - comparison.ideal[name]) for name in BOTH)
    assert volume[0, -1] == pytest.approx(pareto.hypervolume(study, BOTH, comparison.reference) / box, rel=1e-12)


def test_a_single_objective_has_no_hypervolume(tmp_path) -> None:
    comparison = compare({"a": [good(0.1, 0.2)]}, {"top1": "maximize"})
    assert set(as_json(comparison)["groups"]["a"]) == {"n", "best"}
    save_comparison(comparison, tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").size == (780, 600)


def test_nothing_feasible_is_null_in_json() -> None:
    comparison = compare({"a": [make([(0.5, 1.0, 1.0, "complete"), (0.5, 1.0, 0.0, "failed")])]}, BOTH)
    found = json.loads(json.dumps(as_json(comparison)))
    assert found["groups"]["a"]["best"] == {"median": [None], "low": None, "high": None, "studies": [[None]]}
    assert found["reference"] == {}


@pytest.mark.parametrize("groups", [{}, {"a": []}, {"a": [good(0.5), []]}])
def test_nothing_to_compare_is_refused(groups: Mapping[str, list[list[Trial]]]) -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(groups, BOTH)


def test_studies_are_grouped_by_strategy_and_what_else_differs(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    trials = {name: make_trials(4, seed) for seed, name in enumerate("abcd")}
    write_study(run, "a", trials["a"], seed=0)
    write_study(run, "b", trials["b"], seed=1)
    write_study(run, "c", trials["c"], strategy="evolution")
    assert group_studies(find_studies([str(run.path)])) == {
        "random": [trials["a"], trials["b"]], "evolution": [trials["c"]],
    }  # fmt: skip
    write_study(run, "d", trials["d"], lookahead=16)
    assert set(group_studies(find_studies([str(run.path)]))) == {
        "random, lookahead 8", "random, lookahead 16", "evolution, lookahead 8",
    }  # fmt: skip


def test_sources_are_files_folders_and_names_each_study_once(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    for name in ("a", "b"):
        write_study(run, name, make_trials(2))
    file = run.path / "studies" / "a.journal"
    assert [s.name for s in find_studies([f"{run.path}:b", str(file), str(run.path)])] == [f"{run.path}:b", str(file)]
    shared = tmp_path / "shared.journal"
    for name in ("x", "y"):
        JournalStore(shared, dataclasses.replace(IDENTITY, study_name=name), SPACE).close()
    assert [s.name for s in find_studies([str(shared)])] == [f"{shared}:x", f"{shared}:y"]


def test_of_a_folder_damaged_studies_are_left_out_with_a_warning(tmp_path, caplog) -> None:
    run = make_run(tmp_path / "a run")
    write_study(run, "a", make_trials(2))
    run.study("bad").write_text("hello\n")
    assert [s.name for s in find_studies([str(run.path)])] == [f"{run.path}:a"]
    assert f"left out: {run.study('bad')} is not a study file" in caplog.text
    for source in (f"{run.path}:bad", str(run.study("bad"))):  # it is what was asked for
        with pytest.raises(StudyError, match=r"bad\.journal is not a study file"):
            find_studies([source])
    run.study("a").unlink()
    with pytest.raises(StudyError, match=r"bad\.journal is not a study file"):
        find_studies([str(run.path)])
    run.study("bad").unlink()
    with pytest.raises(RunError, match=f"has no studies; make one with: nas search '{run.path}'"):
        find_studies([str(run.path)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limits": {"macs": 4e6}}, "limits.macs is absent and 4000000.0"),
        ({"objectives": {"top1": "maximize"}}, r"objectives is \['top1', 'macs'\] and \['top1'\]"),
        ({"objectives": {"macs": "minimize", "top1": "maximize"}}, "objectives is"),
        ({"context": CONTEXT | {"weights": "b" * 16}}, "context.weights is a{16} and b{16}"),
        ({"context": CONTEXT | {"score": "calibrated"}}, "context.score is absent and calibrated"),
    ],
)
def test_studies_that_cannot_be_compared_are_refused(tmp_path, changes, message) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "a", make_trials(2))
    write_study(run, "b", make_trials(2), seed=1, **changes)
    with pytest.raises(ValueError, match=f"run:a and .*run:b cannot be compared: .*{message}"):
        group_studies(find_studies([str(run.path)]))


def test_the_same_search_twice_and_an_empty_study_are_refused(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "a", make_trials(2))
    write_study(run, "b", make_trials(2))
    with pytest.raises(ValueError, match=r"run:a and .*run:b are the same search \(random, seed 0\)"):
        group_studies(find_studies([str(run.path)]))
    write_study(run, "c", [], seed=1)
    with pytest.raises(ValueError, match="run:c has no trials yet"):
        group_studies(find_studies([f"{run.path}:a", f"{run.path}:c"]))


@pytest.mark.parametrize("study", [good(0.5), good(0.1, 0.2, 0.3), make([(0.5, 1.0, 1.0, "complete")] * 3)])
def test_few_trials_and_nothing_feasible_are_drawn_too(tmp_path, study) -> None:
    save_comparison(compare({"a": [study]}, BOTH), tmp_path / "few.png")
    assert Image.open(tmp_path / "few.png").height == 600
