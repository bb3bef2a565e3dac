"""Readers: one contract for all of them, then each on its own, but for folders."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from images import (
    make_folder,
    npz_arrays,
    parts,
    save_fashion_mnist,
    save_idx,
    save_npz,
    truncate,
)
from torch.nn import functional as F

from supernet.data import DataError, RawData, prepare
from supernet.datasets import DATASETS, load


@pytest.fixture(scope="session")
def cifar10_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the official cifar-10-batches-py/."""
    if given_root := os.environ.get("NAS_CIFAR10_ROOT"):
        return Path(given_root)
    unpack = Path(__file__).resolve().parents[2] / "shared" / "data" / "unpack_cifar10.py"
    if not unpack.is_file():
        pytest.skip(f"needs CIFAR-10: set NAS_CIFAR10_ROOT to the folder of cifar-10-batches-py/ (no {unpack})")
    root = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(unpack), str(root)], check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def cifar10(cifar10_root: Path) -> RawData:
    return load(f"cifar10:{cifar10_root}")


@pytest.fixture
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> RawData:
    """The data set named by the parameter, read from real files."""
    match request.param:
        case "cifar10":
            return request.getfixturevalue("cifar10")
        case "cifar100":
            pytest.skip("no CIFAR-100 files here, and torchvision's MD5 check refuses made-up ones")
        case "fashion_mnist":
            save_fashion_mnist(tmp_path)
            return load(f"fashion_mnist:{tmp_path}")
        case "folder":
            return load(f"folder:{make_folder(tmp_path)}")
        case "npz":
            return load(save_npz(tmp_path / "set.npz"))
    return load(request.param)


# --- every reader


@pytest.mark.parametrize("raw", DATASETS, indirect=True)
def test_reader_contract(raw: RawData, request: pytest.FixtureRequest) -> None:
    for images, labels in ((raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels)):
        assert images.dtype == torch.uint8
        assert images.ndim == 4
        assert images.shape[2] == images.shape[3]
        assert images.is_contiguous()
        assert labels.dtype == torch.int64
        assert labels.shape == (len(images),)
        assert labels.unique().tolist() == list(range(len(raw.classes)))
    assert raw.train_images.shape[1:] == raw.test_images.shape[1:]
    assert raw.skipped == 0
    assert raw.flip == (request.node.callspec.params["raw"] != "digits")


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        load(f"{name}:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_missing_torchvision_files_say_how_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data.*as ROOT.*--download"):
        load(name)


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(DataError, match=r"'imagenet'.*digits, cifar10\[:ROOT\].*folder:DIR, npz:FILE"):
        load("imagenet")


def test_data_error_is_a_value_error() -> None:
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize("spec", ["digits:8", "folder", "folder:", "npz"])
def test_wrong_argument(spec: str) -> None:
    with pytest.raises(DataError, match=spec.partition(":")[0]):
        load(spec)


@pytest.mark.parametrize("size", [0, -32])
def test_image_size_must_be_positive(size: int) -> None:
    with pytest.raises(DataError, match=str(size)):
        load("digits", image_size=size)


def test_readers_libraries_are_imported_only_when_needed() -> None:
    heavy = ("sklearn", "torchvision", "PIL", "ray")
    code = f"import sys, supernet.datasets; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


# --- digits, CIFAR-10, Fashion-MNIST


def test_digits() -> None:
    from sklearn.datasets import load_digits

    raw, again = load("digits"), load("digits")
    expected = sorted(np.rint(load_digits().images * 255 / 16).astype(np.uint8).reshape(-1, 64).tolist())
    assert sorted(torch.cat([raw.train_images, raw.test_images]).flatten(1).tolist()) == expected
    assert len(raw.test_labels) == 1797 // 5
    assert torch.equal(raw.test_images, again.test_images)
    assert raw.classes == tuple("0123456789")
    share = torch.bincount(raw.test_labels) / torch.bincount(raw.train_labels)
    assert (share - 0.25).abs().max() < 0.01


