"""`Supernet`: the weights of every architecture of a space in one module."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from search_spaces import plan as planning
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.plan import Block, Layer, plan
from supernet.layers import ElasticBatchNorm2d, ElasticConv2d, ElasticLinear
from supernet.subnet import FORWARDS, Ops, PlainBlock, Subnet, drop_connect_rates, regularized, resized


class ElasticBlock(nn.Module):
    """The weights of one block slot at its largest, its layers as children under their plan names."""

    def __init__(self, largest: Block, kernels: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self._levels = levels
        for layer in largest.layers:
            self.add_module(layer.name, _elastic_layer(layer, kernels, levels))
            if layer.ends_residual:
                # the block starts as its shortcut, which keeps deep subnets trainable from the first step (BigNAS)
                nn.init.zeros_(self.get_submodule(layer.name).weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor, block: Block, dropout: float = 0.0, drop_connect: float = 0.0) -> Tensor:
        """Runs as `block`, a possibly smaller one of this slot.

        dropout: before the classifier; drop_connect: probability of leaving out an image's residual branch; both in
        training mode alone.
        """
        level = self.level(block)
        ops: Ops = {
            layer.name: partial(self.get_submodule(layer.name), layer=layer, level=level) for layer in block.layers
        }
        if dropout or drop_connect:
            ops = regularized(ops, block, dropout, drop_connect, self.training)
        return FORWARDS[block.kind](ops, block, x)

    def level(self, block: Block) -> int:
        """Which of the per-level parts `block` uses: stem and head have one set, for they never move."""
        return block.level if self._levels > 1 else 0


class Supernet(nn.Module):
    """Shared weights of a `NetworkSpace`, trained once; every architecture is a slice (BigNAS, Yu et al. 2020).

    The elastic forward is for training. Whatever scores, measures or ships an architecture takes `export(arch)`.
    """

    def __init__(self, space: NetworkSpace) -> None:
        super().__init__()
        self.space = space
        size, widths = space.image_size, [stage.widths[-1] for stage in space.stages]
        stem = planning.stem(space, space.stem_width or widths[0], size)
        self.stem = ElasticBlock(stem, (stem.kernel,), levels=1)
        self.blocks = nn.ModuleList()
        for slot, s in enumerate(space.stage_of):
            kernels, expand = space.stages[s].kernels, space.expands_of(slot)[-1]
            before = (space.inputs(slot) or widths[s : s + 1])[-1]
            largest = planning.block(space, slot, before, widths[s], kernels[-1], expand, 0, False, size)
            self.blocks.append(ElasticBlock(largest, kernels, space.num_pools + 1))
        head = planning.head(space, widths[-1], 0, size)
        self.head = ElasticBlock(head, (head.kernel,), levels=1)

    def forward(self, x: Tensor, arch: Arch, dropout: float = 0.0, drop_connect: float = 0.0) -> Tensor:
        """Logits [batch, num_classes] of `arch` for images [batch, in_channels, H, W].

        Images of another size than `arch.resolution` are resized to it (`supernet.subnet.resized`).
        dropout: probability, on the features before the classifier. drop_connect: probability of leaving out the last
        block's residual branch, growing linearly over the blocks (stochastic depth, Huang et al. 2016). Both in
        training mode alone.
        Raises ValueError naming the gene when `arch` is not of this space.
        """
        *body, head = plan(self.space, arch).blocks
        x = resized(x, arch.resolution)
        for block, rate in zip(body, drop_connect_rates(drop_connect, len(body))):
            x = self.elastic(block)(x, block, drop_connect=rate)
        return self.head(x, head, dropout)

    def export(self, arch: Arch) -> Subnet:
        """`arch` as plain modules with weights of its own, in this module's mode and on its device.

        In the same mode it computes what `forward(x, arch)` does, of images at `arch.resolution`. Its batch-norm
        statistics are the supernet's mixture: recalibrate them (`supernet.evaluate.recalibrate`) before the subnet is
        scored.
        """
        subnet = Subnet(plan(self.space, arch)).to(next(self.parameters()).device)
        for plain in subnet.plain_blocks():
            self.fill(plain)
        return subnet.train(self.training)

    def fill(self, plain: PlainBlock) -> None:
        """Copies the sliced weights of `plain.block`, a block of a plan, into it."""
        elastic = self.elastic(plain.block)
        for layer in plain.block.layers:
            elastic.get_submodule(layer.name).export_to(  # type: ignore[operator]
                plain.get_submodule(layer.name), layer, elastic.level(plain.block)
            )

    def elastic(self, block: Block) -> ElasticBlock:
        """The weights that `block`, of a plan, is a slice of."""
        if block.slot >= 0:
            return self.blocks[block.slot]  # type: ignore[return-value]
        return self.head if block.kind == self.space.head else self.stem


def _elastic_layer(layer: Layer, kernels: tuple[int, ...], levels: int) -> nn.Module:
    if layer.op == "linear":
        return ElasticLinear(layer.in_channels, layer.out_channels)
    if layer.op == "norm":
        return ElasticBatchNorm2d(layer.out_channels, levels)
    return ElasticConv2d(layer, kernels if layer.kernel > 1 else (1,), levels)
