"""The supernet is its subnets: sliced equals plain, what a slice leaves out has no gradient, the plan's cost holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from spaces import NETWORKS
from supernets import images, randomised

from search_spaces import catalog
from search_spaces.network import NetworkSpace, Stage
from search_spaces.plan import Layer, plan
from supernet.layers import ElasticConv2d, require_trainable
from supernet.model import Supernet
from supernet.subnet import Subnet, count_macs, count_params, resized

every_network = pytest.mark.parametrize("space", NETWORKS.values(), ids=NETWORKS.keys())


def some_archs(space, n=4):
    rng = np.random.default_rng(0)
    return [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(n))]


@every_network
@pytest.mark.parametrize("training", [True, False], ids=["batch statistics", "running statistics"])
def test_exported_subnet_equals_the_elastic_forward(space, training):
    supernet, x = randomised(space).train(training), images(space)
    for arch in some_archs(space):
        subnet = supernet.export(arch)
        assert subnet.training == training
        with torch.no_grad():
            torch.testing.assert_close(supernet(x, arch), subnet(resized(x, arch.resolution)), rtol=0, atol=1e-5)


@every_network
def test_exported_weights_are_copies(space):
    supernet, x = randomised(space).eval(), images(space)
    arch = space.largest()
    with torch.no_grad():
        before = supernet(x, arch)
        for tensor in supernet.export(arch).state_dict().values():
            tensor.zero_()
        assert torch.equal(before, supernet(x, arch))


@every_network
def test_plan_cost_equals_an_independent_counter(space):
    for arch in some_archs(space):
        lowered = plan(space, arch)
        subnet = Subnet(lowered)
        shape = (space.in_channels, arch.resolution, arch.resolution)
        assert lowered.macs == count_macs(subnet, shape)
        assert lowered.params == count_params(subnet)


@every_network
def test_weights_outside_the_active_slice_get_exactly_no_gradient(space):
    """Training one architecture must leave every weight that its exported subnet does not hold untouched."""
    supernet, x = randomised(space).train(), images(space)
    for arch in some_archs(space, n=2):
        supernet.zero_grad(set_to_none=True)
        supernet(x, arch).square().sum().backward()
        touched = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
        lowered = plan(space, arch)
        active = {block.slot for block in lowered.blocks}
        for name, grad in touched.items():
            part, _, rest = name.partition(".")
            slot = int(rest.split(".")[0]) if part == "blocks" else -1
            assert slot in active or not grad.any(), name
        for block in lowered.blocks:
            ends = {space.stem: "stem", space.head: "head"}
            prefix = ends.get(block.kind, f"blocks.{block.slot}")
            for layer in block.layers:
                grad = touched[f"{prefix}.{layer.name}.weight"].clone()
                if layer.op == "norm":
                    grad[block.level if block.slot >= 0 else 0, : layer.out_channels] = 0
                else:
                    edge = (grad.shape[-1] - layer.kernel) // 2 if grad.ndim == 4 else 0
                    inner = slice(edge, edge + layer.kernel)
                    index = (slice(layer.out_channels), slice(layer.in_channels // layer.groups))
                    grad[index + ((inner, inner) if grad.ndim == 4 else ())] = 0
                assert not grad.any(), (prefix, layer)
                if layer.op == "conv" and layer.bias:
                    assert not touched[f"{prefix}.{layer.name}.bias"][layer.out_channels :].any(), (prefix, layer)


@every_network
def test_every_residual_block_starts_as_its_shortcut(space):
    """BigNAS A.5: the last batch norm's gamma is 0, so the network starts as if it had no residual branches."""
    supernet, x = Supernet(space).train(), images(space)
    arch = space.largest()
    with torch.no_grad():
        before = supernet(x, arch)
        for block in plan(space, arch).blocks:
            if any(layer.ends_residual for layer in block.layers):
                for layer in block.layers:
                    if layer.op == "conv" and layer.name not in ("conv", "shortcut_conv"):  # the stem's, the shortcut's
                        prefix = f"blocks.{block.slot}" if block.slot >= 0 else "stem"
                        supernet.get_submodule(f"{prefix}.{layer.name}").weight.normal_()
        assert torch.equal(before, supernet(x, arch))


