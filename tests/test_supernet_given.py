"""Data sets from functions: the arrays of an .npz file, named classes, and complaints that name what is wrong."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from supernet.data import DataError
from supernet.datasets import load

MAKE = """
import numpy as np

def make():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    return {CHANGED}
"""
GOOD = '{"x_train": images, "y_train": labels, "x_test": images[:4], "y_test": labels[:4], "classes": ["cat", "dog"]}'


def write(folder, returned=GOOD, name="mine.py"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(MAKE.replace("{CHANGED}", returned))
    return folder / name


@pytest.fixture(autouse=True)
def own_path(monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path[:])


def test_a_function_in_a_file_returns_what_an_npz_file_holds(tmp_path):
    raw = load(f"{write(tmp_path)}:make")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(raw.train_images.numpy(), images.transpose(0, 3, 1, 2))
    assert raw.train_labels.tolist() == [0, 1] * 20
    assert raw.test_labels.tolist() == [0, 1, 0, 1]
    assert (raw.classes, raw.flip) == (("cat", "dog"), True)
    assert load(f"{tmp_path / 'mine.py'}:make", image_size=12).test_images.shape == (4, 3, 12, 12)


def test_a_function_of_a_package_is_found_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "given_package").mkdir()
    (tmp_path / "given_package" / "__init__.py").write_text("")
    write(tmp_path / "given_package", '{"images": images[..., 0], "labels": labels, "flip": True}', "data.py")
    monkeypatch.chdir(tmp_path)
    raw = load("given_package.data:make")
    assert (len(raw.train_labels), len(raw.test_labels), raw.classes, raw.flip) == (32, 8, ("0", "1"), True)
    with pytest.raises(DataError, match=r"there is no module 'given_package.other' in .*set PYTHONPATH"):
        load("given_package.other:make")


def test_a_file_imports_what_lies_beside_it_and_leaves_no_bytecode(tmp_path):
    (tmp_path / "given_labels.py").write_text("LABELS = [0, 1] * 20\n")
    file = write(tmp_path, '{"images": torch.from_numpy(images), "labels": LABELS}')
    file.write_text("import torch\nfrom given_labels import LABELS\n" + file.read_text())
    assert load(f"{file}:make").train_images.shape == (32, 3, 8, 8)
    file.write_text(file.read_text().replace("[0, 1] * 20", "").replace("LABELS}", "labels % 2}"))
    assert torch.equal(load(f"{file}:make").train_labels.unique(), torch.tensor([0, 1]))
    assert not list(tmp_path.glob("__pycache__/mine*"))


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("(images, labels)", r"mine.py:make returned a tuple, not a mapping; valid: x_train, .*, or images, labels"),
        ("{}", "returned nothing; valid: x_train"),
        ('{"x_train": images, "y_train": labels}', "returned x_train, y_train; valid: x_train, y_train, x_test"),
        ('{"images": images, "labels": labels, "mean": 0.5}', "returned 'mean' beside images, labels; valid: .*flip"),
        ('{"images": images / 255, "labels": labels}', "images must be uint8, 0 to 255, not float64"),
        ('{"images": images[:, :7], "labels": labels}', "images must be square, not 7 x 8"),
        ('{"images": [images[0], 1], "labels": labels}', "images is a list that numpy makes no array of"),
        ('{"images": images, "labels": ["a"] * 40}', "labels must be integers, not <U1"),
        ('{"images": images, "labels": labels, "classes": "ab"}', "classes is 'ab'; valid: a list of two or more"),
        ('{"images": images, "labels": labels, "classes": ["a"]}', "classes has a; valid: a list of two or more"),
        ('{"images": images, "labels": labels, "classes": ["a", "a"]}', "classes has a, a; valid: .*different names"),
        ('{"images": images, "labels": labels + 1, "classes": ["a", "b"]}', "labels has 1, 2; valid for 2 classes: 0"),
        ('{"images": images, "labels": labels, "classes": ["a", "b", "c"]}', "no image of the classes c; each needs"),
        ('{"images": images, "labels": labels, "flip": 1}', "flip is 1; valid: True, False"),
        ("open('nowhere.csv')", r"mine.py:make failed: FileNotFoundError: .*nowhere.csv.*mine.py:7\)"),
    ],
)
def test_what_is_returned_wrongly_is_named(returned, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load(f"{write(tmp_path, returned)}:make")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("DIR/mine.py:other", "mine.py has no function 'other'; it has make"),
        ("DIR/mine.py:np", "mine.py has no function 'np'; it has make"),
        ("DIR/mine.py:", "mine.py has no function ''; it has make"),
        ("DIR/none.py:make", "there is no file .*none.py; a function is named as FILE.py:FUNCTION"),
        ("DIR/mine:make", "mine:make' names no function; write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION"),
        ("no.such:make", "there is no module 'no.such' in"),
        ("mine:make", "unknown data set 'mine'; give one of digits, .*FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION"),
        ("DIR/broken.py:make", r"broken.py cannot be imported: SyntaxError: .*broken.py, line 1"),
        ("DIR/raises.py:make", r"raises.py cannot be imported: KeyError: 'x' \(.*raises.py:2\)"),
        ("DIR/script.py:make", r"script.py cannot be imported: SystemExit: 0 \(.*script.py:2\)"),
        ("DIR/needs.py:make", r"needs.py cannot be imported: ModuleNotFoundError: .*'pandas_of_mine' \(.*needs.py:1\)"),
    ],
)
def test_a_function_that_is_not_there_or_cannot_be_imported_is_named(spec, message, tmp_path):
    write(tmp_path)
    (tmp_path / "broken.py").write_text("def make(:\n")
    (tmp_path / "raises.py").write_text("\n{}['x']\n")
    (tmp_path / "script.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "needs.py").write_text("import pandas_of_mine\n")
    with pytest.raises(DataError, match=message):
        load(spec.replace("DIR", str(tmp_path)))
