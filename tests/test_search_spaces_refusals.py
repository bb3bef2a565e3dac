"""What is no architecture, or no space, is refused, naming the gene or the field and what is valid."""

from __future__ import annotations

from dataclasses import replace

import pytest
from spaces import CHOICES

from search_spaces import catalog
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.space import ChoiceSpace


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expand": [5] * 20}, r"gene expand\[0\] is 5; valid: 3, 4, 6"),
        ({"expand": [3] * 19}, r"gene expand has 19 entries .*; this space takes 20"),
        ({"expand": [3, "4"]}, r"gene 'expand' must be a list of numbers"),
        ({"expand": []}, r"gene expand has 0 entries"),
        ({"resolution": 130}, r"gene resolution is 130; valid: 128, 132, .*224"),
        ({"pool": [1]}, r"gene pool is \(1,\); valid: 0 different slots"),
    ],
)
def test_a_bad_gene_of_a_mobile_net_is_named(change, message):
    space = catalog.get("mobilenet_v3")
    with pytest.raises(ValueError, match=message):
        space.arch_from_dict(space.smallest().to_dict() | change)


def test_one_network_has_one_key_however_its_ratios_are_written():
    space = catalog.get("mobilenet_v3")
    data = space.largest().to_dict()
    del data["resolution"]
    arch = space.arch_from_dict(data | {"expand": [6.0] * 20})
    assert arch.key == space.largest().key
    with pytest.raises(ValueError, match=r"gene expand\[3\] is 6, but the slot is inactive; valid: 3"):
        space.validate(replace(arch, depth=(3, 4, 4, 4, 4), kernel=(7, 7, 7, 3) + (7,) * 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": [9, 1, 1]}, r"gene depth\[0\] is 9; valid: 1, 2, 3, 4"),
        ({"depth": [1, 1]}, r"gene depth has 2 entries \(1, 1\); this space takes 3"),
        ({"width": [8, 17, 32]}, r"gene width\[1\] is 17; valid: 16, 24, 32"),
        ({"kernel": [4] * 12}, r"gene kernel\[0\] is 4; valid: 3, 5, 7"),
        ({"pool": [0]}, r"gene pool is \(0,\); valid: 2 different slots of 0 to 11"),
        ({"pool": [3, 3]}, r"valid: 2 different slots"),
        ({"pool": [0, 12]}, r"valid: 2 different slots of 0 to 11"),
        ({"resolution": 64}, r"gene resolution is 64; valid: 32"),
        ({"expand": [2] * 12}, r"gene expand is .*has none"),
        ({"dept": [1, 1, 1]}, r"unknown gene 'dept'; valid genes: depth, "),
        ({"depth": None}, r"gene 'depth' must be a list of integers, got None"),
        ({"depth": [1.5, 1, 1]}, r"gene 'depth' must be a list of integers"),
        ({"depth": ["a", 1, 1]}, r"gene 'depth' must be a list of integers"),
        ({"resolution": [32]}, r"gene 'resolution' must be an integer"),
    ],
)
def test_a_bad_gene_is_named(change, message):
    space = catalog.get("resnet_cifar")
    with pytest.raises(ValueError, match=message):
        space.arch_from_dict(space.smallest().to_dict() | change)


def test_a_missing_gene_and_a_non_mapping_are_named():
    space = catalog.get("resnet_cifar")
    data = space.smallest().to_dict()
    del data["kernel"]
    with pytest.raises(ValueError, match="gene 'kernel' is missing"):
        space.arch_from_dict(data)
    with pytest.raises(ValueError, match="an architecture is a mapping"):
        space.arch_from_dict([1, 2])  # type: ignore[arg-type]


