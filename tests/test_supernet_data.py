import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from supernet.batches import augment, steps_per_epoch, train_batches
from supernet.data import DataError, ImageData, RawData, Split, fingerprint, normalize, prepare, stratified_split
from supernet.datasets import DATASETS, load

RNG = np.random.default_rng(0)


def noise(height: int, width: int | None = None, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width or height, channels), dtype=np.uint8).squeeze()


def save(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def make_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 5, size: int = 16) -> Path:
    for name in classes:
        for index in range(each):
            save(root / name / f"{index}.png", noise(size))
    return root


def raw_data(counts: list[int], size: int = 8, channels: int = 3) -> RawData:
    """Class-sorted images, each one distinct: its index is in its first pixels."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = torch.from_numpy(RNG.integers(0, 256, (len(labels), channels, size, size), dtype=np.uint8))
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.arange(len(labels)) // 256, torch.arange(len(labels)) % 256
    names = tuple(f"c{index}" for index in range(len(counts)))
    return RawData(images, labels, images[:4].clone(), labels[:4].clone(), names, flip=True, skipped=0)


def indices(split: Split) -> list[int]:
    return (split.images[:, 0, 0, 0].long() * 256 + split.images[:, 0, 0, 1]).tolist()


def parts(data: ImageData) -> tuple[Split, Split, Split]:
    return data.train, data.calibration, data.validation


def npz_arrays(shape: tuple[int, ...] = (20, 8, 8, 3)) -> dict[str, np.ndarray]:
    images, labels = RNG.integers(0, 256, shape, dtype=np.uint8), np.arange(shape[0]) % 2
    return {"x_train": images, "y_train": labels, "x_test": images[:4], "y_test": labels[:4]}


def save_npz(path: Path, **changed: np.ndarray) -> str:
    np.savez(path, **{**npz_arrays(), **changed})
    return f"npz:{path}"


def save_idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + values.tobytes())


def save_fashion_mnist(root: Path) -> dict[str, np.ndarray]:
    arrays = {}
    for part, n in (("train", 40), ("t10k", 20)):
        arrays[f"{part}-images-idx3"] = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1"] = (np.arange(n) % 10).astype(np.uint8)
    for name, values in arrays.items():
        save_idx(root / "FashionMNIST" / "raw" / f"{name}-ubyte", values)
    return arrays


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


# --- folder


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
    load(f"folder:{tmp_path}")


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
        ([(16, 16)] * 4, 16),
        ([(96, 96)] * 4, 96),
        ([(97, 97)] * 4, 32),
        ([(16, 20)] * 4, 32),
        ([(16, 16), (24, 24)] * 2, 32),
    ],
)
def test_folder_default_size(tmp_path: Path, sizes: list[tuple[int, int]], expected: int) -> None:
    for index, size in enumerate(sizes):
        save(tmp_path / "ab"[index // 2] / f"{index}.png", noise(*size))
    assert load(f"folder:{tmp_path}").train_images.shape[1:] == (3, expected, expected)


def test_folder_crops_the_centre(tmp_path: Path) -> None:
    make_folder(tmp_path, each=2)
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = noise(16)
    for index in range(2):
        save(tmp_path / "cat" / f"{index}.png", wide)
    raw = load(f"folder:{tmp_path}", image_size=16)
    assert np.array_equal(raw.train_images[raw.train_labels == 0][0].numpy(), wide[:, 16:32].transpose(2, 0, 1))


def test_folder_takes_an_extreme_aspect_ratio(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save(tmp_path / "cat" / "0.png", noise(1, 20000).reshape(1, 20000, 3))
    assert load(f"folder:{tmp_path}", image_size=96).train_images.shape[1:] == (3, 96, 96)


def test_folder_reads_images_alone(tmp_path: Path) -> None:
    make_folder(tmp_path, each=2)
    for name in ("cat/notes.txt", "cat/.hidden.png", "cat/.cache/0.png", "dog/labels.pkl", ".git/config", "README.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not an image")
    save(tmp_path / "cat" / "more" / "0.PNG", noise(16))
    raw = load(f"folder:{tmp_path}")
    assert torch.bincount(torch.cat([raw.train_labels, raw.test_labels])).tolist() == [3, 2]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


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


# --- the split


@settings(max_examples=20, deadline=None)
@given(counts=st.lists(st.integers(3, 120), min_size=2, max_size=12), seed=st.integers(0, 2**64))
def test_splits_are_disjoint_stratified_and_deterministic(counts: list[int], seed: int) -> None:
    raw = raw_data(counts)
    data, again = prepare(raw, seed), prepare(raw, seed)
    found = [indices(split) for split in parts(data)]
    assert sorted(index for split in found for index in split) == list(range(sum(counts)))
    assert found == [indices(split) for split in parts(again)]
    for split, index in zip(parts(data), found, strict=True):
        assert torch.equal(split.labels, raw.train_labels[index])
        assert torch.equal(split.images, raw.train_images[index])
    tenth = sum(counts) // 10
    for split in (data.calibration, data.validation):
        share = torch.bincount(split.labels, minlength=len(counts)).numpy()
        quota = np.array(counts) * tenth / sum(counts)
        assert (share >= np.maximum(np.floor(quota), 1)).all()
        assert (share <= np.maximum(np.ceil(quota), 1)).all()
        assert len(split) == tenth or (len(split) > tenth and share.min() == 1)
    assert data.train.labels.unique().tolist() == list(range(len(counts)))


def test_split_depends_on_the_seed_and_mixes_classes() -> None:
    raw = raw_data([100, 100, 100])
    one, two = prepare(raw, 1), prepare(raw, 2)
    assert set(indices(one.validation)) != set(indices(two.validation))
    assert one.calibration.labels[:10].unique().numel() > 1
    assert torch.equal(one.test.images, raw.test_images)
    assert (one.in_channels, one.image_size, one.num_classes) == (3, 8, 3)


def test_split_sizes_are_capped() -> None:
    parts = stratified_split(
        torch.arange(70000) % 7,
        tuple("abcdefg"),
        {"calibration": 2000, "validation": 5000},
        np.random.default_rng(0),
    )
    assert {name: len(index) for name, index in parts.items()} == {
        "calibration": 2000,
        "validation": 5000,
        "train": 63000,
    }


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_training_images(count: int) -> None:
    with pytest.raises(DataError, match=rf"class 'c1' has {count} images.*at least 3"):
        prepare(raw_data([9, count, 9]), 0)


def test_three_images_a_class_are_enough() -> None:
    data = prepare(raw_data([3, 3]), 0)
    assert [split.labels.sort().values.tolist() for split in parts(data)] == [[0, 1]] * 3


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mean_and_std_are_those_of_train(channels: int) -> None:
    data = prepare(raw_data([2600, 2600], channels=channels), 0)  # more than one chunk
    pixels = data.train.images.numpy() / 255
    assert data.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), rel=1e-12)


def test_std_of_a_constant_channel_has_a_floor() -> None:
    raw = raw_data([10, 10])
    data = prepare(replace(raw, train_images=torch.full_like(raw.train_images, 7)), 0)
    assert data.mean == pytest.approx([7 / 255] * 3, rel=1e-12)
    assert data.std == (1e-3,) * 3


def test_fingerprint() -> None:
    raw = raw_data([20, 20])
    base = fingerprint(prepare(raw, 0))
    assert base == fingerprint(prepare(raw, 0)) == fingerprint(prepare(raw, 0).to("cpu"))
    assert len(base) == 64
    pixel, label, test = raw.train_images.clone(), raw.train_labels.clone(), raw.test_images.clone()
    pixel[5, 0, 3, 3] ^= 1
    label[5] = 1
    test[0, 0, 0, 0] ^= 1
    others = [
        replace(raw, train_images=pixel),
        replace(raw, train_labels=label),
        replace(raw, test_images=test),
        replace(raw, classes=("c0", "other")),
        replace(raw, flip=False),
    ]
    assert len({base, fingerprint(prepare(raw, 1)), *(fingerprint(prepare(other, 0)) for other in others)}) == 7


# --- batches


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize(dtype: torch.dtype) -> None:
    images = raw_data([5, 5]).train_images
    before, mean, std = images.clone(), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    result = normalize(images, mean, std, dtype=dtype)
    assert result.dtype == dtype
    assert torch.equal(result, ((images.float() / 255 - shift) / scale).to(dtype))
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("size", "pad", "expected_pad"), [(8, None, 1), (6, None, 1), (32, None, 4), (8, 3, 3), (8, 0, 0)]
)
@pytest.mark.parametrize("flip", [True, False])
def test_augment_gives_crops_of_the_padded_image(size: int, pad: int | None, expected_pad: int, flip: bool) -> None:
    images = torch.randint(1, 256, (200, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    result = augment(images, torch.Generator().manual_seed(1), flip, pad)
    assert torch.equal(images, before)
    assert result.shape == images.shape
    assert result.dtype == torch.uint8
    padded = F.pad(images, (expected_pad,) * 4)
    seen: set[tuple[int, int, bool]] = set()
    for crop, wide in zip(result, padded, strict=True):
        matches = [
            (top, left, mirrored)
            for top in range(2 * expected_pad + 1)
            for left in range(2 * expected_pad + 1)
            for mirrored in (False, True)
            if torch.equal(crop.flip(2) if mirrored else crop, wide[:, top : top + size, left : left + size])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert {mirrored for *_, mirrored in seen} == ({False, True} if flip else {False})
    assert {top for top, *_ in seen} == {left for _, left, _ in seen} == set(range(2 * expected_pad + 1))
    assert (
        len({(top, left) for top, left, _ in seen}) > (2 * expected_pad + 1) ** 2 // 2
    )  # rows and columns independent


def test_half_of_the_images_are_flipped() -> None:
    images = torch.zeros((4000, 1, 8, 8), dtype=torch.uint8)
    images[..., :4] = 255
    result = augment(images, torch.Generator().manual_seed(0), flip=True, pad=0)
    flipped = (result[:, 0, 0, 0] == 0).float().mean()
    assert 0.46 < flipped < 0.54  # 5 standard deviations


def test_augment_is_deterministic_and_takes_a_batch_of_any_size_and_layout() -> None:
    images = raw_data([6, 5]).train_images
    first, second = (augment(images, torch.Generator().manual_seed(3), True) for _ in range(2))
    assert torch.equal(first, second)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, augment(last, torch.Generator().manual_seed(3), True))
    assert augment(images[:1], torch.Generator().manual_seed(3), True).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(("n", "batch_size", "steps"), [(10, 3, 3), (9, 3, 3), (10, 10, 1), (10, 64, 1), (1, 1, 1)])
def test_steps_per_epoch(n: int, batch_size: int, steps: int) -> None:
    assert steps_per_epoch(n, batch_size) == steps


@pytest.mark.parametrize(("n", "batch_size"), [(0, 8), (8, 0), (8, -1)])
def test_steps_per_epoch_refuses_nothing(n: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"{n} images in batches of {batch_size}"):
        steps_per_epoch(n, batch_size)


@pytest.mark.parametrize("start", [0, 1, 4, 7, 8])
def test_batches_resumed_in_the_middle_are_the_same(start: int) -> None:
    data = prepare(raw_data([40, 40]), 0)
    full = list(train_batches(data, 8, seed=5, epoch=2))
    assert [step for step, *_ in full] == list(range(len(data.train) // 8))
    resumed = list(train_batches(data, 8, seed=5, epoch=2, start=start))
    assert len(resumed) == len(full) - start
    for (step, images, labels), (full_step, full_images, full_labels) in zip(resumed, full[start:], strict=True):
        assert step == full_step
        assert torch.equal(images, full_images)
        assert torch.equal(labels, full_labels)


def test_an_epoch_visits_each_image_once_in_an_order_of_its_own() -> None:
    data = prepare(raw_data([40, 40]), 0)
    plain = replace(data, mean=(0.0,) * 3, std=(1 / 255,) * 3, flip=False)
    colours = torch.arange(len(data.train), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    plain = replace(plain, train=Split(colours, data.train.labels))

    def visits(seed: int, epoch: int) -> list[int]:
        batches = list(train_batches(plain, 8, seed, epoch))
        order = [round(value) for _, images, _ in batches for value in images[:, 0, 4, 4].tolist()]
        assert torch.equal(data.train.labels[order], torch.cat([labels for *_, labels in batches]))
        return order

    first = visits(0, 0)
    assert sorted(first) == list(range(64))
    assert first not in (visits(0, 1), visits(1, 0), sorted(first))


def test_every_step_epoch_and_seed_augments_in_its_own_way() -> None:
    data = prepare(raw_data([40, 40]), 0)
    same = data.train.images[:1].expand(len(data.train), -1, -1, -1).contiguous()
    data = replace(data, train=Split(same, data.train.labels))
    runs = [(0, 0), (0, 1), (1, 0)]
    batches = [images.numpy().tobytes() for run in runs for _, images, _ in train_batches(data, 8, *run)]
    assert len(set(batches)) == len(batches) == 24


def test_a_batch_larger_than_the_set_is_the_whole_set() -> None:
    data = prepare(raw_data([5, 5]), 0)
    ((step, images, labels),) = train_batches(data, 512, 0, 0)
    assert step == 0
    assert images.dtype == torch.float32
    assert len(images) == len(labels) == len(data.train)


@pytest.mark.parametrize("start", [-1, 9])
def test_start_outside_the_epoch_is_refused_at_the_call(start: int) -> None:
    with pytest.raises(ValueError, match=f"start {start} is not in 0 to 8"):
        train_batches(prepare(raw_data([40, 40]), 0), 8, 0, 0, start)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_batches_are_the_same_on_a_gpu() -> None:
    data = prepare(raw_data([40, 40]), 0)
    there = data.to("cuda")
    assert fingerprint(there) == fingerprint(data)
    for here, gpu in zip(train_batches(data, 8, 0, 0), train_batches(there, 8, 0, 0), strict=True):
        assert gpu[1].is_cuda
        assert torch.allclose(gpu[1].cpu(), here[1], atol=1e-6)
        assert torch.equal(gpu[2].cpu(), here[2])
    images = augment(there.train.images, torch.Generator("cuda").manual_seed(0), flip=True)
    assert images.is_cuda
