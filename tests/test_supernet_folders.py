"""Folders of images: classes, splits, formats, sizes and what is corrupt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from images import (
    make_folder,
    noise,
    save,
    truncate,
)
from PIL import Image

from supernet.data import DataError, prepare
from supernet.datasets import load


def test_folder_holds_out_a_fixed_fifth(tmp_path: Path) -> None:
    raw, again = (load(f"folder:{make_folder(tmp_path, each=10)}") for _ in range(2))
    assert raw.classes == ("cat", "dog")
    assert torch.bincount(raw.train_labels).tolist() == [8, 8]
    assert torch.bincount(raw.test_labels).tolist() == [2, 2]
    assert torch.equal(raw.test_labels, again.test_labels)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folder_uses_its_own_split(tmp_path: Path, held_out: str) -> None:
    make_folder(tmp_path / "train", each=3)
    make_folder(tmp_path / held_out, each=1)
    raw = load(f"folder:{tmp_path}")
    stored = torch.stack(
        [
            torch.from_numpy(np.array(Image.open(tmp_path / held_out / name / "0.png"))).permute(2, 0, 1)
            for name in ("cat", "dog")
        ]
    )
    assert torch.equal(raw.test_images, stored)
    assert raw.train_labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_folder_splits_must_have_the_same_classes(tmp_path: Path) -> None:
    make_folder(tmp_path / "train")
    make_folder(tmp_path / "test", classes=("cat", "wolf"))
    with pytest.raises(DataError, match="dog, wolf"):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("mode", "extension"), [("1", "png"), ("L", "png"), ("LA", "png"), ("P", "gif"), ("CMYK", "jpg"), ("RGBA", "webp")]
)
def test_folder_converts_every_mode(tmp_path: Path, mode: str, extension: str) -> None:
    make_folder(tmp_path / "train", each=1)
    make_folder(tmp_path / "test", each=1)
    (tmp_path / "test/cat/0.png").unlink()
    image = Image.fromarray(noise(16)).convert(mode)
    path = save(tmp_path / "test" / "cat" / f"0.{extension}", image, **({"lossless": True} if mode == "RGBA" else {}))
    expected = np.array(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(load(f"folder:{tmp_path}").test_images[0].numpy(), expected)


def test_folder_drops_alpha(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", each=1)
    make_folder(tmp_path / "test", each=1)
    save(tmp_path / "test/cat/0.png", np.dstack([np.full((16, 16, 3), 200, np.uint8), np.zeros((16, 16), np.uint8)]))
    assert (load(f"folder:{tmp_path}").test_images[0] == 200).all()


@pytest.mark.filterwarnings("error")
def test_folder_reads_a_transparent_palette_without_a_warning(tmp_path: Path) -> None:
    make_folder(tmp_path)
    image = Image.fromarray(noise(16)).quantize(16)
    save(tmp_path / "cat" / "0.png", image, transparency=bytes(range(16)))
    assert load(f"folder:{tmp_path}").train_images.dtype == torch.uint8


@pytest.mark.parametrize("extension", ["png", "tif", "pgm"])
def test_folder_scales_16_bit_grey(tmp_path: Path, extension: str) -> None:
    make_folder(tmp_path / "train", each=1)
    make_folder(tmp_path / "test", each=1)
    (tmp_path / "test/cat/0.png").unlink()
    grey = noise(16, channels=1)
    save(tmp_path / "test" / "cat" / f"0.{extension}", Image.fromarray(grey.astype(np.uint16) * 257))
    assert np.array_equal(load(f"folder:{tmp_path}").test_images[0].numpy(), np.stack([grey] * 3))


def test_folder_obeys_exif_orientation(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", each=1)
    make_folder(tmp_path / "test", each=1)
    pixels = noise(16)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    save(tmp_path / "test/cat/0.png", pixels, exif=exif)
    expected = np.rot90(pixels, -1).transpose(2, 0, 1)
    assert np.array_equal(load(f"folder:{tmp_path}").test_images[0].numpy(), expected)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(16, 16)] * 8, 16),
        ([(96, 96)] * 8, 96),
        ([(97, 97)] * 8, 32),
        ([(16, 20)] * 8, 32),
        ([(16, 16), (24, 24)] * 4, 32),
    ],
)
def test_folder_default_size(tmp_path: Path, sizes: list[tuple[int, int]], expected: int) -> None:
    for index, size in enumerate(sizes):
        save(tmp_path / "ab"[index // 4] / f"{index}.png", noise(*size))
    assert load(f"folder:{tmp_path}").train_images.shape[1:] == (3, expected, expected)


def test_folder_crops_the_centre(tmp_path: Path) -> None:
    make_folder(tmp_path, each=4)
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = noise(16)
    for index in range(4):
        save(tmp_path / "cat" / f"{index}.png", wide)
    raw = load(f"folder:{tmp_path}", image_size=16)
    assert np.array_equal(raw.train_images[raw.train_labels == 0][0].numpy(), wide[:, 16:32].transpose(2, 0, 1))


def test_folder_takes_an_extreme_aspect_ratio(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save(tmp_path / "cat" / "0.png", noise(1, 20000).reshape(1, 20000, 3))
    assert load(f"folder:{tmp_path}", image_size=96).train_images.shape[1:] == (3, 96, 96)


def test_folder_reads_images_alone(tmp_path: Path) -> None:
    make_folder(tmp_path, each=4)
    for name in ("cat/notes.txt", "cat/.hidden.png", "cat/.cache/0.png", "dog/labels.pkl", ".git/config", "README.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not an image")
    save(tmp_path / "cat" / "more" / "0.PNG", noise(16))
    raw = load(f"folder:{tmp_path}")
    assert torch.bincount(torch.cat([raw.train_labels, raw.test_labels])).tolist() == [5, 4]


@pytest.mark.parametrize("extension", ["png", "jpg", "gif"])
@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"no")])
def test_corrupt_image(tmp_path: Path, extension: str, damage) -> None:
    make_folder(tmp_path)
    damage(save(tmp_path / "dog" / f"bad.{extension}", noise(16)))
    with pytest.raises(DataError, match=rf"dog/bad\.{extension}.*--skip-corrupt"):
        load(f"folder:{tmp_path}")
    raw = load(f"folder:{tmp_path}", skip_corrupt=True)
    assert raw.skipped == 1
    assert len(raw.train_labels) + len(raw.test_labels) == 10
    assert prepare(raw, 0).skipped == 1


def test_skipping_never_mixes_up_labels(tmp_path: Path) -> None:
    for label, name in enumerate("abc"):
        for index in range(6):
            save(tmp_path / name / f"{index}.png", np.full((16, 16, 3), 10 * label, np.uint8))
    truncate(tmp_path / "a" / "1.png")
    truncate(tmp_path / "b" / "0.png")
    raw = load(f"folder:{tmp_path}", skip_corrupt=True)
    assert raw.skipped == 2
    assert torch.equal(raw.train_images[:, 0, 0, 0].long(), 10 * raw.train_labels)


def test_class_that_is_all_corrupt(tmp_path: Path) -> None:
    make_folder(tmp_path, each=2)
    for path in (tmp_path / "dog").iterdir():
        truncate(path)
    with pytest.raises(DataError, match="class 'dog' is corrupt"):
        load(f"folder:{tmp_path}", skip_corrupt=True)


def test_float_image_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save(tmp_path / "cat" / "0.tif", Image.fromarray(np.random.default_rng(0).random((16, 16), dtype=np.float32)))
    with pytest.raises(DataError, match=r"0\.tif.*floating point"):
        load(f"folder:{tmp_path}")


def test_empty_class_folder(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "eel").mkdir()
    with pytest.raises(DataError, match=r"class folder .*/eel "):
        load(f"folder:{tmp_path}")


@pytest.mark.parametrize(("classes", "found"), [((), "none"), (("cat",), "cat")])
def test_fewer_than_two_classes(tmp_path: Path, classes: tuple[str, ...], found: str) -> None:
    make_folder(tmp_path, classes)
    with pytest.raises(DataError, match=f"two or more classes; found {found}"):
        load(f"folder:{tmp_path}")


def test_class_of_one_image_cannot_be_held_out(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save(tmp_path / "eel" / "0.png", noise(16))
    with pytest.raises(DataError, match="class 'eel' has 1 images"):
        load(f"folder:{tmp_path}")
