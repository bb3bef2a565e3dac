"""`FastEvaluator`: the reference's scores in a fraction of its time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from search_spaces.arch import Arch
from search_spaces.plan import Block, Plan, plan
from supernet.chunks import CACHE_BYTES, Chunks
from supernet.data import Split, normalize
from supernet.evaluate import BATCH, Channels, SupernetEvaluator, exactly
from supernet.mixture import Mixture, SharedWeights
from supernet.model import Supernet
from supernet.subnet import resized
from supernet.trie import Node, Trie

MEMORY = 1 << 30  # bytes
TIE = 2e-5  # of the largest logit: answers nearer to each other than this are the reference's to give


class FastEvaluator:
    """Scores as `SupernetEvaluator` does, and gives the same answer to every image, for all of a batch at once.

    Convolutions run in the memory format and the portions of a batch that suit the processor's caches; norms fold into
    them once their statistics are known; what architectures begin with in common is computed once (`Trie`). All that
    changes the order of additions alone. An image whose two highest logits are so near that this could matter makes
    its architecture the reference's to score.

    memory: bytes that weights and activations of one group of architectures may take, the data aside; a batch is
        evaluated in as many groups as that takes, of one architecture at least.
    """

    def __init__(
        self,
        supernet: SharedWeights,
        calibration: Tensor,
        validation: Split,
        mean: Channels,
        std: Channels,
        device: str = "cpu",
        threads: int = 1,
        memory: int = MEMORY,
    ) -> None:
        self._reference = SupernetEvaluator(supernet, calibration, validation, mean, std, device, threads)
        self._supernet, self._device, self._threads = self._reference.supernet, device, threads
        self._calibration, self._validation, self._mean, self._std = calibration, validation, mean, std
        self._memory = memory
        self._part = _cached_images(supernet) if device == "cpu" else BATCH

    def evaluate(self, archs: Sequence[Arch]) -> list[dict[str, float]]:
        """`{"top1": …}` for each architecture. Raises ValueError when a logit is not finite."""
        subnets = [self._subnet(arch) for arch in archs]
        correct: list[int | None] = [None] * len(archs)
        with exactly(self._threads), torch.no_grad():
            for group in self._groups(subnets):
                counts = self._count([subnets[i] for i in group])
                for position, count in zip(group, counts, strict=True):
                    correct[position] = count
        total = len(self._validation.labels)
        return [
            self._reference.evaluate([arch])[0] if count is None else {"top1": count / total}
            for arch, count in zip(archs, correct, strict=True)
        ]

    def _subnet(self, arch: Arch) -> tuple[Supernet, Plan]:
        supernet = self._supernet
        member = supernet.member_of(arch) if isinstance(supernet, Mixture) else supernet
        return member, plan(member.space, arch)

    def _groups(self, subnets: Sequence[tuple[Supernet, Plan]]) -> Iterator[list[int]]:
        """Positions of the subnets that share most, as many at a time as fit into the memory."""
        group: list[int] = []
        for position in (leaf for node in Trie(subnets).nodes() for leaf in node.leaves):
            if group and Trie([subnets[i] for i in (*group, position)]).peak_bytes(BATCH) > self._memory:
                yield group
                group = []
            group.append(position)
        if group:
            yield group

    def _count(self, subnets: Sequence[tuple[Supernet, Plan]]) -> list[int | None]:
        """Correct answers of each subnet, or None where they are for the reference to count."""
        trie, tally = Trie(subnets), _Tally(len(subnets))
        for node in trie.nodes():
            node.prepare()
        for batch in self._calibration.split(BATCH):
            trie.run(partial(self._parts, batch), _ignore, heads=False)
        for node in trie.nodes():
            node.fold()
        labels = self._validation.labels.to(self._device)
        for images, truth in zip(self._validation.images.split(self._part), labels.split(self._part)):
            trie.run(partial(self._input, images), partial(tally.add, truth))
        return tally.counts()

    def _parts(self, batch: Tensor, size: int) -> Chunks:
        return Chunks([self._input(part, size) for part in batch.split(self._part)])

    def _input(self, images: Tensor, size: int) -> Tensor:
        x = normalize(images, self._mean, self._std, device=self._device)
        return resized(x, size).contiguous(memory_format=torch.channels_last)


class _Tally:
    """Correct answers of each subnet of a trie."""

    def __init__(self, subnets: int) -> None:
        self._correct = [0] * subnets
        self._tied = [False] * subnets

    def add(self, labels: Tensor, node: Node, logits: Tensor) -> None:
        """Counts the answers of the subnets that end in `node`: logits [n, classes], labels [n]."""
        correct, tied = _answers(logits, labels)
        for leaf in node.leaves:
            self._correct[leaf] += correct
            self._tied[leaf] |= tied

    def counts(self) -> list[int | None]:
        """For each subnet; None where an answer hangs on the order of additions."""
        return [None if tied else count for tied, count in zip(self._tied, self._correct, strict=True)]


def _answers(logits: Tensor, labels: Tensor) -> tuple[int, bool]:
    """How many of the highest logits are the label's, and whether one of another class is as good as as high."""
    if not torch.isfinite(logits).all():
        raise ValueError("the network's logits are not finite")
    top = logits.topk(2)
    nearest = (top.values[:, 0] - top.values[:, 1]).min()
    return int((top.indices[:, 0] == labels).sum()), bool(nearest <= TIE * logits.abs().max())


def _cached_images(supernet: SharedWeights) -> int:
    """Images whose widest activations fit into the cache together; it divides a batch, for each size needs kernels."""
    space = supernet.space
    widest = max(_values(block) for block in plan(space, space.largest()).blocks)
    fitting = max(1, CACHE_BYTES // (4 * widest))
    return max(part for part in range(1, BATCH + 1) if BATCH % part == 0 and part <= fitting)


def _values(block: Block) -> int:
    return max(layer.out_channels * layer.out_size**2 for layer in block.layers)


def _ignore(node: Node, features: Chunks) -> None:
    pass
