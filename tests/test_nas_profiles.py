"""Device profiles: files, limits in searches, and the front measured for real."""

from __future__ import annotations

import dataclasses
import json

import devices
import numpy as np
import pytest
import torch

from nas import front_latency, profiling
from nas.profiles import Profile, ProfileError, contexts, costs_with, kept, metric_names
from nas.resuming import resume_run
from nas.run import Run
from nas.searching import open_study, pick_arch, search_run
from nas.store import StudyError
from search_spaces import cost
from search_spaces.catalog import SPACES
from search_spaces.feasible import InfeasibleLimitsError

SPACE = SPACES["digits"]()


@pytest.fixture(scope="module")
def profile() -> Profile:
    return devices.profile(SPACE)


def search(run, profile, n_trials=12, **options):
    limits = {"latency_ms": profile.middle_ms}
    return search_run(run, n_trials=n_trials, num_workers=0, profiles=[profile], **{"limits": limits, **options})


def test_the_file_holds_all_of_it(profile, tmp_path) -> None:
    profile.write(tmp_path / "pi.json")
    again = Profile.read(tmp_path / "pi.json")
    archs = [SPACE.sample(np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_array_equal(again.bound(archs), profile.bound(archs))
    assert (again.name, again.identity) == ("pi", profile.identity)
    assert again.summary() == profile.summary()
    assert devices.profile(SPACE, threads=2).identity != profile.identity


def test_limits_allow_for_the_margin_and_for_the_drift_of_the_device(profile) -> None:
    unsteady = dataclasses.replace(devices.measured(SPACE), speeds=(0.9, 0.95, 1.0, 1.05, 1.1))
    other = Profile.of("cpu", SPACE, profile.device, unsteady)
    archs = [SPACE.smallest(), SPACE.largest()]
    assert (profile.drift, other.drift) == (0.0, pytest.approx(0.09))
    np.testing.assert_allclose(profile.bound(archs), profile.model.predict(archs) * (1 + profile.errors.margin))
    np.testing.assert_allclose(other.bound(archs), profile.bound(archs) * 1.09)
    assert other.identity != profile.identity


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("model"), "is a damaged device profile: KeyError: 'model'"),
        (lambda data: data["model"]["shapes"]["basic"].pop("mean"), "is a damaged device profile"),
        (lambda data: data.update(format="nas-latency-0"), "is not a device profile of this version"),
        (lambda data: data.update(space={}), "is a damaged device profile"),
        (lambda data: data.update(drift="nan"), "is a damaged device profile: ValueError: it predicts no finite"),
    ],
)
def test_damaged_files_are_named(profile, tmp_path, change, message) -> None:
    file = tmp_path / "cpu.json"
    profile.write(file)
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(ProfileError, match=f"{file} {message}"):
        Profile.read(file)
    file.write_text(file.read_text()[:1000])
    with pytest.raises(ProfileError, match="cannot be read as a device profile"):
        Profile.read(file)
    with pytest.raises(ProfileError, match=r"there is no device profile .*; make one with `nas profile"):
        Profile.read(tmp_path / "none.json")


def test_metrics_of_one_and_of_several(profile) -> None:
    gpu = devices.profile(SPACE, "gpu", device="cuda")
    assert list(metric_names([profile])) == ["latency_ms"]
    assert contexts([profile, gpu]) == {"latency_ms_cpu": profile.identity, "latency_ms_gpu": gpu.identity}
    with pytest.raises(ProfileError, match="two device profiles have one name, of cpu, cpu"):
        metric_names([profile, profile])
    archs = [SPACE.smallest(), SPACE.largest()]
    known = costs_with(SPACE, [profile, gpu])(archs)
    assert list(known) == [*cost.METRICS, "latency_ms_cpu", "latency_ms_gpu"]
    np.testing.assert_array_equal(known["latency_ms_cpu"], profile.bound(archs))
    with pytest.raises(ProfileError, match="is of another space: its num_classes is 10, here it is 7"):
        costs_with(SPACES["digits"](num_classes=7), [profile])


