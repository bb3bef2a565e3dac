"""Spaces that users write: the fields of a file, and what they say of the data."""

from __future__ import annotations

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
    with pytest.raises(ValueError, match=r"resolutions must end with the image size, 64, got \(24, 32\)"):
        source.build(3, 64, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("block: bottleneck", "block: bottle"), r"mine.yaml: stages\[1\]: stage block is 'bottle'; valid: basic"),
        (("resolutions: [24, 32]", "resolutions: [32, 24]"), "resolutions must ascend without repetition"),
        (("resolutions: [24, 32]", "resolutions: 32"), "resolutions must be a list, got 32"),
        (("head_widths: [32, 64]", ""), r"head_widths is \(\), but mobile_head takes 2"),
        (("stride: 2", "strides: 2"), r"stages\[1\] must have the fields depths, widths, kernels, expands"),
    ],
)
def test_a_bad_file_is_named_with_its_field(change, message, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(MOBILE.replace(*change))
    with pytest.raises(ValueError, match=message):
        resolve(str(file))


def test_the_catalog_is_described_whole():
    rows = describe_catalog()
    assert [row["name"] for row in rows] == list(catalog.SPACES)
    assert all(row["macs_min"] < row["macs_largest"] <= row["macs_max"] for row in rows if row["size"] > 36)
