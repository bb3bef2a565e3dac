"""One contract suite over every space: members are valid and canonical, and nothing in a space is counted twice."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import ALL, NETWORKS

from search_spaces import catalog
from search_spaces.arch import Arch, ArchLike
from search_spaces.network import NetworkSpace, Stage

seeds = st.integers(0, 2**32 - 1)
every_space = pytest.mark.parametrize("space", ALL.values(), ids=ALL.keys())
every_network = pytest.mark.parametrize("space", NETWORKS.values(), ids=NETWORKS.keys())
LISTABLE = {name: space for name, space in ALL.items() if space.size() < 3000}
every_listable = pytest.mark.parametrize("space", LISTABLE.values(), ids=LISTABLE.keys())
few = settings(max_examples=30, deadline=None)


@every_space
@few
@given(seed=seeds)
def test_sample_mutate_crossover_are_valid_canonical_and_encode_back(space, seed):
    rng = np.random.default_rng(seed)
    a, b = space.sample(rng), space.sample(rng)
    for arch in (a, space.mutate(a, rng), space.crossover(a, b, rng)):
        assert isinstance(arch, ArchLike)
        space.validate(arch)
        assert space.decode(space.encode(arch)) == arch
        assert space.arch_from_dict(json.loads(json.dumps(arch.to_dict()))) == arch
        vector = space.to_vector(arch)
        assert vector.shape == space.to_vector(a).shape
        assert ((vector >= 0) & (vector <= 1)).all()


@every_space
@few
@given(seed=seeds)
def test_equal_keys_mean_equal_architectures_and_vectors(space, seed):
    rng = np.random.default_rng(seed)
    archs = [space.sample(rng) for _ in range(20)]
    for a, b in itertools.combinations(archs, 2):
        assert (a.key == b.key) == (a == b)
        if a != b:
            assert not np.array_equal(space.to_vector(a), space.to_vector(b))


@every_space
def test_keys_are_file_names(space):
    rng = np.random.default_rng(0)
    for _ in range(50):
        key = space.sample(rng).key
        assert len(key) < 200
        assert re.fullmatch(r"[\w.,=+%-]+", key)


@every_space
def test_mutation_changes_something_whenever_it_can(space):
    rng = np.random.default_rng(0)
    for _ in range(50):
        arch = space.sample(rng)
        assert (space.mutate(arch, rng) != arch) == (space.size() > 1)


@every_space
def test_the_same_generator_gives_the_same_members(space):
    def draw() -> list[ArchLike]:
        rng = np.random.default_rng(7)
        a, b = space.sample(rng), space.sample(rng)
        return [a, b, space.mutate(a, rng), space.crossover(a, b, rng)]

    assert draw() == draw()


@every_network
@few
@given(data=st.data())
def test_canonical_is_idempotent_and_keeps_what_has_an_effect(space, data):
    """From any genes, inactive ones and pools before inactive slots included."""
    slots = range(space.num_slots)
    raw = Arch(
        depth=tuple(data.draw(st.sampled_from(s.depths)) for s in space.stages),
        width=tuple(data.draw(st.sampled_from(s.widths)) for s in space.stages),
        kernel=tuple(data.draw(st.sampled_from(space.stages[s].kernels)) for s in space.stage_of),
        pool=tuple(data.draw(st.permutations(slots))[: space.num_pools]),
        resolution=data.draw(st.sampled_from(space.resolution_choices)),
        expand=tuple(float(data.draw(st.sampled_from(space.expands_of(t)))) for t in slots if space.has_expand),
    )
    arch = space.canonical(raw)
    space.validate(arch)
    assert space.canonical(arch).key == arch.key == space.decode(space.encode(arch)).key
    assert (arch.depth, arch.width, arch.resolution) == (raw.depth, raw.width, raw.resolution)
    for slot in space.active_slots(raw.depth):
        assert arch.kernel[slot] == raw.kernel[slot]
        assert arch.expand[slot : slot + 1] == raw.expand[slot : slot + 1]


@every_listable
def test_size_counts_what_enumerate_yields(space):
    archs = list(space.enumerate())
    for arch in archs:
        space.validate(arch)
    assert len(archs) == len({arch.key for arch in archs}) == space.size()
    assert {space.smallest(), space.largest()} <= set(archs)


@every_listable
def test_decode_reaches_every_canonical_architecture_and_no_other(space):
    indices = itertools.product(*(range(len(gene.choices)) for gene in space.genes))
    assert {space.decode(i).key for i in indices} == {arch.key for arch in space.enumerate()}


@every_network
def test_spaces_survive_json(space):
    assert NetworkSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space


def test_the_first_release_wrote_this_form_and_still_does():
    """Checkpoints, runs and studies hold it: fields that came later are absent where they say nothing."""
    first = {
        "name": "digits",
        "stages": [
            {"depths": [1, 2], "widths": [16, 24, 32], "kernels": [3, 5]},
            {"depths": [1, 2], "widths": [32, 48, 64], "kernels": [3, 5]},
        ],
        "num_pools": 1,
        "in_channels": 1,
        "image_size": 8,
        "num_classes": 10,
    }
    assert catalog.get("digits").to_dict() == first
    assert NetworkSpace.from_dict(first) == catalog.get("digits")


def test_the_imagenet_spaces_are_what_was_promised():
    mobile, pooled = catalog.get("mobilenet_v3"), catalog.get("mobilenet_v3_pooling")
    assert mobile.size() == 25 * sum(9**d for d in (2, 3, 4)) ** 5
    assert mobile.resolutions == tuple(range(128, 225, 4))
    assert [s.stride for s in mobile.stages] == [2, 2, 2, 1, 2]
    assert [s.stride for s in pooled.stages] == [1] * 5
    assert pooled.num_pools == 4
    assert catalog.get("resnet50").resolutions == tuple(range(128, 225, 16))
    assert catalog.get("mobilenet_v3", image_size=32).resolutions == (20, 24, 28, 32)
    assert catalog.get("mobilenet_v3_pooling", image_size=32).resolutions == (32,)
    with pytest.raises(ValueError, match=r"resolutions is \[16\], too small for num_pools 4; valid: at least 31"):
        catalog.get("mobilenet_v3_pooling", image_size=16)


def test_the_catalog_is_what_was_promised():
    pooling = catalog.get("resnet20_pooling")
    assert pooling.size() == 36
    assert pooling.stages == (Stage((3,), (16,)), Stage((3,), (32,)), Stage((3,), (64,)))
    joint = catalog.get("resnet_cifar")
    assert joint.size() > 10**9
    assert {stage.kernels for stage in joint.stages} == {(3, 5, 7)}
    assert all(len(stage.depths) > 1 and len(stage.widths) > 1 for stage in joint.stages)
    with pytest.raises(ValueError, match="unknown space 'mnist'; valid: digits, resnet20_pooling, resnet_cifar"):
        catalog.get("mnist")


def test_sampling_is_uniform_over_pooling_positions():
    space = catalog.get("resnet20_pooling")
    rng = np.random.default_rng(0)
    counts = {arch.pool: 0 for arch in space.enumerate()}
    for _ in range(7200):
        counts[space.sample(rng).pool] += 1
    values = np.array(list(counts.values()))
    # chi-square with 35 degrees of freedom: 66.6 is its 99.9 % quantile
    assert ((values - 200) ** 2 / 200).sum() < 66.6


def test_a_pool_before_an_inactive_slot_moves_to_the_next_active_one():
    space = catalog.get("resnet_cifar")
    base = {"depth": [2, 1, 3], "width": [16, 32, 64], "kernel": [3] * 12}
    assert space.arch_from_dict({**base, "pool": [2, 6]}).pool == (4, 8)
    assert space.arch_from_dict({**base, "pool": [3, 4]}).pool == (4, 8)  # both want slot 4: the second moves on
    assert space.arch_from_dict({**base, "pool": [10, 11]}).pool == (9, 10)  # none follows: back to the last free
    a = space.arch_from_dict({**base, "kernel": [3, 3, 7, *[3] * 9], "pool": [0, 1]})
    assert a.kernel[2] == 3
    assert a == space.arch_from_dict({**base, "pool": [0, 1]})