def test_image_size_resizes_whole_set() -> None:
    raw = load("digits", image_size=16)
    assert raw.train_images.shape == (1438, 1, 16, 16)
    expected = F.interpolate(load("digits").test_images.float(), size=(16, 16), mode="bilinear", antialias=True)
    assert (raw.test_images - expected).abs().max() <= 0.5 + 1e-3
    assert torch.equal(load("digits", image_size=8).test_images, load("digits").test_images)


def test_cifar10(cifar10: RawData) -> None:
    assert cifar10.train_images.shape == (50000, 3, 32, 32)
    assert cifar10.test_images.shape == (10000, 3, 32, 32)
    assert cifar10.classes[3] == "cat"
    data = prepare(cifar10, 0)
    assert [len(split) for split in parts(data)] == [43000, 2000, 5000]
    assert torch.bincount(data.validation.labels).tolist() == [500] * 10
    pixels = data.train.images.numpy().transpose(1, 0, 2, 3)
    assert data.mean == pytest.approx([channel.mean(dtype=np.float64) / 255 for channel in pixels], rel=1e-12)


def test_fashion_mnist(tmp_path: Path) -> None:
    arrays = save_fashion_mnist(tmp_path)
    raw = load(f"fashion_mnist:{tmp_path}")
    assert np.array_equal(raw.train_images[:, 0].numpy(), arrays["train-images-idx3"])
    assert np.array_equal(raw.test_labels.numpy(), arrays["t10k-labels-idx1"])
    (tmp_path / "FashionMNIST/raw/t10k-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match="FashionMNIST"):
        load(f"fashion_mnist:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("train-labels-idx1", np.arange(40) % 11, r"y_train has .*10.*valid for 10 classes: 0 to 9"),
        ("t10k-labels-idx1", np.arange(20) % 11, r"y_test has .*10"),
        ("train-labels-idx1", np.arange(37) % 10, r"y_train must be \[40\], one label an image, not \[37\]"),
        ("train-images-idx3", np.zeros((40, 17, 20)), "x_train must be square, not 17 x 20"),
    ],
)
def test_files_in_the_format_of_fashion_mnist_must_fit_together(tmp_path, name, values, message):
    save_fashion_mnist(tmp_path)
    save_idx(tmp_path / "FashionMNIST" / "raw" / f"{name}-ubyte", values.astype(np.uint8))
    with pytest.raises(DataError, match=f"FashionMNIST.*{message}"):
        load(f"fashion_mnist:{tmp_path}")


# --- npz


@pytest.mark.parametrize(
    ("shape", "stored", "flip"),
    [
        ((20, 8, 8), (20, 1, 8, 8), False),
        ((20, 8, 8, 1), (20, 1, 8, 8), False),
        ((20, 8, 8, 3), (20, 3, 8, 8), True),
        ((20, 8, 8, 4), (20, 4, 8, 8), False),
        ((20, 1, 8, 8), (20, 1, 8, 8), False),
        ((20, 3, 8, 8), (20, 3, 8, 8), True),
    ],
)
def test_npz_layouts(tmp_path: Path, shape: tuple[int, ...], stored: tuple[int, ...], flip: bool) -> None:
    arrays = npz_arrays(shape)
    np.savez(tmp_path / "set.npz", **arrays)
    raw = load(f"npz:{tmp_path / 'set.npz'}")
    assert raw.train_images.shape == stored
    assert raw.flip is flip
    pixels = arrays["x_train"]
    nhwc = len(shape) == 4 and shape[3] != 8
    assert np.array_equal(raw.train_images.numpy(), pixels.transpose(0, 3, 1, 2) if nhwc else pixels.reshape(stored))
    assert raw.classes == ("0", "1")
    assert load(f"npz:{tmp_path / 'set.npz'}", image_size=12).test_images.shape == (4, stored[1], 12, 12)


def test_npz_without_a_test_set_gets_the_fixed_split(tmp_path: Path) -> None:
    arrays = npz_arrays()
    np.savez(tmp_path / "set.npz", images=arrays["x_train"], labels=arrays["y_train"].astype(np.uint8))
    raw = load(f"npz:{tmp_path / 'set.npz'}")
    assert torch.bincount(raw.test_labels).tolist() == [2, 2]
    assert torch.bincount(raw.train_labels).tolist() == [8, 8]


