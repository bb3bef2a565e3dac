"""The library: which runs and studies there are below the root, and whose views are shared and given up."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import pytest
from studies import SPACE, make_run, make_trials, write_study

from nas.data_options import DataOptions
from nas.run import Run
from nas.service.state import (
    Library,
    UnknownError,
    run_summaries,
    run_summary,
    study_names,
)
from supernet.recipe import TrainConfig


def test_a_damaged_study_says_so_and_leaves_the_others_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "good", make_trials(3), 3)
    write_study(run, "bad", make_trials(3), 3)
    with open(run.study("bad"), "ab") as file:
        file.write(b"no json\n")
    rows = {row["study"]: row for row in run_summary(Library(tmp_path), "run")["studies"]}
    assert rows["bad"]["state"] == "damaged"
    assert "bad.journal is damaged" in rows["bad"]["error"]
    assert (rows["good"]["state"], rows["good"]["error"]) == ("finished", None)


def test_runs_are_found_below_the_root_and_links_are_not_followed(tmp_path: Path) -> None:
    make_run(tmp_path / "outside" / "secret")
    root = tmp_path / "root"
    make_run(root / "a")
    make_run(root / "deep" / "b")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "odd").mkdir()
    (root / "odd" / "run.json").write_text("{}")
    library = Library(root)
    assert list(library.runs()) == ["a", "deep~b"]
    with pytest.raises(UnknownError, match="runs: a, deep~b"):
        library.run("../outside/secret")
    assert list(Library(root / "a").runs()) == ["a"]


def test_a_run_is_found_as_soon_as_it_is_there(tmp_path: Path) -> None:
    library = Library(tmp_path)
    assert library.runs() == {}
    for name in ("first", "second"):
        run = make_run(tmp_path / name)
        assert library.run(name).path == run.path


def test_a_linked_journal_is_no_study(tmp_path: Path) -> None:
    other, run = make_run(tmp_path / "x" / "other"), make_run(tmp_path / "root" / "run")
    write_study(other, "s", make_trials(2), 2)
    write_study(run, "t", make_trials(2), 2)
    (run.path / "studies" / "s.journal").symlink_to(other.study("s"))
    assert study_names(run) == ["t"]
    with pytest.raises(UnknownError, match="studies: t"):
        Library(tmp_path / "root").study("run", "s")


def test_a_tilde_in_a_folders_name_is_no_slash(tmp_path: Path) -> None:
    folders = [tmp_path / "a" / "b", tmp_path / "a~b", tmp_path / "a~" / "b", tmp_path / "a" / "~b"]
    made = {make_run(folder).path for folder in folders}
    library = Library(tmp_path)
    assert {library.run(run_id).path for run_id in library.runs()} == made
    assert set(library.runs()) >= {"a~b", "a~.~b"}


def test_a_run_that_was_made_anew_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.service.state._SCAN_SECONDS", 0)  # look every time
    monkeypatch.setattr("nas.service.state._SCAN_SHARE", 0)
    library = Library(tmp_path)
    write_study(make_run(tmp_path / "run"), "s", make_trials(3), 3)
    first = library.study("run", "s")
    assert library.study("run", "s") is first
    shutil.rmtree(tmp_path / "run")
    Run.create(tmp_path / "run", SPACE, DataOptions("digits"), TrainConfig(seed=7), [str(i) for i in range(10)])
    write_study(Run.open(tmp_path / "run"), "s", make_trials(2, seed=1), 2)
    assert library.run("run").recipe.seed == 7
    assert library.study("run", "s") is not first
    assert len(library.study("run", "s").trials) == 2


def test_one_view_is_shared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "s", make_trials(2), 2)
    library = Library(tmp_path)
    assert library.study("run", "s") is library.study("run", "s")
    assert library.training("run") is library.training("run")


def test_views_of_what_was_taken_away_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.service.state._SCAN_SECONDS", 0)  # look every time
    monkeypatch.setattr("nas.service.state._SCAN_SHARE", 0)
    library, run = Library(tmp_path), make_run(tmp_path / "run")
    for name in ("s", "t"):
        write_study(run, name, make_trials(3), 3)
    views = [weakref.ref(library.study("run", name)) for name in ("s", "t")]
    run.study("s").unlink()
    with pytest.raises(UnknownError, match="studies: t"):
        library.study("run", "s")
    assert (views[0](), views[1]() is not None) == (None, True)
    shutil.rmtree(run.path)
    assert run_summaries(library) == []
    assert views[1]() is None
