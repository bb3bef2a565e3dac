"""Run folders that were damaged, edited or are in use: what is wrong is named."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from nas.run import Run, writing


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing"])
def test_a_damaged_checkpoint_is_named_with_exit_code_1(nas, run_copy, damage):
    (run_copy / "checkpoint.safetensors.previous").unlink()
    file = run_copy / "checkpoint.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000] if damage == "truncated" else b"hello")
    code, _, err = nas("search", run_copy, "--num-workers", 0)
    assert code == 1
    assert str(file) in err
    assert "Traceback" not in err


def test_a_truncated_checkpoint_falls_back_to_the_previous_one(nas, run_copy, caplog):
    file = run_copy / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    code, out, _ = nas("search", run_copy, "--num-workers", 0, "--n-trials", 2)
    assert code == 0
    assert "2 trials" in out
    assert "is damaged" in caplog.text
    assert "stands at step 36 of 54" in caplog.text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}'])
def test_a_damaged_run_description_is_named(nas, run_copy, content):
    (run_copy / "run.json").write_text(content)
    code, _, err = nas("search", run_copy)
    assert code == 2
    assert "run.json" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("space"), "lacks 'space'"),
        (lambda d: d.pop("recipe"), "lacks 'recipe'"),
        (lambda d: d["data"].update(foo=1), "foo"),
        (lambda d: d["data"].update(image_size="8"), "image size is '8'"),
        (lambda d: d.update(data="digits"), "run.json"),
        (lambda d: d["recipe"].update(foo=1), "foo"),
        (lambda d: d["space"].update(name=["a"]), "name is ['a']; valid: a text"),
        (lambda d: d["data"].update(skip_corrupt="x"), "skip_corrupt is 'x'; valid: true or false"),
        (lambda d: d.update(classes="abc"), "classes is 'abc'; valid: a list of names"),
        (lambda d: d.update(classes=[1]), "classes is [1]; valid: a list of names"),
        (lambda d: d.update(init_from={"x": 1}), "init_from is {'x': 1}; valid: null, or an object with a folder"),
        (lambda d: d.update(init_from="abc"), "init_from is 'abc'; valid: null"),
    ],
)
def test_an_edited_run_description_is_named(nas, run_copy, change, message):
    file = run_copy / "run.json"
    description = json.loads(file.read_text())
    change(description)
    file.write_text(json.dumps(description))
    code, _, err = nas("search", run_copy, "--num-workers", 0)
    assert code == 2
    assert str(file) in err
    assert message in err


def test_a_checkpoint_of_another_space_is_named(nas, run_copy):
    file = run_copy / "run.json"
    description = json.loads(file.read_text())
    description["space"]["stages"][0]["widths"] = [16, 24]
    file.write_text(json.dumps(description))
    code, _, err = nas("search", run_copy, "--num-workers", 0)
    assert code == 2
    assert "checkpoint.safetensors is a checkpoint of another space: its stages[0].widths is (" in err
    assert "the run's (16, 24)" in err


def test_a_file_in_place_of_trusts_folder_is_named(nas, run_copy):
    file = run_copy / "trust"
    file.write_text("notes")
    code, _, err = nas("trust", run_copy, "--archs", 4, "--epochs", 1)
    assert code == 2
    assert f"{file} is a file; a folder is needed" in err
    assert file.read_text() == "notes"


@pytest.mark.parametrize("command", [("search", "--num-workers", 0), ("trust", "--archs", 4, "--epochs", 1)])
def test_a_recipe_that_is_not_the_checkpoints_is_named(nas, run_copy, command):
    file = run_copy / "run.json"
    description = json.loads(file.read_text())
    description["recipe"]["members"] = 2
    file.write_text(json.dumps(description))
    name, *options = command
    code, _, err = nas(name, run_copy, *options)
    assert code == 2
    assert f"{run_copy} is not as it was trained: recipe members was 1 and is now 2" in err


def test_two_trainings_of_one_run_are_refused(nas, run_copy):
    with writing(Run.open(run_copy)):
        code, _, err = nas("train", "-o", run_copy, "--resume")
    assert code == 2
    assert "is being trained by another process" in err


@pytest.mark.parametrize(
    ("name", "is_folder", "message"),
    [("tensorboard", False, "is a file; a folder is needed"), ("metrics.jsonl", True, ": Is a directory")],
)
def test_what_stands_in_the_place_of_trainings_files_is_named(nas, run_copy, name, is_folder, message):
    place = run_copy / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.mkdir() if is_folder else place.touch()
    code, _, err = nas("train", "-o", run_copy, "--resume")
    assert code in (1, 2)
    assert re.search(f"^error: {re.escape(str(place))} ?{message}$", err, re.M)
