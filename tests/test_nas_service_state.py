"""Views of studies and trainings: what they say is what the whole file says, however it grew."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import devices
import pytest
from services import ROOT, environment
from studies import CONTEXT, PROBLEM, SPACE, make_run, make_trials, write_study

from nas import pareto
from nas.problem import Problem
from nas.run import Run, RunError, is_training, writing
from nas.service.architecture import describe, difference
from nas.service.reach import reachable
from nas.service.state import (
    Library,
    study_names,
    study_summary,
    trial_row,
)
from nas.service.study_view import StudyView
from nas.service.tail import Tail
from nas.service.training_view import TrainingView
from nas.store import JournalStore, read_study
from nas.trial import Trial
from search_spaces.plan import plan

LIMITED = Problem(SPACE, PROBLEM.objectives, {"macs": 5e6}, PROBLEM.cost)


def assert_same(view: StudyView, trials: Sequence[Trial], objectives: dict[str, str]) -> None:
    assert view.error is None
    assert [t.number for t in view.trials] == [t.number for t in trials]
    for mine, stored in zip(view.trials, trials, strict=True):
        assert (mine.arch.key, mine.arch.to_dict()) == (stored.arch.key, stored.arch.to_dict())
        fields = ("state", "metrics", "constraints", "worker", "seconds", "error", "feasible")
        assert [getattr(mine, name) for name in fields] == [getattr(stored, name) for name in fields]
    assert [t.number for t in view.front] == [t.number for t in pareto.front(trials, objectives)]
    best = pareto.best(trials, objectives)
    assert (view.best and view.best.number) == (best and best.number)
    scale = view.reference["macs"]
    whole = pareto.hypervolumes(trials, objectives, view.reference, range(1, len(trials) + 1)) / scale
    assert view.hypervolumes == pytest.approx(list(whole), rel=1e-9)


def test_a_view_that_follows_piece_by_piece_says_what_the_whole_file_says(tmp_path: Path) -> None:
    run = make_run(tmp_path / "whole")
    trials = make_trials(120, failed=(0, 7, 50), problem=LIMITED)
    write_study(run, "default", trials, 120, limits={"macs": 5e6})
    data = run.study("default").read_bytes()
    growing = make_run(tmp_path / "growing")
    path = growing.study("default")
    path.parent.mkdir()
    view = StudyView(growing, "default")
    for start in range(0, len(data), 7919):  # most pieces end inside a record
        with open(path, "ab") as file:
            file.write(data[start : start + 7919])
        view.refresh()
        whole = data[: start + 7919].split(b"\n")[:-1]
        assert view.error is None
        assert len(view.trials) == sum(line.startswith(b'{"op_code":4') for line in whole)
    stored = read_study(run.study("default"), "default")
    assert_same(view, stored.trials, dict(stored.identity.objectives))
    assert view.n_failed == 3
    assert view.n_infeasible == sum(t.state == "complete" and not t.feasible for t in stored.trials) > 0
    best: float | None = None
    for trial, seen in zip(stored.trials, view.best_so_far, strict=True):
        if trial.feasible:
            best = max(best or 0.0, trial.metrics["top1"])
        assert seen == best


def test_only_what_was_appended_is_read(tmp_path: Path) -> None:
    tail = Tail(tmp_path / "lines")
    assert tail.read() == (False, [])
    (tmp_path / "lines").write_bytes(b"one\ntw")
    assert tail.read() == (False, [b"one"])
    assert tail.offset == 4
    with open(tmp_path / "lines", "ab") as file:
        file.write(b"o\nthree\n")
    assert tail.read() == (False, [b"two", b"three"])
    assert tail.read() == (False, [])
    (tmp_path / "lines").unlink()
    assert tail.read() == (False, [])  # what was read stays
    (tmp_path / "lines").write_bytes(b"1\n2\n3\n4\n5\n6\n7\n8\n")
    assert tail.read() == (True, [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8"])


@pytest.mark.parametrize("content", [b"other\n", b"ONE\ntwo\nthree\nfour\n"], ids=["cut", "rewritten"])
def test_a_file_that_was_written_anew_is_read_from_its_beginning(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\nthree\n")
    tail = Tail(file)
    tail.read()
    file.write_bytes(content)
    assert tail.read() == (True, content.splitlines())
    assert tail.generation == 1


def test_a_long_line_without_an_end_is_not_read_again_before_it_grew(tmp_path: Path) -> None:
    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    file, size = tmp_path / "lines", 1 << 23
    file.write_bytes(b"one\n" + b"x" * size)
    tail = Tail(file)
    assert tail.read() == (False, [b"one"])
    before = bytes_read()
    assert tail.read() == (False, [])
    assert bytes_read() - before < size / 2
    with open(file, "ab") as more:
        more.write(b"\n")
    assert tail.read() == (False, [b"x" * size])


def test_a_study_that_starts_over_is_a_new_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "default", make_trials(9), 9)
    view = StudyView(run, "default")
    assert view.refresh() == 9
    run.study("default").unlink()
    write_study(run, "default", make_trials(4, seed=5), 9)
    view.refresh()
    assert view.generation == 1
    assert_same(view, read_study(run.study("default")).trials, view.objectives)


def test_the_state_of_a_study(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "done", make_trials(5), 5)
    write_study(run, "short", make_trials(5), 9)
    write_study(run, "empty", [], 9)
    states = {name: library_view(run, name).state for name in study_names(run)}
    assert states == {"done": "finished", "short": "interrupted", "empty": "idle"}
    stored = read_study(run.study("short"), "short")
    with closing(JournalStore(run.study("short"), stored.identity, SPACE, 9)) as store:
        assert library_view(run, "short").state == "searching"
        store.exhaust()
    assert library_view(run, "short").state == "exhausted"
    with closing(JournalStore(run.study("short"), stored.identity, SPACE, 9)) as store:
        store.append(make_trials(6)[5])  # one was found all the same
    assert library_view(run, "short").state == "interrupted"
    assert not read_study(run.study("short"), "short").exhausted


def library_view(run: Run, name: str) -> StudyView:
    view = StudyView(run, name)
    view.refresh()
    return view


def test_pages_of_trials(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "s", make_trials(30, failed=(4,)), 30)
    view = library_view(run, "s")
    assert [t.number for t in view.page(10, 5)] == [10, 11, 12, 13, 14]
    assert [t.number for t in view.page(0, 3, descending=True)] == [29, 28, 27]
    by_top1 = view.page(0, 30, descending=True, sort="top1")
    assert by_top1[0] == max((t for t in view.trials if "top1" in t.metrics), key=lambda t: t.metrics["top1"])
    assert by_top1[-1].number == 4  # failed: it has none
    with pytest.raises(ValueError, match="cannot sort by 'colour'; valid: number, seconds"):
        view.page(sort="colour")
    with pytest.raises(IndexError, match="no trial 30; valid: 0 to 29"):
        trial_row(view, 30)


def test_neighbours_are_the_next_on_the_front(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "s", make_trials(60), 60)
    view = library_view(run, "s")
    front = sorted(view.front, key=lambda trial: trial.metrics["macs"])
    for i, trial in enumerate(front):
        found = view.neighbours(trial)
        assert found["lower"] == (front[i - 1] if i else None)
        assert found["higher"] == (front[i + 1] if i + 1 < len(front) else None)


def test_an_architecture_is_described_by_its_plan() -> None:
    a, b = SPACE.smallest(), SPACE.largest()
    found = describe(SPACE, b.to_dict())
    assert sum(block["macs"] for block in found["blocks"]) == found["macs"] == plan(SPACE, b).macs
    assert sum(block["params"] for block in found["blocks"]) == found["params"] == plan(SPACE, b).params
    assert difference(SPACE, a.to_dict(), a.to_dict()) == {}
    changes = difference(SPACE, a.to_dict(), b.to_dict())
    assert changes["width of stage 1"] == [a.width[0], b.width[0]]
    assert changes["kernel of block 2"] == [None, b.kernel[1]]  # the smaller one has no second block


def test_a_reachable_limit_and_one_that_is_not(tmp_path: Path) -> None:
    run, library = make_run(tmp_path / "run"), Library(tmp_path)
    assert reachable(library, "run", {"macs": 5e6})["feasible"]
    found = reachable(library, "run", {"macs": 1.0})
    assert not found["feasible"]
    assert found["nearest"]["macs"] == found["range"]["macs"][0]
    assert "nearest reachable" in found["message"]
    assert "top1" not in found["range"]
    with pytest.raises(ValueError, match="unknown metric 'colour'"):
        reachable(library, "run", {"colour": 1.0})
    trials = make_trials(9)
    write_study(run, "s", trials, 9)
    write_study(run, "old", make_trials(20, seed=1), context=CONTEXT | {"weights": "0" * 16})  # of other weights
    known = [trial.metrics["top1"] for trial in trials]
    assert reachable(library, "run", {})["range"]["top1"] == [min(known), max(known)]


def test_latencies_of_several_devices_are_reached_or_not(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    library, slow, fast = Library(tmp_path), devices.profile(SPACE, "slow"), devices.profile(SPACE, "fast", threads=2)
    with pytest.raises(ValueError, match="latency_ms needs a device profile"):
        reachable(library, "run", {"latency_ms": 3.0})
    low, high = reachable(library, "run", {}, [slow])["range"]["latency_ms"]
    assert 0 < low < high
    assert not reachable(library, "run", {"latency_ms": low * 0.9}, [slow])["feasible"]
    limits = {"latency_ms_slow": high, "latency_ms_fast": low * 0.9}
    both = reachable(library, "run", limits, [slow, fast])
    assert {"latency_ms_slow", "latency_ms_fast"} <= both["range"].keys()
    assert "latency_ms_fast" in both["message"]


def test_training_records_are_followed(trained_run: Path, tmp_path: Path) -> None:
    whole = TrainingView(Run.open(trained_run))
    assert whole.refresh() == len(whole.steps) + len(whole.epochs)
    assert whole.state == "trained"
    assert len(whole.epochs) == 3
    assert {"lr", "images_per_s"} <= whole.steps[0].keys()
    run = make_run(tmp_path / "run")
    view = TrainingView(run)
    data = (trained_run / "metrics.jsonl").read_bytes()
    for end in range(0, len(data) + 100, 100):
        run.metrics.write_bytes(data[:end])
        view.refresh()
    assert (view.steps, view.epochs) == (whole.steps, whole.epochs)
    assert view.generation == 0


def test_a_run_that_is_trained_now_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert not is_training(run)
    with writing(run):
        assert is_training(run)
        with pytest.raises(RunError, match="is being trained by another process"), writing(run):
            pass
    assert not is_training(run)


def test_a_study_of_other_weights_is_stale(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "s", make_trials(2), 2)
    assert not study_summary(library_view(run, "s"))["stale"]
    (run.path / "checkpoint.safetensors").unlink()
    from studies import set_weights

    set_weights(run, "b")
    assert study_summary(library_view(run, "s"))["stale"]


def test_finished_studies_open_without_torch_and_ray(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "s", make_trials(20), 20)
    program = (
        "import sys; from nas.service.app import create_api; from nas.service.service import Service\n"
        "from nas.service.state import run_summary\n"
        "service = Service.open(sys.argv[1]); create_api(service)\n"
        "assert run_summary(service.library, 'run')['studies'][0]['n_trials'] == 20\n"
        "print([name for name in ('torch', 'ray') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_trials_of_a_metric_without_known_worst_value_still_have_a_volume(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    objectives = {"top1": "maximize", "energy": "minimize"}
    trials = [
        replace(trial, metrics={**trial.metrics, "energy": 10.0 + trial.number}) for trial in make_trials(20, failed=())
    ]
    write_study(run, "s", trials, 20, objectives=objectives)
    view = library_view(run, "s")
    assert view.error is None
    assert view.reference["energy"] == 29.0
    whole = pareto.hypervolumes(trials, objectives, view.reference, range(1, 21)) / 29.0
    assert view.hypervolumes == pytest.approx(list(whole))
