"""Spaces that users write: the fields of a file, and what they say of the data."""

from __future__ import annotations

import re

import pytest

from nas.spaces import describe_catalog, resolve
from search_spaces import catalog

MOBILE = """
name: mine
num_pools: 1
resolutions: [24, 32]
stem: mobile_stem
stem_width: 8
head: mobile_head
head_widths: [32, 64]
stages:
  - {depths: [1, 2], widths: [16, 24]}
  - {depths: [1, 2], widths: [32], expands: [0.25, 0.5], block: bottleneck, stride: 2}
  - {depths: [1], widths: [40], kernels: [3, 5], expands: [2, 3.0], block: mbconv, act: h_swish, se: true}
"""


def test_a_file_combines_blocks_and_its_largest_resolution_fixes_the_data(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(MOBILE)
    source = resolve(str(file))
    assert source.image_size == 32
    space = source.build(3, 32, 10)
    assert [stage.block for stage in space.stages] == ["basic", "bottleneck", "mbconv"]
    assert space.stages[2].expands == (2, 3)
    assert resolve(space).build(3, 32, 10) == space
    with pytest.raises(
        ValueError, match=r"mine.yaml:4: resolutions is \[24, 32\], but must end with the image size, 64"
    ):
        source.build(3, 64, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("block: bottleneck", "block: bottle"), r"mine.yaml:11: stages\[1\].block is 'bottle'; valid: basic"),
        (
            ("resolutions: [24, 32]", "resolutions: [32, 24]"),
            r"resolutions is \[32, 24\]; valid: ascending, none twice",
        ),
        (("resolutions: [24, 32]", "resolutions: 32"), "resolutions is 32; valid: a list"),
        (("head_widths: [32, 64]", ""), r"head_widths is \[\], but mobile_head takes 2"),
        (
            ("stride: 2", "strides: 2"),
            r"mine.yaml:11: stages\[1\].strides is no field of a stage; valid: a mapping of depths",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_field(change, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(MOBILE.replace(*change))
    with pytest.raises(ValueError, match=message):
        resolve(str(file))


FILE = """\
name: mine
num_pools: 1
stages:
  - depths: [1, 2]
    widths: [8, 16]
  - widths: [16]
    depths: [1]
    kernels: [3, 5]
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("depths: [1]", "depths: [0, 2]"), "mine.yaml:7: stages[1].depths is [0, 2]; valid: a list of positive integ"),
        (
            ("    kernels", "    kernel"),
            "mine.yaml:8: stages[1].kernel is no field of a stage; valid: a mapping of dep",
        ),
        (("    depths: [1]\n", ""), "mine.yaml:6: stages[1].depths is missing; valid: a mapping of depths, widths"),
        (("num_pools: 1", "num_pools: 3"), "mine.yaml:2: num_pools is 3, but the shallowest network has 2 blocks"),
        (("num_pools", "num_pool"), "mine.yaml:2: num_pool is no field of a space; valid fields: name, stages, num_p"),
        (("name: mine\n", ""), "mine.yaml:1: name is missing; valid fields: name"),
        (("kernels: [3, 5]", "kernels: [3, 5]\n    widths: [8]"), "mine.yaml:9: widths was given already, in line 6"),
        (("kernels: [3, 5]", "kernels: [3, 5"), "mine.yaml:9: not YAML: expected ',' or ']'"),
        (("name: mine", "name: !!python/name:os.system"), "mine.yaml:1: not YAML: could not determine a constructor"),
        (("name: mine", "name: &a [*a]"), "mine.yaml:1: name is [[...]]; valid: a text"),
        (("num_pools: 1", "num_pools: 2020-13-45"), "mine.yaml: not YAML: month must be in 1..12"),
        (("stages:", "2: 3\nstages:"), "mine.yaml:3: 2 is no field of a space"),
    ],
)
def test_a_bad_line_of_a_file_is_named_with_its_field(change, message, tmp_path):
    file = tmp_path / "mine.yaml"
    assert change[0] in FILE
    file.write_text(FILE.replace(*change))
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(str(file))


@pytest.mark.parametrize(
    ("text", "message"), [("", "mine.yaml is empty"), ("- 1", "mine.yaml:1: the space is [1]; it")]
)
def test_a_file_that_holds_no_space_is_named(text, message, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(str(tmp_path / "mine.yaml"))


def test_a_file_that_does_not_fit_the_data_is_named_with_its_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(FILE + "in_channels: 3\n")
    with pytest.raises(ValueError, match=r"mine.yaml:9: in_channels is 3, but the data set has 1"):
        resolve(str(file)).build(1, 32, 10)
    with pytest.raises(ValueError, match=r"mine.yaml:1: image_size is 1, too small for num_pools 1; valid: at least 2"):
        resolve(str(file)).build(3, 1, 10)


FUNCTION = """
from search_spaces.network import NetworkSpace, Stage

def make(in_channels, image_size, num_classes):
    return NetworkSpace("mine", (Stage((1, 2), (8, 16)),), 1, in_channels, image_size, num_classes)

def narrow(in_channels, image_size, num_classes):
    return NetworkSpace("mine", (Stage((1, 2), (8, 0)),), 1, in_channels, image_size, num_classes)

def fixed(in_channels, image_size, num_classes):
    return make(3, image_size, num_classes)

def nothing(**data):
    pass

def few():
    pass
"""


def test_a_function_makes_the_space_for_the_data(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    space = resolve("mine.py:make").build(1, 28, 7)
    assert (space.name, space.in_channels, space.image_size, space.num_classes) == ("mine", 1, 28, 7)
    assert resolve(space).build(1, 28, 7) == space


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("narrow", r"mine.py:narrow failed: FieldError: widths is \[8, 0\]; valid: .*mine.py:8\)"),
        ("fixed", "mine.py:fixed returned a space of in_channels 3, but was called with 1"),
        ("nothing", "mine.py:nothing returned a NoneType; valid: a search_spaces.network.NetworkSpace"),
        ("few", r"mine.py:few failed: TypeError: few\(\) got an unexpected keyword argument 'in_channels'"),
        ("none", "mine.py has no function 'none'; it has make, narrow"),
    ],
)
def test_a_function_that_makes_no_space_for_the_data_is_named(name, message, tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTION)
    with pytest.raises(ValueError, match=message):
        resolve(f"{tmp_path / 'mine.py'}:{name}").build(1, 28, 7)


def test_the_catalog_is_described_whole():
    rows = describe_catalog()
    assert [row["name"] for row in rows] == list(catalog.SPACES)
    assert all(row["macs_min"] < row["macs_largest"] <= row["macs_max"] for row in rows if row["size"] > 36)
