"""The journal of a study: one writer, any reader, whole again after a kill."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from broken_files import no_space, replace_file
from search_cases import choice_problem, complete_trial, failed_trial, make_strategy, network_problem, score

from nas.problem import Problem
from nas.store import Identity, JournalStore, StudyError, read_study
from nas.trial import Trial

PROBLEM = choice_problem(30)
TINY = choice_problem(30, genes=2)


def identity_of(problem: Problem, **changes: Any) -> Identity:
    identity = Identity(
        "default", problem.space.to_dict(), problem.objectives, problem.limits, "random", 0, 8, {"weights": "abc"}
    )
    return dataclasses.replace(identity, **changes)


def some_trials(problem: Problem = PROBLEM, n: int = 6) -> list[Trial]:
    """The third one failed."""
    strategy, trials = make_strategy("random", problem), list[Trial]()
    for number in range(n):
        arch = strategy.ask(number, {t.arch.key for t in trials})
        assert arch is not None
        failed = number == 2
        trials.append(
            failed_trial(problem, number, arch) if failed else complete_trial(problem, number, arch, score(arch))
        )
    return trials


def write(path: Path, trials: list[Trial], problem: Problem = PROBLEM, **changes: Any) -> None:
    store = JournalStore(path, identity_of(problem, **changes), problem.space)
    for trial in trials[len(store.trials) :]:
        store.append(trial)
    store.close()


@pytest.mark.parametrize("problem", [PROBLEM, network_problem("digits", 4e6)], ids=["choices", "network"])
def test_trials_come_back_as_they_were(tmp_path: Path, problem: Problem) -> None:
    trials = some_trials(problem)
    write(tmp_path / "study.log", trials, problem)
    stored = read_study(tmp_path / "study.log")
    assert stored.trials == trials
    assert stored.space.to_dict() == problem.space.to_dict()
    assert stored.identity == identity_of(problem)


def test_continuing_appends(tmp_path: Path) -> None:
    trials = some_trials()
    for n in (0, 2, 3, 6):
        write(tmp_path / "study.log", trials[:n])
    assert read_study(tmp_path / "study.log").trials == trials


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write hundreds of files, of which none has to outlive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.mark.usefixtures("no_fsync")
def test_a_torn_last_line_is_cut_at_every_byte(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "study.log"
    trials = some_trials(TINY, 3)
    write(path, trials, TINY)
    data = path.read_bytes()
    last = data.rfind(b"\n", 0, -1) + 1
    for size in range(last, len(data)):
        replace_file(path, data[:size])
        caplog.clear()
        write(path, trials, TINY)
        assert path.read_bytes()[:last] == data[:last]
        assert read_study(path).trials == trials
        assert ("unfinished record" in caplog.text) == (size > last)


def test_a_torn_last_line_is_left_to_the_writer_by_readers(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    trials = some_trials(TINY, 3)
    write(path, trials, TINY)
    data = path.read_bytes()
    last = data.rfind(b"\n", 0, -1) + 1
    for size in range(last, len(data), 13):
        replace_file(path, data[:size])
        assert read_study(path).trials == trials[:2]
        assert path.read_bytes() == data[:size]


@pytest.mark.usefixtures("no_fsync")
def test_a_study_torn_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    trials = some_trials(TINY, 3)
    write(path, [], TINY)
    data = path.read_bytes()
    for size in range(len(data)):
        replace_file(path, data[:size])
        write(path, trials, TINY)
        assert read_study(path).trials == trials


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed is 0 in the study and 1 now"),
        ({"limits": {"macs": 40.0}}, "limits.macs is 30.0 in the study and 40.0 now"),
        ({"limits": {}}, "limits.macs is 30.0 in the study and absent now"),
        ({"strategy": "evolution"}, "strategy is random in the study and evolution now"),
        ({"lookahead": 16}, "lookahead is 8 in the study and 16 now"),
        ({"context": {"weights": "xyz"}}, "context.weights is abc in the study and xyz now"),
        ({"objectives": {"top1": "maximize"}}, "objectives.macs is minimize in the study and absent now"),
        ({"objectives": {"macs": "minimize", "top1": "maximize"}}, "objectives are"),
        ({"space": choice_problem(genes=2).space.to_dict()}, r"space.choices.g2 is \[0, 1, 2, 3\] in the study and"),
    ],
)
def test_another_search_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "study.log"
    write(path, some_trials())
    before = path.read_bytes()
    with pytest.raises(StudyError, match=message):
        write(path, some_trials(), **changes)
    assert path.read_bytes() == before
    write(path, some_trials())  # the lock was given back


def test_a_study_without_trials_is_described_anew(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    write(path, some_trials(), study_name="other")
    write(path, [])
    changed = Problem(PROBLEM.space, {"top1": "minimize"}, {"macs": 40.0}, PROBLEM.cost)
    trials = some_trials(changed)
    write(path, trials, changed, seed=1)
    assert read_study(path, "default").identity == identity_of(changed, seed=1)
    assert read_study(path, "default").trials == trials
    assert read_study(path, "other").trials == some_trials()


def test_one_file_holds_several_studies(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    write(path, some_trials(), study_name="a")
    write(path, some_trials(n=4), study_name="b", seed=1)
    assert len(read_study(path, "a").trials) == 6
    assert len(read_study(path, "b").trials) == 4
    with pytest.raises(StudyError, match="name one of its studies; studies: a, b"):
        read_study(path)
    with pytest.raises(StudyError, match="no study 'c'; studies: a, b"):
        read_study(path, "c")


def test_a_second_writer_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    trials = some_trials()
    store = JournalStore(path, identity_of(PROBLEM), PROBLEM.space)
    store.append(trials[0])
    with pytest.raises(StudyError, match=f"being written by another search .process {os.getpid()}."):
        JournalStore(path, identity_of(PROBLEM), PROBLEM.space)
    assert read_study(path).trials == trials[:1]
    store.append(trials[1])
    assert read_study(path).trials == trials[:2]
    store.close()
    write(path, trials)


def test_a_lock_left_behind_by_optuna_or_a_killed_writer_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    (tmp_path / "study.log.writer").write_text("99999999")
    (tmp_path / "study.log.lock").symlink_to(path)
    write(path, some_trials())
    assert len(read_study(path).trials) == 6


def test_optuna_opens_the_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    trials = some_trials()
    write(path, trials)
    before = path.read_bytes()
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.load_study(study_name="default", storage=optuna.storages.JournalStorage(backend))
    assert [t.number for t in study.trials] == [t.number for t in trials]
    assert [t.state.name for t in study.trials] == ["FAIL" if t.state == "failed" else "COMPLETE" for t in trials]
    assert [t.values for t in study.trials if t.values] == [
        [t.metrics["top1"], t.metrics["macs"]] for t in trials if t.state == "complete"
    ]
    assert study.trials[0].params == dict(trials[0].arch.to_dict())
    assert study.trials[0].constraints.items() >= trials[0].constraints.items()
    assert study.metric_names == ["top1", "macs"]
    assert {t.number for t in study.best_trials} <= {t.number for t in trials if t.state == "complete"}
    assert len(study.trials_dataframe()) == 6
    assert path.read_bytes() == before


def test_constraints_are_optunas(tmp_path: Path) -> None:
    """Feasible for us and for Optuna are the same thing."""
    problem = Problem(PROBLEM.space, {"top1": "maximize"}, {"error_rate": 0.3})
    trials = [t for t in some_trials(problem, 30) if t.state == "complete"]
    trials = [dataclasses.replace(t, number=i) for i, t in enumerate(trials)]
    write(tmp_path / "study.log", trials, problem)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name="default", storage=optuna.storages.JournalStorage(backend))
    best = max((t for t in trials if t.feasible), key=lambda t: t.metrics["top1"])
    assert study.best_trial.number == best.number
    assert not all(t.feasible for t in trials)


@pytest.mark.parametrize("content", [b"hello", b"hello\n", b"one: 1\ntwo: 2\n", b'{"op_code":9\n{}\n'])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"notes\.txt"):
        write(path, [])
    with pytest.raises(StudyError, match=r"notes\.txt"):
        read_study(path)
    assert path.read_bytes() == content


def test_a_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    with pytest.raises(StudyError, match=r"studies is a folder; .* for example .*studies/study\.journal"):
        write(folder, [])
    assert list(tmp_path.rglob("*")) == [folder]


def test_a_missing_file_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no study file .*missing\.log"):
        read_study(tmp_path / "missing.log")
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_optuna_made_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    study = optuna.create_study(study_name="default", storage=optuna.storages.JournalStorage(backend))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="not made by this project"):
        write(path, [])
    with pytest.raises(StudyError, match="not made by this project"):
        read_study(path)


@pytest.mark.parametrize("room", [0, 40])
def test_a_full_disk_leaves_no_half_record_and_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    path = tmp_path / "study.log"
    trials = some_trials()
    store = JournalStore(path, identity_of(PROBLEM), PROBLEM.space)
    store.append(trials[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", no_space(os.write, room))
        with pytest.raises(OSError, match=r"No space left.*study\.log"):
            store.append(trials[1])
    store.close()
    assert read_study(path).trials == trials[:1]
    write(path, trials)
    assert read_study(path).trials == trials
