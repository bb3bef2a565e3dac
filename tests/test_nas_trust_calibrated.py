"""The calibrated search: what calibration it takes, what it keeps of it, and which it refuses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from trusts import N, report_of

from nas.calibrations import load_calibration
from nas.run import Run, RunError
from nas.searching import open_study, search_run
from nas.summary import summarize
from nas.trust import trust_run

ROOT = Path(__file__).parent.parent


def test_a_calibrated_search_has_one_history_with_any_number_of_workers(trusted, tmp_path, ray_address):
    def history(workers):
        run = Path(shutil.copytree(trusted, tmp_path / str(workers)))
        seen = []
        study = search_run(
            run, n_trials=10, num_workers=workers, score="calibrated", address=ray_address, on_trial=seen.append
        )
        assert seen == list(study.trials)
        return [(t.number, t.arch.key, dict(t.metrics), t.constraints) for t in study.trials]

    assert history(0) == history(2)


def test_calibrated_metrics_are_the_calibrations_and_the_cache_stays_raw(trusted_copy, nas):
    study = search_run(trusted_copy, n_trials=6, num_workers=0, score="calibrated", limits={"macs": 5e6})
    calibration = load_calibration(Run.open(trusted_copy), report_of(trusted_copy)["weights"])
    raw = {
        line["key"]: line["metrics"]
        for line in map(json.loads, (trusted_copy / "evaluations.jsonl").read_text().splitlines())
    }
    for trial in study.trials:
        assert raw[trial.arch.key] == {"top1": trial.metrics["top1_inherited"]}
        mean, std = calibration.predict([trial.arch], [trial.metrics["top1_inherited"]])
        assert (trial.metrics["top1"], trial.metrics["top1_std"]) == (mean[0], std[0])
    inherited = search_run(trusted_copy, n_trials=6, num_workers=0, study_name="inherited", limits={"macs": 5e6})
    known = {t.arch.key for t in study.trials}
    assert all(t.worker == "cache" for t in inherited.trials if t.arch.key in known)

    row = summarize(study)["front"][0]
    half = 1.96 * row["metrics"]["top1_std"]
    assert row["top1_interval"] == [row["metrics"]["top1"] - half, row["metrics"]["top1"] + half]
    assert (summarize(study)["score"], summarize(inherited)["score"]) == ("calibrated", "inherited")
    code, out, _ = nas("pareto", trusted_copy)
    assert code == 0
    assert "95 %" in out
    assert f"± {half:.2%}" in out
    assert "top1_interval" not in summarize(inherited)["front"][0]


def test_a_study_keeps_its_score_and_its_calibration(trusted_copy, caplog):
    search_run(trusted_copy, n_trials=3, num_workers=0, score="calibrated")
    search_run(trusted_copy, n_trials=3, num_workers=0, study_name="raw")
    for name, now in (("default", "inherited"), ("raw", "calibrated")):
        before = {"inherited": "calibrated", "calibrated": "inherited"}[now]
        with pytest.raises(RunError, match=f"searched with the {before} score and cannot go on with the {now} one"):
            search_run(trusted_copy, n_trials=4, num_workers=0, study_name=name, score=now)
    assert len(search_run(trusted_copy, n_trials=4, num_workers=0, score="calibrated").trials) == 4
    trust_run(trusted_copy, archs=N + 1, epochs=1, device="cpu")
    command = f"nas trust {trusted_copy} --archs {{}} --epochs 1 --seed 0"
    both = f"was made by {command.format(N)}, the present one by {command.format(N + 1)};"
    with pytest.raises(RunError, match=r"context\.calibration is \w{16} in the study and \w{16} now") as refused:
        search_run(trusted_copy, n_trials=5, num_workers=0, score="calibrated")
    assert both in str(refused.value)
    another = f"study 'default' was scored by another calibration than {trusted_copy} has now"
    open_study(trusted_copy, "raw")
    assert "another calibration" not in caplog.text
    assert len(open_study(trusted_copy).trials) == 4
    assert another in caplog.text
    caplog.clear()
    (trusted_copy / "calibrations.json").unlink()
    with pytest.raises(RunError, match="the study's was made with options that are not recorded"):
        search_run(trusted_copy, n_trials=5, num_workers=0, score="calibrated")
    trust_run(trusted_copy, archs=N, epochs=1, device="cpu")  # as the message says
    assert len(search_run(trusted_copy, n_trials=5, num_workers=0, score="calibrated").trials) == 5
    open_study(trusted_copy)
    assert "another calibration" not in caplog.text


def test_an_unknown_score_and_a_missing_calibration_are_refused_before_torch_is_imported(trained_run):
    for score, message in (
        ("guess", "unknown score 'guess'; valid: inherited, calibrated"),
        ("calibrated", f"{trained_run} has no calibration; make one with: nas trust {trained_run}"),
    ):
        code = (
            f"import sys\nsys.argv = ['nas', 'search', {str(trained_run)!r}, '--score', {score!r}]\n"
            "from nas import cli\ntry: cli.main()\n"
            "except SystemExit as stop: print(stop.code, {'torch', 'ray', 'sklearn'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.stdout == "2 set()\n", done.stderr
        assert message in done.stderr


@pytest.mark.parametrize(
    ("limits", "again"),
    [
        ({}, "--epochs 1 --seed 0$"),
        ({"macs": 2e6}, "--max-macs 2000000$"),
        ({"macs": (1e6, None)}, "--epochs 1 --seed 0$"),
        ({"macs": 1e6}, None),
        ({"macs": (None, 5e5)}, None),
    ],
)
def test_a_search_beyond_the_calibrations_sample_warns(trusted_copy, caplog, limits, again):
    file = trusted_copy / "calibrations.json"
    made = json.loads(file.read_text())
    file.write_text(json.dumps({identity: one | {"max_macs": 1_000_000} for identity, one in made.items()}))
    search_run(trusted_copy, n_trials=2, num_workers=0, score="calibrated", limits=limits)
    told = [record.message for record in caplog.records if "extrapolated" in record.message]
    assert len(told) == (again is not None)
    if again:
        assert "of at most 1M MACs" in told[0]
        assert "Search with --max-macs 1000000" in told[0]
        assert re.search(again, told[0])


@pytest.mark.parametrize("text", ["{", "[]"])
def test_that_the_record_of_former_calibrations_is_damaged_is_said(trusted_copy, caplog, text):
    file = trusted_copy / "calibrations.json"
    file.write_text(text)
    search_run(trusted_copy, n_trials=2, num_workers=0, score="calibrated", limits={"macs": 1e6})
    assert f"{file} is damaged: how former calibrations were made is no longer known" in caplog.text


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "other"}', '{"format": "nas-calibration-1", "pairs": 9}', None]
)
def test_a_damaged_calibration_says_what_to_run(trusted_copy, text):
    file = trusted_copy / "calibration.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | {"pairs": data["pairs"][:2]}) if text is None else text)
    again = rf"make it again with: nas trust \S+ --archs {N} --epochs 1 --seed 0 "  # which trains nothing anew
    with pytest.raises(RunError, match=rf"calibration\.json .*{again}"):
        search_run(trusted_copy, n_trials=2, num_workers=0, score="calibrated")


def test_the_interval_covers_what_it_should(trusted):
    """Not a proof, a guard against a deviation in the wrong unit: accuracies and their deviation are below 1."""
    run = Run.open(trusted)
    calibration = load_calibration(run, report_of(trusted)["weights"])
    archs = [run.space.sample(np.random.default_rng(i)) for i in range(50)]
    _, std = calibration.predict(archs, np.full(50, 0.3))
    spread = np.std([row["standalone"] for row in report_of(trusted)["archs"]])
    assert 0.01 * spread < std.min() <= std.max() < 10 * spread


def test_a_calibration_on_equal_accuracies_is_refused(trusted_copy):
    file = trusted_copy / "calibration.json"
    data = json.loads(file.read_text())
    for pair in data["pairs"]:
        pair["standalone"] = 0.125
    file.write_text(json.dumps(data))
    with pytest.raises(RunError, match=rf"all {N} networks trained alone have 12.50%; train them longer"):
        load_calibration(Run.open(trusted_copy), data["weights"])


def test_what_made_a_calibration_makes_it_again(trusted_copy):
    data = json.loads((trusted_copy / "calibration.json").read_text())
    with pytest.raises(RunError, match=rf"nas trust \S+ --archs {N} --epochs 1 --seed 0 \(stand-alone runs are kept\)"):
        load_calibration(Run.open(trusted_copy), "0" * 64)
    data["pairs"][0]["inherited"] = 99
    (trusted_copy / "calibration.json").write_text(json.dumps(data))
    with pytest.raises(RunError, match="outside 0 to 1"):
        load_calibration(Run.open(trusted_copy), data["weights"])