def test_a_search_keeps_to_its_limit_and_goes_on_without_the_file(profile, run_copy) -> None:
    limit = profile.middle_ms
    study = search(run_copy, profile, objectives=["top1", "latency_ms"])
    assert all(trial.metrics["latency_ms"] <= limit for trial in study.trials)
    assert [t.metrics["latency_ms"] for t in study.trials] == profile.bound([t.arch for t in study.trials]).tolist()
    assert [p.identity for p in kept(Run.open(run_copy), contexts([profile]))] == [profile.identity]
    longer = resume_run(run_copy, n_trials=16, num_workers=0)
    assert [t.arch for t in longer.trials[:12]] == [t.arch for t in study.trials]
    assert len(longer.trials) == 16


def test_another_profile_is_another_search(profile, run_copy) -> None:
    search(run_copy, profile, 4)
    with pytest.raises(StudyError, match=r"context.latency_ms is \w+ in the study and \w+ now"):
        search(run_copy, devices.profile(SPACE, threads=2), 4)
    with pytest.raises(StudyError, match=r"context.latency_ms is \w+ in the study and absent now"):
        search_run(run_copy, n_trials=4, num_workers=0)
    # evaluations do not depend on the device, and are shared
    other = search(run_copy, devices.profile(SPACE, threads=2), 4, study_name="other")
    assert [trial.worker for trial in other.trials] == ["cache"] * 4


def test_refusals(profile, run_copy) -> None:
    with pytest.raises(ValueError, match="latency_ms needs a device profile"):
        search_run(run_copy, n_trials=4, num_workers=0, limits={"latency_ms": 3})
    with pytest.raises(InfeasibleLimitsError, match=r"latency_ms ≤ 0.001 \(nearest reachable: "):
        search(run_copy, profile, 4, limits={"latency_ms": 0.001})
    with pytest.raises(ValueError, match=r"unknown metric 'latency_ms_gpu'; valid: .*, latency_ms$"):
        search(run_copy, profile, 4, limits={"latency_ms_gpu": 1})


def test_the_front_is_measured_on_the_device_and_what_is_over_is_not_the_best(profile, run_copy) -> None:
    run, study = Run.open(run_copy), search(run_copy, profile, objectives=["top1", "macs"])
    assert front_latency.of_front(run, "default", study) == {}
    assert front_latency.measure_front(run, "default", study) == []
    times = front_latency.of_front(run, "default", study)
    assert times.keys() == {trial.number for trial in study.front()}
    before = (run.path / "latency" / "default.json").read_bytes()
    assert front_latency.measure_front(run, "default", study) == []
    assert (run.path / "latency" / "default.json").read_bytes() == before  # nothing new, so nothing was measured

    file, times = run.path / "latency" / "default.json", json.loads(before)

    def say_measured(slow: set[str]) -> None:
        for key, by_profile in times.items():
            by_profile[profile.identity]["median_ms"] = profile.middle_ms * (2 if key in slow else 0.5)
        file.write_text(json.dumps(times))

    best = study.best.arch
    say_measured(set())
    assert pick_arch(run, best=True) == best
    say_measured({best.key})
    seen = front_latency.of_front(run, "default", study)[study.best.number]
    assert front_latency.over_budget(study.limits, seen) == ["latency_ms"]
    others = [trial for trial in study.trials if trial is not study.best]
    second = max(others, key=lambda trial: (trial.metrics["top1"], -trial.metrics["macs"]))  # equal ones do occur
    assert pick_arch(run, best=True) == second.arch


def test_another_device_is_not_measured_here(run_copy) -> None:
    pi = devices.profile(SPACE, "pi", device_name="Cortex-A76")
    study = search(run_copy, pi, 6)
    (reason,) = front_latency.measure_front(Run.open(run_copy), "default", study)
    assert reason.startswith("the device profile 'latency_ms' is of another device: its device_name is 'Cortex-A76'")
    assert front_latency.of_front(Run.open(run_copy), "default", open_study(run_copy)) == {}