def test_validate_refuses_what_is_not_canonical():
    space = catalog.get("resnet_cifar")
    kernel = list(space.smallest().kernel)
    kernel[1] = 7
    with pytest.raises(ValueError, match=r"gene kernel\[1\] is 7, but the slot is inactive; valid: 3"):
        space.validate(Arch((1, 1, 1), (8, 16, 32), tuple(kernel), (0, 4), 32))
    with pytest.raises(ValueError, match=r"gene pool is \(0, 1\); valid slots at depth \(1, 1, 1\): \[0, 4, 8\]"):
        space.validate(Arch((1, 1, 1), (8, 16, 32), (3,) * 12, (0, 1), 32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stages": []}, "stages is empty; valid: at least one stage"),
        ({"stages": [{"depths": [1]}]}, r"stages\[0\].widths is missing; valid: a mapping of depths, widths, kernels"),
        (
            {"stages": [{"depths": [2, 1], "widths": [8]}]},
            r"stages\[0\].depths is \[2, 1\]; valid: .* ascending, none twice",
        ),
        (
            {"stages": [{"depths": [65536], "widths": [8]}]},
            r"depths is \[65536\]; valid: .* positive integers up to 256",
        ),
        ({"stages": [{"depths": [1], "widths": [8], "kernels": [65535]}]}, "kernels is .* odd integers up to 255"),
        (
            {"stages": [{"depths": [1], "widths": [8], "kernels": [4]}]},
            r"kernels is \[4\]; valid: a list of odd integers",
        ),
        ({"stages": [{"depths": [0], "widths": [8]}]}, r"depths is \[0\]; valid: a list of positive integers"),
        ({"stages": [{"depths": 1, "widths": [8]}]}, r"stages\[0\].depths is 1; valid: a list of"),
        ({"num_pools": 9}, "num_pools is 9, but the shallowest network has 1 blocks"),
        ({"num_pools": -1}, "num_pools is -1; valid: an integer of at least 0"),
        ({"image_size": 1, "num_pools": 1}, "image_size is 1, too small for num_pools 1; valid: at least 2 pixels"),
        ({"num_classes": 1}, "num_classes is 1; valid: an integer of at least 2"),
        ({"colour": 3}, "colour is no field of a space; valid fields: name, stages"),
        ({"stages": "x"}, "stages is 'x'; valid: a list"),
        ({"stages": [{"depths": [1], "widths": [8], "block": "conv"}]}, "block is 'conv'; valid: basic, bottleneck"),
        ({"stages": [{"depths": [1], "widths": [8], "stride": 3}]}, "stride is 3; valid: 1, 2"),
        ({"stages": [{"depths": [1], "widths": [8], "stride": True}]}, "stride is True; valid: 1, 2"),
        ({"stages": [{"depths": [1], "widths": [8], "block": "mbconv"}]}, "a mbconv block takes at least one ratio"),
        ({"stages": [{"depths": [1], "widths": [8], "expands": [2]}]}, "a basic block takes no ratios"),
        (
            {"stages": [{"depths": [1], "widths": [8], "expands": 2}]},
            r"stages\[0\].expands is 2; valid: a list of positive numbers",
        ),
        (
            {"stages": [{"depths": [1], "widths": [8], "expands": [0]}]},
            r"expands is \[0\]; valid: a list of positive numbers",
        ),
        (
            {"stages": [{"depths": [1], "widths": [8], "se": True}]},
            r"stages\[0\].se is True, which is for mbconv, not for basic",
        ),
        ({"resolutions": [16, 24]}, r"resolutions is \[16, 24\], but must end with the image size, 32"),
        ({"resolutions": 32}, "resolutions is 32; valid: a list"),
        ({"resolutions": ["a"]}, "resolutions is 'a'; valid: an integer"),
        ({"stem": "deep"}, "stem is 'deep'; valid: stem, imagenet_stem, mobile_stem"),
        ({"stem_width": 0}, "stem_width is 0; valid: an integer of 1 to 65536"),
        (
            {"head": "mobile_head", "head_widths": (10**10, 4)},
            "head_widths is 10000000000; valid: an integer of 1 to 65536",
        ),
        ({"stem": "mobile_stem"}, "stem_width is missing: a mobile_stem needs a number"),
        ({"head": "mobile_head"}, r"head_widths is \[\], but mobile_head takes 2"),
    ],
)
def test_a_bad_space_names_the_field(fields, message):
    good = {"name": "mine", "stages": [{"depths": [1, 2], "widths": [8, 16], "kernels": [3]}], "num_pools": 1}
    with pytest.raises(ValueError, match=message):
        NetworkSpace.from_dict(good | {"image_size": 32} | fields)


def test_choice_archs_read_as_mappings():
    space = CHOICES["choices"]
    arch = space.arch_from_dict({"act": "h/s", "stem": "conv5", "depth": 2, "se": False})
    assert arch["depth"] == 2
    assert dict(arch) == {"stem": "conv5", "depth": 2, "se": False, "act": "h/s"}
    assert arch.key == "stem=conv5,depth=2,se=False,act=h%2Fs"
    with pytest.raises(KeyError):
        arch["width"]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "at least one gene"),
        ({"a": ()}, "gene 'a' needs at least one choice"),
        ({"a": (1, 1)}, "no two alike"),
        ({"a": (1, "1")}, "no two alike"),
        ({"a": (1, 1.0)}, "no two alike"),
        ({"a": (True, 1)}, "no two alike"),
        ({"a": (0.0, -0.0)}, "no two alike"),
        ({"a": (1.0, float("nan"))}, "choice nan is not finite"),
        ({"a": (0, False)}, "no two alike"),
        ({"a": (1.0, float("inf"))}, "choice inf is not finite"),
        ({5: (1, 2)}, "gene names must be texts and not empty, got 5"),
        ({"": (1, 2)}, "gene names must be texts and not empty, got ''"),
        ({"a": ([1],)}, "is not a text, number, bool or None"),
        ({"a": "abc"}, "choices must be a sequence such as a tuple"),
    ],
)
def test_a_bad_choice_space_names_the_gene(choices, message):
    with pytest.raises(ValueError, match=message):
        ChoiceSpace(choices)


def test_a_bad_choice_names_the_valid_ones():
    space = CHOICES["choices"]
    good = space.smallest().to_dict()
    with pytest.raises(ValueError, match="gene 'depth' is 7; valid: 1, 2, 3"):
        space.arch_from_dict(good | {"depth": 7})
    with pytest.raises(ValueError, match="gene 'depth' is True; valid: 1, 2, 3"):
        space.arch_from_dict(good | {"depth": True})
    with pytest.raises(ValueError, match="gene 'wdith' is unknown or missing; genes: stem, depth, se, act"):
        space.arch_from_dict(good | {"wdith": 7})
