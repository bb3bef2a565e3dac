"""A batch of subnets as a trie over their plans: what begins alike is computed once.

Equal blocks behind equal blocks have equal sliced weights and equal inputs, hence equal statistics and activations:
sharing them changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

from torch import Tensor, nn

from search_spaces.memory import BYTES, peak_values, weight_values
from search_spaces.plan import Block, Layer, Plan
from supernet.chunks import Chunks, Statistics
from supernet.convolution import convolution
from supernet.model import Supernet
from supernet.subnet import FORWARDS, Ops, PlainBlock

Features = TypeVar("Features", Tensor, Chunks)


class Node:
    """A block behind a given prefix of blocks, and what may follow it.

    leaves: positions, among the subnets of the trie, of those that end here.
    """

    def __init__(self, supernet: Supernet, block: Block) -> None:
        self.supernet, self.block = supernet, block
        self.children: dict[Block, Node] = {}
        self.leaves: list[int] = []
        self._ops: Ops = {}
        self._norms: dict[str, Statistics] = {}
        self._convs: dict[Layer, nn.Conv2d] = {}

    def prepare(self) -> None:
        """Slices the weights."""
        plain = PlainBlock(self.block).to(next(self.supernet.parameters()).device)
        self.supernet.fill(plain)
        layers: dict[str, nn.Module] = dict(plain.requires_grad_(False).named_children())
        self._norms = {name: Statistics(m) for name, m in layers.items() if isinstance(m, nn.BatchNorm2d)}
        self._convs = {layer: cast(nn.Conv2d, layers[layer.name]) for layer in self.block.layers if layer.op == "conv"}
        convs = {layer.name: _of_parts(convolution(layer, m.weight, m.bias)) for layer, m in self._convs.items()}
        self._ops = cast(Ops, {**layers, **self._norms, **convs})

    def fold(self) -> None:
        """From now on the norms use the statistics gathered; each becomes part of the convolution before it."""
        ops = dict(self._ops)
        for conv, norm in zip(self.block.layers, self.block.layers[1:]):
            if norm.op == "norm":
                folded = self._norms[norm.name].folded(self._convs[conv].weight)
                ops[conv.name] = _of_parts(convolution(conv, *folded))
                ops[norm.name] = _unchanged
        self._ops, self._norms, self._convs = ops, {}, {}

    @property
    def has_norms(self) -> bool:
        """Whether there are statistics to gather."""
        return any(layer.op == "norm" for layer in self.block.layers)

    def __call__(self, x: Features) -> Features:
        """The block's output; in `Chunks`, while not folded, normalised by the batch's statistics."""
        return FORWARDS[self.block.kind](self._ops, self.block, x)  # type: ignore[arg-type,return-value]


class Trie:
    """The subnets of `plans`, each a slice of the supernet beside it."""

    def __init__(self, subnets: Sequence[tuple[Supernet, Plan]]) -> None:
        self._roots: dict[tuple[int, Block], Node] = {}
        for position, (supernet, plan) in enumerate(subnets):
            stem, *blocks = plan.blocks
            node = self._roots.setdefault((id(supernet), stem), Node(supernet, stem))
            for block in blocks:
                node = node.children.setdefault(block, Node(supernet, block))
            node.leaves.append(position)

    def nodes(self) -> Iterator[Node]:
        """Depth first, so that subnets that share much come one after another."""
        stack = list(self._roots.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()

    def run(
        self, images: Callable[[int], Features], leaf: Callable[[Node, Features], None], heads: bool = True
    ) -> None:
        """Runs every subnet on one batch, holding only what a branch still to come needs.

        images: the batch for a resolution. leaf: gets what comes out of a last block, normally logits.
        heads: False leaves out last blocks without norms, which recalibration has no use for.
        """
        for node in self._roots.values():
            _descend(node, images(node.block.in_size), leaf, heads)

    def peak_bytes(self, images: int) -> int:
        """An upper bound, from the plans, on what `run` and the sliced weights take with batches of this size."""
        weights = BYTES * sum(weight_values(node.block) for node in self.nodes())
        return weights + BYTES * images * max(_peak_values(node, 0) for node in self._roots.values())


def _descend(node: Node, x: Features, leaf: Callable[[Node, Features], None], heads: bool) -> None:
    while heads or node.children or node.has_norms:
        x = node(x)
        if node.leaves:
            leaf(node, x)
        if not node.children:
            return
        *others, last = node.children.values()
        for child in others:
            _descend(child, x, leaf, heads)
        node = last


def _peak_values(node: Node, held: int) -> int:
    """The most values of one image held at once, below and including `node`; held: by the branches above."""
    # operations here write new tensors, so up to three live beside what a runtime that works in place would hold
    most = held + 2 * peak_values(node.block)
    if not node.children:
        return most
    *others, last = node.children.values()
    out = node.block.out_channels * node.block.out_size**2
    return max(most, _peak_values(last, held), *(_peak_values(child, held + out) for child in others))


def _unchanged(x: Features) -> Features:
    return x


def _of_parts(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`function` of a tensor, or of each part."""
    return lambda x: x.map(function) if isinstance(x, Chunks) else function(x)