def test_the_machine_s_speed_is_what_most_networks_say() -> None:
    anchors = np.outer([1.0, 1.2, 1.0, 0.9, 1.0], [3.0, 5.0, 8.0])
    anchors[0, 2] *= 4  # disturbed
    np.testing.assert_allclose(profiling._speeds(anchors), [1.0, 1.2, 1.0, 0.9, 1.0])


def test_a_gpu_that_is_not_there_does_not_fail_a_search_that_is_done(run_copy) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    gpu = devices.profile(SPACE, "gpu", device="cuda")
    study = search(run_copy, gpu, 6)
    (reason,) = front_latency.measure_front(Run.open(run_copy), "default", study)
    assert "cannot be checked here: this machine has no GPU that torch can use" in reason


def test_the_commands(nas, run_copy, tmp_path) -> None:
    """Measured for real, with as little as there may be."""
    file = tmp_path / "cpu.json"
    code, out, err = nas("profile", run_copy, "-o", file, "--seconds", 0, "--subnets", 20, "--blocks", 20)
    assert code == 0, err
    assert "blocks added up" in out
    assert f"next: nas search {run_copy} --profile {file} --max-latency-ms" in err
    assert file.with_suffix(".png").stat().st_size > 0
    limit = 2 * Profile.read(file).middle_ms
    code, out, err = nas(
        "search", run_copy, "--profile", file, "--max-latency-ms", limit, "--max-memory", "100k", "--n-trials", 8,
        "--num-workers", 0,
    )  # fmt: skip
    assert code == 0, err
    assert "measured" in out
    code, out, err = nas("pareto", run_copy, "--json")
    front = json.loads(out)["front"]
    assert front
    assert all(row["measured"]["latency_ms"] > 0 for row in front)
    assert all(row["metrics"]["peak_memory"] <= 100_000 for row in front)
    code, out, err = nas("query", run_copy, "--max-latency-ms", limit, "--json")
    assert (code, json.loads(out)["n_within"]) == (0, 8)
    code, _, err = nas("query", run_copy, "--max-latency-ms", 1e-9, "--max-memory", "1M")
    assert code == 1
    assert f"next: nas search {run_copy} --study-name NAME --max-latency-ms 1e-09 --max-memory 1M --profile FILE" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["profile", "-o", "x.json"], "either a RUN or --space NAME"),
        (["profile", "--space", "digits", "-o", "none/x.json"], "there is no folder none to write to"),
        (["profile", "--space", "digits", "-o", "x.json", "--runtime", "tvm"], "unknown runtime 'tvm'; valid: torch"),
        (["profile", "--space", "digits", "-o", "x.json", "--subnets", "3"], "3 subnets are too few"),
        (
            ["profile", "--space", "digits", "-o", "x.json", "--address", "auto"],
            "which node of auto is to be",
        ),
        (["search", "RUN", "--max-latency-ms", "soon"], "'soon' is not a quantity"),
        (["search", "RUN", "--max-latency-ms", "3", "--max-latency-ms", "4"], "there are two limits on latency_ms"),
        (["search", "RUN", "--profile", "none.json"], "there is no device profile none.json"),
    ],
)
def test_bad_arguments(nas, trained_run, arguments, message) -> None:
    code, _, err = nas(*[trained_run if argument == "RUN" else argument for argument in arguments])
    assert code == 2
    assert message in err


def test_an_export_shows_the_budget_beside_what_it_measured(nas, profile, run_copy, tmp_path) -> None:
    search(run_copy, profile, 4, limits={"latency_ms": 1e6})
    code, out, err = nas("export", run_copy, "--best", "-o", tmp_path / "model", "--json")
    assert code == 0, err
    (budget,) = json.loads(out)["budgets"]
    assert (budget["name"], budget["limit_ms"], budget["runtime"], budget["met"]) == ("latency_ms", 1e6, "torch", True)
