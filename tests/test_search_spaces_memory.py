"""Peak activation memory and weight bytes of the plan, against an independent count on the traced network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from search_spaces.catalog import SPACES
from search_spaces.cost import costs
from search_spaces.plan import plan
from supernet.subnet import Subnet

IN_PLACE = (nn.BatchNorm2d, "relu", "hardswish", "hardsigmoid", "add", "mul", "flatten", "getattr", "getitem")


class Leaves(fx.Tracer):
    """Convolutions and norms are steps; what is written in blocks is traced."""

    def is_leaf_module(self, module, name):
        return isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)


def counted_peak(net: Subnet) -> int:
    """Most values held at once, from the order, the shapes and the last uses in the traced graph alone."""
    graph = Leaves().trace(net)
    module = fx.GraphModule(net, graph)
    shape = (1, net.plan.in_channels, net.plan.resolution, net.plan.resolution)
    ShapeProp(module).propagate(torch.zeros(shape))
    nodes = [node for node in module.graph.nodes if node.op not in ("output", "get_attr")]
    buffers: dict[fx.Node, fx.Node] = {}  # a step done in place writes to the buffer of its largest input
    for node in nodes:
        inputs = sorted(node.all_input_nodes, key=lambda n: -buffers[n].meta["tensor_meta"].shape.numel())
        buffers[node] = buffers[inputs[0]] if inputs and in_place(module, node) else node
    order = {node: at for at, node in enumerate(module.graph.nodes)}
    ends = {
        node: max((order[user] for n in nodes if buffers[n] is node for user in n.users), default=0) for node in nodes
    }
    written = {node for node in nodes if buffers[node] is node}
    return max(
        sum(n.meta["tensor_meta"].shape.numel() for n in written if order[n] <= order[at] <= ends[n]) for at in nodes
    )


def in_place(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(module.get_submodule(node.target), nn.BatchNorm2d)
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return name in IN_PLACE


@pytest.mark.parametrize("name", SPACES)
def test_peak_and_weights_are_those_of_the_network(name: str) -> None:
    space, rng = SPACES[name](), np.random.default_rng(0)
    if space.resolution_choices[-1] > 64:
        space = SPACES[name](image_size=64)
    archs = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(8))]
    known = costs(space, archs)
    for arch, peak, stored in zip(archs, known["peak_memory"], known["weight_bytes"], strict=True):
        net = Subnet(plan(space, arch)).eval()
        state = {name: t for name, t in net.state_dict().items() if not name.endswith("num_batches_tracked")}
        assert stored == sum(t.numel() * t.element_size() for t in state.values())
        assert peak == 4 * counted_peak(net)
        assert (peak, stored) == (net.plan.peak_memory, net.plan.weight_bytes)
