"""Data sets and teachers that were moved: a resumed training is told where they are, and finds them to be the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from nas.run import Run, RunError
from nas.training import Interrupted, load_trained, train

FUNCTION = """
from pathlib import Path
import numpy as np

def make():
    with np.load(Path(__file__).with_name("set.npz")) as file:
        return dict(file)
"""
SETTINGS = ["--space", "digits", "--epochs", 1, "--batch-size", 16]


def write_images(folder: Path, seed: int = 0) -> None:
    """The same 60 images of three classes as one file, as a folder of pictures, and behind a function."""
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(seed).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(folder / "set.npz", images=images, labels=np.arange(60) % 3)
    (folder / "data.py").write_text(FUNCTION)
    for number, image in enumerate(images):
        place = folder / "pictures" / str(number % 3)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("npz:{}/set.npz", "npz:PLACE"),
        ("folder:{}/pictures", "folder:PLACE"),
        ("{}/data.py:make", "PLACE/data.py:make"),
    ],
    ids=["npz", "folder", "function"],
)
def test_a_moved_data_set_is_named_once_and_then_known(spec, hint, nas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(Path("old"))
    assert nas("train", *SETTINGS, "--data", spec.format("old"), "-o", "run")[0] == 0
    weights = load_trained(Run.open("run"))[1]["weights_hash"]
    shutil.move("old", "new")
    search = ("search", "run", "--n-trials", 2, "--num-workers", 0)
    code, _, err = nas(*search)
    assert code != 0
    assert f"if it was moved, say where to: nas train -o run --resume --data {hint}\n" in err
    write_images(Path("other"), seed=1)
    before = Path("run/run.json").read_bytes()
    code, _, err = nas("train", "-o", "run", "--resume", "--data", spec.format("other"))
    assert code != 0
    assert "the images, labels or splits are not those it was trained on" in err
    assert Path("run/run.json").read_bytes() == before
    assert nas("train", "-o", "run", "--resume", "--data", spec.format("new"))[0] == 0
    assert Run.open("run").data.spec == spec.format(tmp_path / "new")
    assert load_trained(Run.open("run"))[1]["weights_hash"] == weights
    assert nas(*search)[0] == 0


def test_another_kind_of_data_set_is_not_one_that_moved(nas, trained_run, tmp_path):
    write_images(tmp_path / "old")
    code, _, err = nas("train", "-o", trained_run, "--resume", "--data", f"npz:{tmp_path}/old/set.npz")
    assert code == 2
    assert f"data was 'digits' and is now 'npz:{tmp_path}/old/set.npz'" in err


def test_a_run_that_has_no_state_cannot_tell_whether_data_are_the_same(nas, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(Path("old"))
    assert nas("train", *SETTINGS, "--data", "npz:old/set.npz", "-o", "run")[0] == 0
    for file in Path("run").glob("*.safetensors*"):
        file.unlink()
    shutil.move("old", "new")
    code, _, err = nas("train", "-o", "run", "--resume", "--data", "npz:new/set.npz")
    assert code == 2
    assert "run has no state yet that knows its data and teacher; start a new one elsewhere" in err


def test_a_training_goes_on_with_a_teacher_that_was_moved_as_if_it_were_not(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported, "teacher")
    recipe = {"teacher": "teacher", "epochs": 1, "batch_size": 64}
    whole = train("digits", "digits", "whole", **recipe)
    stopped = iter([False] * 3 + [True] * 99)
    with pytest.raises(Interrupted):
        train("digits", "digits", "parts", **recipe, should_stop=lambda: next(stopped))
    shutil.move("teacher", "moved")
    weights = load_file("moved/model.safetensors")
    shutil.copytree("moved", "other")
    save_file(weights | {"head.fc.bias": weights["head.fc.bias"] + 1}, "other/model.safetensors")
    before = Path("parts/run.json").read_bytes()
    with pytest.raises(Exception, match="the teacher's weights are not those it was trained with"):
        train(None, None, "parts", resume=True, teacher="other")
    assert Path("parts/run.json").read_bytes() == before
    parts = train(None, None, "parts", resume=True, teacher="moved")
    assert load_trained(parts)[1]["weights_hash"] == load_trained(whole)[1]["weights_hash"]
    assert json.loads(Path("parts/run.json").read_text())["recipe"]["teacher"] == str(tmp_path / "moved")


def test_no_teacher_is_added_to_a_run_that_had_none(trained_run, exported):
    with pytest.raises(RunError, match="teacher was None and is now"):
        train(None, None, trained_run, resume=True, teacher=str(exported))