def test_npz_names_its_classes_and_says_whether_images_may_be_mirrored(tmp_path: Path) -> None:
    raw = load(save_npz(tmp_path / "set.npz", classes=np.array(["cat", "dog"]), flip=np.array(False)))
    assert (raw.classes, raw.flip) == (("cat", "dog"), False)


LABELS = np.arange(20) % 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x_train": np.zeros((20, 8, 9, 3), np.uint8)}, "x_train must be square, not 8 x 9"),
        ({"x_train": np.zeros((20, 8, 8, 3), np.float32)}, "x_train must be uint8.*float32"),
        ({"x_train": np.zeros((20, 8, 8, 5), np.uint8)}, r"x_train must be .*\[20, 8, 8, 5\]"),
        ({"x_train": np.zeros((20, 64), np.uint8)}, r"x_train must be .*\[20, 64\]"),
        ({"x_train": np.zeros((0, 8, 8), np.uint8), "y_train": LABELS[:0]}, r"at least 1, not \[0, 8, 8\]"),
        ({"x_test": np.zeros((4, 9, 9, 3), np.uint8)}, "x_train and x_test differ"),
        ({"y_train": LABELS[:19]}, r"y_train must be \[20\].*\[19\]"),
        ({"y_train": LABELS[:, None]}, r"y_train must be \[20\].*\[20, 1\]"),
        ({"y_train": LABELS.astype(np.float64)}, "y_train must be integers, not float64"),
        ({"y_train": np.full(20, np.nan)}, "y_train must be integers, not float64"),
        ({"y_train": LABELS - 1}, "y_train must use every label.*-1, 0"),
        ({"y_train": LABELS * 2}, "y_train must use every label.*0, 2"),
        ({"y_train": LABELS * 0}, "y_train must use every label.*has 0"),
        ({"y_train": np.full(20, 2**64 - 1, np.uint64)}, "y_train must use every label"),
        ({"y_test": np.array([0, 1, 2, 9])}, "y_test has 0, 1, 2, 9, outside 0 to 1"),
        ({"y_test": LABELS[:4].astype(bool)}, "y_test must be integers, not bool"),
        ({"classes": np.array(["cat", "cat"])}, "classes has cat, cat; valid: .*different names"),
        ({"classes": np.arange(2)}, r"classes is \[0, 1\]; valid: a list of two or more different names"),
        ({"classes": np.array(["cat", "dog"])[:, None]}, "valid: a list of two or more different names"),
        ({"classes": np.array(["cat", "dog", "eel"])}, "y_train has no image of the classes eel"),
        ({"flip": np.array(1)}, "flip is 1; valid: True, False"),
    ],
)
def test_bad_npz_arrays(tmp_path: Path, changed: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(save_npz(tmp_path / "set.npz", **changed))


def test_npz_missing_keys_lists_those_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x_train=LABELS, targets=LABELS)
    with pytest.raises(
        DataError, match=r"needs x_train, y_train, x_test, y_test, or images, labels; it has targets, x_train"
    ):
        load(f"npz:{tmp_path / 'set.npz'}")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 but no archive"])
def test_file_that_is_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"set\.npz is not a readable \.npz"):
        load(f"npz:{tmp_path / 'set.npz'}")


def test_other_kinds_of_archive_and_array_are_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", LABELS)
    with pytest.raises(DataError, match=r"one\.npy is not a readable"):
        load(f"npz:{tmp_path / 'one.npy'}")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("images", "text")
        archive.writestr("labels", "text")
    with pytest.raises(DataError, match="images must be uint8"):
        load(f"npz:{tmp_path / 'text.npz'}")
    truncate(Path(save_npz(tmp_path / "half.npz").partition(":")[2]))
    with pytest.raises(DataError, match=r"half\.npz is not a readable"):
        load(f"npz:{tmp_path / 'half.npz'}")


def test_npz_is_never_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "unpickled"

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (marker,)

    spec = save_npz(tmp_path / "set.npz", y_train=np.array([Trap()] * 20, dtype=object))
    with pytest.raises(DataError, match="plain arrays"):
        load(spec)
    assert not marker.exists()
