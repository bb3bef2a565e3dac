"""`Supernet`: the weights of every architecture of a space in one module."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces import plan as planning
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.plan import Block, Layer, plan
from supernet.layers import ElasticBatchNorm2d, ElasticConv2d, ElasticLinear
from supernet.subnet import FORWARDS, Subnet


class ElasticBlock(nn.Module):
    """The weights of one block slot at its largest, its layers as children under their plan names."""

    def __init__(self, largest: Block, kernels: tuple[int, ...], levels: int) -> None:
        super().__init__()
        for layer in largest.layers:
            self.add_module(layer.name, _elastic_layer(layer, kernels, levels))
        if largest.kind == "basic":
            # the block starts as its shortcut, which keeps deep subnets trainable from the first step (BigNAS)
            nn.init.zeros_(self.get_submodule("bn2").weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, block: Block) -> Tensor:
        """Runs as `block`, a possibly smaller one of this slot."""
        ops = {
            layer.name: partial(self.get_submodule(layer.name), layer=layer, level=block.level)
            for layer in block.layers
        }
        return FORWARDS[block.kind](ops, block, x)


class Supernet(nn.Module):
    """Shared weights of a `NetworkSpace`, trained once; every architecture is a slice (BigNAS, Yu et al. 2020).

    The elastic forward is for training. Whatever scores, measures or ships an architecture takes `export(arch)`.
    """

    def __init__(self, space: NetworkSpace) -> None:
        super().__init__()
        self.space = space
        levels = space.num_pools + 1
        widths = [stage.widths[-1] for stage in space.stages]
        self.stem = ElasticBlock(planning.stem(space, widths[0]), (3,), levels=1)
        self.blocks = nn.ModuleList()
        for slot, s in enumerate(space.stage_of):
            before = widths[s - 1] if s and slot == space.stage_slots(s)[0] else widths[s]
            kernels = space.stages[s].kernels
            largest = planning.residual(space, slot, before, widths[s], kernels[-1], 0, False)
            self.blocks.append(ElasticBlock(largest, kernels, levels))
        self.head = ElasticBlock(planning.head(space, widths[-1], 0, 1), (1,), levels=1)

    def forward(self, x: Tensor, arch: Arch, dropout: float = 0.0) -> Tensor:
        """Logits [batch, num_classes] of `arch` for images [batch, in_channels, resolution, resolution].

        dropout: probability, on the features before the classifier, in training mode alone.
        Raises ValueError naming the gene when `arch` is not of this space.
        """
        for block in plan(self.space, arch).blocks:
            if block.kind == "head" and dropout:
                x = F.dropout2d(x, dropout, self.training)  # whole channels: the same as dropping pooled features
            x = self._elastic(block)(x, block)
        return x

    def export(self, arch: Arch) -> Subnet:
        """`arch` as plain modules with weights of its own, in this module's mode and on its device.

        In the same mode it computes what `forward(x, arch)` does. Its batch-norm statistics are the supernet's
        mixture: recalibrate them (`supernet.evaluate.recalibrate`) before the subnet is scored.
        """
        lowered = plan(self.space, arch)
        device = next(self.parameters()).device
        subnet = Subnet(lowered).to(device)
        for plain in subnet.plain_blocks():
            elastic = self._elastic(plain.block)
            for layer in plain.block.layers:
                elastic.get_submodule(layer.name).export_to(  # type: ignore[operator]
                    plain.get_submodule(layer.name), layer, plain.block.level
                )
        return subnet.train(self.training)

    def _elastic(self, block: Block) -> ElasticBlock:
        if block.slot >= 0:
            return self.blocks[block.slot]  # type: ignore[return-value]
        return self.stem if block.kind == "stem" else self.head


def _elastic_layer(layer: Layer, kernels: tuple[int, ...], levels: int) -> nn.Module:
    if layer.op == "linear":
        return ElasticLinear(layer.in_channels, layer.out_channels)
    if layer.op == "norm":
        return ElasticBatchNorm2d(layer.out_channels, levels)
    return ElasticConv2d(layer.in_channels, layer.out_channels, kernels if layer.kernel > 1 else (1,), levels)