def test_every_block_but_a_reshaping_inverted_bottleneck_is_residual():
    for name, space in NETWORKS.items():
        for block in plan(space, space.largest()).blocks[1:-1]:
            ends = [layer.name for layer in block.layers if layer.ends_residual]
            assert len(ends) == block.residual
            assert block.residual or (block.kind == "mbconv" and (block.stride > 1 or space.projects(block.slot))), name


def test_images_of_the_right_size_are_not_touched():
    x = torch.randn(2, 3, 8, 8)
    assert resized(x, 8) is x
    assert resized(x, 6).shape == (2, 3, 6, 6)
    flat = torch.full((1, 1, 9, 9), 0.3)
    torch.testing.assert_close(resized(flat, 5), torch.full((1, 1, 5, 5), 0.3))


def test_kernel_transforms_start_as_the_centre_crop():
    conv = ElasticConv2d(Layer("conv", "conv1", 3, 4, 7, 8), (3, 5, 7), levels=3)
    for kernel, edge in ((3, 2), (5, 1), (7, 0)):
        small = Layer("conv", "conv1", 2, 3, kernel, 8)
        expected = conv.weight[:3, :2, edge : edge + kernel, edge : edge + kernel]
        for level in range(3):
            assert torch.equal(conv.sliced(small, level), expected)


def test_levels_keep_their_own_norms_and_transforms():
    """The same block after a different number of poolings shares its convolution and nothing else."""
    space = catalog.get("resnet20_pooling")
    supernet = randomised(space)
    early, late = space.with_pools(space.largest(), (0, 1)), space.with_pools(space.largest(), (7, 8))
    a, b = (supernet.export(arch).blocks[4] for arch in (early, late))
    assert not torch.equal(a.bn1.weight, b.bn1.weight)
    assert not torch.equal(a.conv1.weight, b.conv1.weight)
    plain = Supernet(space)
    a, b = (plain.export(arch).blocks[4] for arch in (early, late))
    assert torch.equal(a.conv1.weight, b.conv1.weight)


def test_an_architecture_of_another_space_is_refused():
    supernet = Supernet(catalog.get("digits"))
    other = catalog.get("resnet_cifar").smallest()
    with pytest.raises(ValueError, match="gene depth has 3 entries"):
        supernet.export(other)
    with pytest.raises(ValueError, match="gene depth has 3 entries"):
        supernet(torch.zeros(1, 1, 8, 8), other)


def test_dropout_acts_in_training_alone():
    space = catalog.get("digits")
    supernet, x = randomised(space), images(space)
    arch = space.largest()
    with torch.no_grad():
        assert not torch.equal(supernet.train()(x, arch, dropout=0.5), supernet(x, arch))
        assert torch.equal(supernet.eval()(x, arch, dropout=0.5), supernet(x, arch))


def test_one_value_a_channel_cannot_be_trained_on_and_batch_and_resolution_are_named():
    space = NetworkSpace("pixel", (Stage((1,), (4,), (1,)),), 0, 1, image_size=1, num_classes=2)
    supernet, arch, pixel = Supernet(space), space.smallest(), torch.zeros(1, space.in_channels, 1, 1)
    with pytest.raises(ValueError, match=r"a batch of 1 image with features of 1x1 pixels.* batch size of at least 2"):
        supernet.train()(pixel, arch)
    assert supernet.train()(torch.cat([pixel, pixel]), arch).shape == (2, space.num_classes)
    assert supernet.eval()(pixel, arch).shape == (1, space.num_classes)


def test_a_space_is_trainable_where_its_latest_pool_leaves_pixels_enough():
    """A pool rounds down and a stride up: 6 pixels become 2 a side by the one and then the other, 1 the other way."""
    stages = (Stage((1,), (4,)), Stage((1,), (4,), stride=2), Stage((1,), (4,)))
    space = NetworkSpace("odd", stages, num_pools=1, in_channels=1, image_size=6)
    with pytest.raises(ValueError, match=r"a batch of 1 image with features of 1x1 pixels"):
        require_trainable(space, 1)
    require_trainable(space, 2)
    require_trainable(replace(space, image_size=8), 1)
