"""A supernet that starts from an exported model holds that model, and nothing larger computes anything else."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from spaces import NETWORKS
from supernets import images, randomised

from search_spaces.network import NetworkSpace, Stage
from supernet.exported import ExportedError
from supernet.initial import initialise
from supernet.mixture import Mixture
from supernet.model import Supernet

every_network = pytest.mark.parametrize("space", NETWORKS.values(), ids=NETWORKS)


def classes_of(space):
    return tuple(f"c{number}" for number in range(space.num_classes))


def exported(folder, space, arch):
    """A folder with what `initialise` reads of an export, and the subnet in it."""
    subnet = randomised(space).export(arch).eval()
    folder.mkdir(exist_ok=True)
    config = {"space": space.to_dict(), "arch": arch.to_dict(), "label_names": list(classes_of(space))}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in subnet.state_dict().items()}, folder / "model.safetensors")
    return subnet


def assert_equal(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@every_network
def test_the_same_architecture_is_exported_bit_for_bit(space, tmp_path):
    for arch in (space.smallest(), space.sample(np.random.default_rng(2)), space.largest()):
        subnet, supernet = exported(tmp_path, space, arch), Supernet(space)
        start = initialise(supernet, tmp_path, classes_of(space))
        assert_equal(supernet.export(arch), subnet)
        assert (start["classifier"], start["arch"]) == ("kept", arch.to_dict())


@every_network
def test_larger_subnets_pooled_alike_start_by_computing_what_the_model_does(space, tmp_path):
    small = space.sample(np.random.default_rng(3))
    subnet, supernet = exported(tmp_path, space, small), Supernet(space).eval()
    initialise(supernet, tmp_path, classes_of(space))
    large = space.with_pools(replace(space.largest(), resolution=small.resolution), small.pool)
    x = torch.nn.functional.interpolate(images(space), (small.resolution,) * 2)
    with torch.no_grad():
        torch.testing.assert_close(supernet.export(large)(x), subnet(x), rtol=1e-4, atol=1e-4)


def test_other_classes_keep_the_body_and_redraw_the_classifier(tmp_path):
    space = NETWORKS["every_block_strided_and_pooled"]
    arch = space.largest()
    subnet = exported(tmp_path, space, arch)
    for there in (replace(space, num_classes=7), space):
        supernet = Supernet(there)
        drawn = supernet.head.fc.weight.clone()
        start = initialise(supernet, tmp_path, tuple(f"other{n}" for n in range(there.num_classes)))
        assert start["classifier"] == "redrawn"
        assert torch.equal(supernet.head.fc.weight, drawn)
        body = supernet.export(arch)
        body.head.fc = subnet.head.fc
        assert_equal(body, subnet)


def test_images_of_another_size_are_no_other_space(tmp_path):
    space = NETWORKS["every_block_strided_and_pooled"]
    arch = space.smallest()
    subnet = exported(tmp_path, space, arch)
    larger = Supernet(replace(space, name="other", image_size=32, resolutions=(24, 32)))
    initialise(larger, tmp_path, classes_of(space))
    assert_equal(larger.export(replace(arch, resolution=32)), subnet)


def test_every_member_of_a_mixture_starts_from_the_model(tmp_path):
    space = NETWORKS["digits"]
    arch = space.largest()
    subnet, mixture = exported(tmp_path, space, arch), Mixture(space, 2)
    initialise(mixture, tmp_path, classes_of(space))
    for member in mixture.members:
        assert_equal(member.export(arch), subnet)
    assert_equal(mixture.export(arch), subnet)


def test_another_space_is_refused_naming_what_differs(tmp_path):
    space = NETWORKS["digits"]
    exported(tmp_path, space, space.smallest())
    stages = (replace(space.stages[0], widths=(16, 24)), space.stages[1])
    supernet = Supernet(replace(space, stages=stages, in_channels=3))
    before = [p.clone() for p in supernet.parameters()]
    message = (
        r"is a model of another space: in_channels is 1 in the model and 3 here; "
        r"stages\[0\].widths is \(16, 24, 32\) in the model and \(16, 24\) here"
    )
    with pytest.raises(ExportedError, match=message):
        initialise(supernet, tmp_path, classes_of(space))
    assert all(torch.equal(a, b) for a, b in zip(before, supernet.parameters(), strict=True))
    one = NetworkSpace("one", (Stage((1,), (8,)),), 1, 1, 8, 10)
    with pytest.raises(ExportedError, match="number of stages is 2 in the model and 1 here"):
        initialise(Supernet(one), tmp_path, classes_of(space))


def test_what_is_no_exported_model_is_named(tmp_path):
    supernet = Supernet(NETWORKS["digits"])
    with pytest.raises(ExportedError, match=r"nowhere is no exported model \(.*config.json"):
        initialise(supernet, tmp_path / "nowhere", ())
    exported(tmp_path, NETWORKS["digits"], NETWORKS["digits"].smallest())
    weights = tmp_path / "model.safetensors"
    broken = load_file(weights)
    broken["stem.conv.weight"][0] = torch.nan
    save_file(broken, weights)
    with pytest.raises(ExportedError, match=r"has weights that are no finite numbers: stem.conv.weight"):
        initialise(supernet, tmp_path, ())
    save_file({"stem.conv.weight": torch.zeros(1)}, weights)
    with pytest.raises(ExportedError, match=r"model.safetensors has not the weights of its config.json"):
        initialise(supernet, tmp_path, ())
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ExportedError, match="is not an exported model that this version can read"):
        initialise(supernet, tmp_path, ())
