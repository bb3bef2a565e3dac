"""Data and spaces of the user's own, from the training to the search: what is taken, and what is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from nas.run import Run
from nas.service.study_view import StudyView


def picture_folder(root, per_class=8):
    """Two classes of coloured pictures, of mixed sizes and modes."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            size = (8 + i % 3, 9)
            pixels = rng.integers(120 * label, 120 * label + 100, (*size, 3), dtype=np.uint8)
            image = Image.fromarray(pixels)
            (image.convert("L") if i % 2 else image).save(root / name / f"{i}.png")
    return root


def test_a_folder_of_mixed_pictures_trains_and_a_corrupt_one_is_named(nas, tmp_path, caplog):
    root = picture_folder(tmp_path / "pictures", per_class=20)
    bad = root / "dark" / "bad.png"
    bad.write_bytes((root / "dark" / "0.png").read_bytes()[:40])
    common = [
        "--space",
        "digits",
        "--data",
        f"folder:{root}",
        "--image-size",
        "8",
        "--epochs",
        "1",
        "--batch-size",
        "8",
    ]
    code, _, err = nas("train", *common, "-o", tmp_path / "run")
    assert code == 2
    assert str(bad) in err
    assert "--skip-corrupt" in err
    code, _, err = nas("train", *common, "-o", tmp_path / "run", "--skip-corrupt")
    assert code == 0, err
    assert "1 corrupt images" in caplog.text
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    assert description["classes"] == ["dark", "light"]
    assert description["space"]["in_channels"] == 3
    assert nas("search", tmp_path / "run", "--n-trials", 2, "--num-workers", 0)[0] == 0

    (root / "empty").mkdir()
    code, _, err = nas("train", *common, "-o", tmp_path / "other")
    assert code == 2
    assert "empty" in err


def test_a_space_of_the_users_own_in_a_yaml_file(nas, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text("name: tiny\nnum_pools: 1\nstages:\n  - {depths: [1, 2], widths: [4, 8], kernels: [3, 5]}\n")
    code, _, err = nas("train", "--space", file, "--data", "digits", "--epochs", 1, "-o", tmp_path / "run")
    assert code == 0, err
    assert nas("search", tmp_path / "run", "--n-trials", 3, "--num-workers", 0)[0] == 0
    code, out, _ = nas("pareto", tmp_path / "run", "--json")
    assert json.loads(out)["n_trials"] == 3
    file.write_text("name: tiny\nstages:\n  - {depths: [1], widths: [4], kernel: [3]}\n")
    code, _, err = nas("train", "--space", file, "--data", "digits", "-o", tmp_path / "bad")
    assert code == 2
    assert "tiny.yaml:3: stages[0].kernel is no field of a stage; valid: a mapping of depths, widths, kernels" in err


def test_a_small_space_that_is_exhausted_ends_cleanly(nas, tmp_path):
    file = tmp_path / "four.yaml"
    file.write_text("name: four\nnum_pools: 0\nstages:\n  - {depths: [1, 2], widths: [4, 8]}\n")
    assert nas("train", "--space", file, "--data", "digits", "--epochs", 1, "-o", tmp_path / "run")[0] == 0
    code, out, err = nas("search", tmp_path / "run", "--n-trials", 50, "--num-workers", 0)
    assert code == 0
    assert "4 trials" in out
    assert "no further architecture" in err
    code, out, err = nas("studies", tmp_path / "run")
    assert "exhausted" in out
    assert "nas resume" not in err
    (row,) = json.loads(nas("studies", tmp_path / "run", "--json")[1])
    assert (row["n_trials"], row["n_asked"], row["exhausted"]) == (4, 50, True)
    code, out, err = nas("resume", tmp_path / "run", "--n-trials", 60)
    assert (code, "no further architecture" in err) == (0, True)
    view = StudyView(Run.open(tmp_path / "run"), "default")
    view.refresh()
    assert view.state == "exhausted"


def npz_file(path, seed=0, size=8, classes=4):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (200, size, size), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(200) % classes)
    return path


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": 16}, {"classes": 3}], ids=str)
def test_data_that_changed_after_training_is_refused(nas, tmp_path, change):
    """Scores of other images would stand beside the old ones, and test images might have been trained on."""
    data = npz_file(tmp_path / "d.npz")
    assert nas("train", "--space", "digits", "--data", f"npz:{data}", "--epochs", 1, "-o", tmp_path / "run")[0] == 0
    assert nas("search", tmp_path / "run", "--num-workers", 0, "--n-trials", 2)[0] == 0
    npz_file(data, **change)
    for command in (["search", "--num-workers", 0, "--n-trials", 3], ["export", "--best", "-o", tmp_path / "model"]):
        code, _, err = nas(command[0], tmp_path / "run", *command[1:])
        assert code == 2
        assert "is not what" in err
        assert "has changed since" in err
    assert not (tmp_path / "model").exists()


def test_a_run_works_from_any_folder(nas, tmp_path, monkeypatch):
    npz_file(tmp_path / "d.npz")
    monkeypatch.chdir(tmp_path)
    assert nas("train", "--space", "digits", "--data", "npz:d.npz", "--epochs", 1, "-o", "run")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert nas("search", "../run", "--num-workers", 0, "--n-trials", 2)[0] == 0


def test_names_with_dollar_signs_are_no_formulas(nas, tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text('name: "a$b^$c_{"\nnum_pools: 0\nstages:\n  - {depths: [1], widths: [4, 8]}\n')
    code, _, err = nas("train", "--space", file, "--data", "digits", "--epochs", 1, "-o", tmp_path / "run")
    assert code == 0, err
    assert nas("search", tmp_path / "run", "--num-workers", 0, "--n-trials", 2)[0] == 0


def test_folders_named_like_splits_are_not_taken_for_classes(nas, tmp_path):
    for split in ("train", "validation"):
        picture_folder(tmp_path / "photos" / split)
    code, _, err = nas("train", "--space", "digits", "--data", f"folder:{tmp_path / 'photos'}", "-o", tmp_path / "run")
    assert code == 2
    assert "train, validation: name the splits train/ and test/ (or val/)" in err
