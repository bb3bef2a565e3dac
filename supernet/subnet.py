"""`Subnet`: one architecture as ordinary torch modules. What is scored, measured and shipped is always a `Subnet`.

Each kind of block has one forward function, written over named operations. The elastic supernet runs the very same
functions, so the two can differ in the weights they use but not in the network they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.plan import Block, Layer, Plan

Ops = Mapping[str, Callable[[Tensor], Tensor]]


def _stem(ops: Ops, block: Block, x: Tensor) -> Tensor:
    return F.relu(ops["bn"](ops["conv"](x)))


def _basic(ops: Ops, block: Block, x: Tensor) -> Tensor:
    if block.pool:
        x = F.max_pool2d(x, 2)
    out = F.relu(ops["bn1"](ops["conv1"](x)))
    out = ops["bn2"](ops["conv2"](out))
    shortcut = ops["shortcut_bn"](ops["shortcut_conv"](x)) if block.project else x
    return F.relu(out + shortcut)


def _head(ops: Ops, block: Block, x: Tensor) -> Tensor:
    return ops["fc"](x.mean((2, 3)))


FORWARDS: dict[str, Callable[[Ops, Block, Tensor], Tensor]] = {"stem": _stem, "basic": _basic, "head": _head}


class PlainBlock(nn.Module):
    """A block of the plan, its layers as children under their plan names."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        for layer in block.layers:
            self.add_module(layer.name, plain_layer(layer))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, in_size, in_size] → [batch, out_channels, out_size, out_size] (head: logits)."""
        return FORWARDS[self.block.kind](self._modules, self.block, x)  # type: ignore[arg-type]


class Subnet(nn.Module):
    """The network of a plan: images [batch, in_channels, resolution, resolution] → logits [batch, num_classes].

    Its state dict has the names that an exported `model.py` uses: `stem.conv.weight`, `blocks.0.conv1.weight`, …,
    `head.fc.bias`.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.stem = PlainBlock(plan.blocks[0])
        self.blocks = nn.Sequential(*(PlainBlock(block) for block in plan.blocks[1:-1]))
        self.head = PlainBlock(plan.blocks[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised float images → logits."""
        return self.head(self.blocks(self.stem(x)))

    def plain_blocks(self) -> list[PlainBlock]:
        """Stem, blocks and head, one for each block of the plan."""
        return [self.stem, *self.blocks, self.head]


def plain_layer(layer: Layer) -> nn.Module:
    """The torch module of one layer, its weights not initialised to anything in particular."""
    if layer.op == "linear":
        return nn.Linear(layer.in_channels, layer.out_channels)
    if layer.op == "norm":
        return nn.BatchNorm2d(layer.out_channels)
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel, padding=layer.kernel // 2, bias=False)


def count_params(model: nn.Module) -> int:
    """Trainable parameters, counted on the module itself: the independent check of the plan's figure."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds for one image, counted by torch's own FLOP counter on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    params = {name: p.to("meta") for name, p in (*model.named_parameters(), *model.named_buffers())}
    counter = FlopCounterMode(display=False)
    model.eval()
    with counter, torch.no_grad():
        torch.func.functional_call(model, params, (torch.empty(1, *image_shape, device="meta"),))
    model.train(was_training)
    return counter.get_total_flops() // 2
