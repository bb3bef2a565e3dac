"""Sorting channels keeps what the largest subnet computes, and puts the important ones first."""

from __future__ import annotations

import pytest
import torch
from spaces import NETWORKS
from supernets import images, randomised

from supernet.channels import sort_channels
from supernet.optim import make_optimizer
from supernet.recipe import TrainConfig


@pytest.mark.parametrize("name", NETWORKS)
def test_sorting_leaves_the_output_of_the_largest_subnet_unchanged(name):
    space = NETWORKS[name]
    supernet, x = randomised(space).eval(), images(space, batch=2)
    with torch.no_grad():
        before = supernet(x, space.largest())
        sort_channels(supernet)
        after = supernet(x, space.largest())
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5 * before.abs().max().item())


def test_the_first_channels_are_those_whose_readers_weigh_most():
    space = NETWORKS["resnet_cifar"]
    supernet = randomised(space)
    sort_channels(supernet)
    for block in supernet.blocks:
        read = block.conv2.weight.abs().sum((0, 2, 3))
        assert torch.equal(read, read.sort(descending=True).values)


def test_momenta_move_with_their_weights():
    space = NETWORKS["digits"]
    supernet = randomised(space)
    optimizer = make_optimizer(supernet.named_parameters(), TrainConfig())
    for p in supernet.parameters():
        optimizer.state[p]["momentum_buffer"] = p.detach().clone()
    sort_channels(supernet, optimizer)
    for name, p in supernet.named_parameters():
        assert torch.equal(optimizer.state[p]["momentum_buffer"], p), name


def test_sorting_twice_changes_nothing_more():
    supernet = randomised(NETWORKS["digits"])
    sort_channels(supernet)
    once = {name: t.clone() for name, t in supernet.state_dict().items()}
    sort_channels(supernet)
    assert all(torch.equal(once[name], t) for name, t in supernet.state_dict().items())


def test_the_average_is_reordered_as_the_weights_it_follows():
    space = NETWORKS["resnet_cifar"]
    supernet, average = randomised(space, seed=1), randomised(space, seed=2).eval()
    x = images(space, batch=2)
    with torch.no_grad():
        before = average(x, space.largest())
        order = supernet.blocks[0].conv2.weight.abs().sum((0, 2, 3)).argsort(descending=True, stable=True)
        expected = average.blocks[0].bn1.weight[:, order].clone()
        sort_channels(supernet, average=average)
        torch.testing.assert_close(average(x, space.largest()), before, rtol=1e-4, atol=1e-3)
    assert torch.equal(average.blocks[0].bn1.weight, expected)
