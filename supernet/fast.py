"""`FastEvaluator`: the reference's scores in a fraction of its time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from search_spaces.arch import Arch
from search_spaces.plan import Block, Plan, plan
from supernet.chunks import CACHE_BYTES, Chunks
from supernet.data import Split, normalize
from supernet.evaluate import BATCH, Channels, NotFiniteError, calibration_batches, count_correct, exactly, recalibrate
from supernet.mixture import Mixture, SharedWeights
from supernet.model import Supernet
from supernet.subnet import resized
from supernet.trie import Node, Trie

MEMORY = 1 << 30  # bytes
TIE = 2e-6  # of the largest logit: 4 times the most that benchmarks/evaluate.py saw rounding move two logits apart


class FastEvaluator:
    """Scores as `SupernetEvaluator` does, and gives the same answer to every image, for all of a batch at once.

    Convolutions run in the memory format and the portions of a batch that suit the processor's caches; norms fold into
    them once their statistics are known; what architectures begin with in common is computed once (`Trie`). All that
    changes the order of additions alone. Where the two highest logits of an image are so near that this could matter,
    its batch is scored once more as the reference does.

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
        self._supernet, self._device, self._threads = supernet.to(device).eval(), device, threads
        self._calibration, self._validation, self._mean, self._std = calibration, validation, mean, std
        self._memory = memory

    def evaluate(self, archs: Sequence[Arch]) -> list[dict[str, float]]:
        """`{"top1": …}` for each architecture. Raises NotFiniteError when a logit is not finite."""
        subnets = [self._subnet(arch) for arch in archs]
        correct = [0] * len(archs)
        with exactly(self._threads), torch.no_grad():
            for group in self._groups(subnets):
                tally = self._tally([subnets[i] for i in group])
                for i, counts, tied in zip(group, tally.correct, tally.tied, strict=True):
                    if tied.any():
                        counts[tied] = self._settled(archs[i], tied)
                    correct[i] = int(counts.sum())
        return [{"top1": count / len(self._validation)} for count in correct]

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

    def _tally(self, subnets: Sequence[tuple[Supernet, Plan]]) -> _Tally:
        trie, tally = Trie(subnets), _Tally(len(subnets), math.ceil(len(self._validation) / BATCH))
        part = _cached_images([plan for _, plan in subnets]) if self._device == "cpu" else BATCH
        for node in trie.nodes():
            node.prepare()
        for calibrating in calibration_batches(self._calibration):
            trie.run(partial(self._parts, calibrating.split(part)), _ignore, heads=False)
        for node in trie.nodes():
            node.fold()
        for number, batch in enumerate(self._batches()):
            labels = batch.labels.to(self._device).split(part)
            for images, truth in zip(batch.images.split(part), labels, strict=True):
                trie.run(partial(self._input, images), partial(tally.add, number, truth))
        return tally

    def _settled(self, arch: Arch, batches: Tensor) -> Tensor:
        """Correct answers in some of the validation batches, as the reference counts them: int64 [batches.sum()]."""
        subnet = self._supernet.export(arch)
        recalibrate(subnet, self._calibration, self._mean, self._std)
        chosen = [batch for batch, is_tied in zip(self._batches(), batches.tolist(), strict=True) if is_tied]
        return torch.tensor([count_correct(subnet, batch, self._mean, self._std) for batch in chosen])

    def _batches(self) -> Iterator[Split]:
        """The validation split as the reference takes it."""
        yield from map(Split, self._validation.images.split(BATCH), self._validation.labels.split(BATCH))

    def _parts(self, batch: Sequence[Tensor], size: int) -> Chunks:
        return Chunks([self._input(part, size) for part in batch])

    def _input(self, images: Tensor, size: int) -> Tensor:
        x = normalize(images, self._mean, self._std, device=self._device)
        return resized(x, size).contiguous(memory_format=torch.channels_last)


class _Tally:
    """The answers of a trie's subnets.

    correct: int64 [subnets, batches]. tied: bool, likewise: whether an answer in the batch hangs on rounding.
    """

    def __init__(self, subnets: int, batches: int) -> None:
        self.correct = torch.zeros(subnets, batches, dtype=torch.int64)
        self.tied = torch.zeros(subnets, batches, dtype=torch.bool)

    def add(self, batch: int, labels: Tensor, node: Node, logits: Tensor) -> None:
        """Counts the answers of the subnets that end in `node`: logits [n, classes], labels [n]."""
        if not torch.isfinite(logits).all():
            raise NotFiniteError
        top = logits.topk(2)
        nearest = (top.values[:, 0] - top.values[:, 1]).min()
        self.correct[node.leaves, batch] += (top.indices[:, 0] == labels).sum().cpu()
        self.tied[node.leaves, batch] |= (nearest <= TIE * logits.abs().max()).cpu()


def _cached_images(plans: Sequence[Plan]) -> int:
    """Images whose widest activations fit into the cache together; it divides a batch, for each size needs kernels."""
    fitting = max(1, CACHE_BYTES // (4 * max(_values(block) for plan in plans for block in plan.blocks)))
    return max(part for part in range(1, BATCH + 1) if BATCH % part == 0 and part <= fitting)


def _values(block: Block) -> int:
    return max(layer.out_channels * layer.out_size**2 for layer in block.layers)


def _ignore(node: Node, features: Chunks) -> None:
    pass
