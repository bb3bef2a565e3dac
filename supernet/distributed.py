"""Several processes that train one supernet: who they are, what they average, and what they must agree on.

Every rank holds all weights and computes its equal share of each global batch. With gradients averaged over the ranks
and batch norms that normalise by the global batch, the result depends on the number of ranks by rounding alone, and
by dropout, drop-connect and mixup, which every rank draws for its own share.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from supernet.sync_norm import global_batch_norm, together


class RankError(RuntimeError):
    """The ranks of a distributed training do not fit together; the message names the rank and what differs."""


@dataclass(frozen=True)
class Ranks:
    """The processes of one training run as one of them sees them; with a `size` of 1 nothing is communicated.

    rank: of this process, 0 to `size` - 1. device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"the number of workers is {self.size}; it must be at least 1")

    @property
    def is_main(self) -> bool:
        """Whether this process writes files, records and progress: rank 0 alone does."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its mean over the ranks, in place and with equal bits on every rank.

        This and all else that communicates, batch norms included, raises LostRankError when another rank has ended.

        One all-reduce of one flattened buffer. torch's DistributedDataParallel does not fit here: it reduces during a
        single backward of a forward of its own, and a step sums the gradients of several subnets, each of which leaves
        other parameters untouched.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with together():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds on any rank."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag), device=self.device)
        with together():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def wait(self) -> None:
        """Returns when all ranks have called it."""
        self.any(False)

    def rows(self, batch: int, parts: int) -> Tensor | None:
        """The rows of a global batch that this rank takes: its equal slice of each part, int64; None for all rows.

        batch: images of the global batch. parts: equal consecutive parts of it that a step plan tells apart.
        Raises ValueError where a part cannot be dealt equally.
        """
        if self.size == 1:
            return None
        if batch % (parts * self.size):
            each = f" in {parts} parts" if parts > 1 else ""
            raise ValueError(f"a batch of {batch} images{each} is not divisible by {self.size} ranks")
        return torch.arange(batch).view(parts, self.size, -1)[:, self.rank].reshape(-1)

    def require_agreement(self, **facts: Any) -> None:
        """Raises RankError naming the first rank whose `facts`, JSON values by name, are not those of rank 0."""
        if self.size == 1:
            return
        mine = torch.tensor([_digest(value) for value in facts.values()], device=self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        with together():
            dist.all_gather(everyone, mine)
        for rank, theirs in enumerate(everyone):
            if differs := [name for name, same in zip(facts, (theirs == everyone[0]).tolist()) if not same]:
                raise RankError(f"ranks that disagree on the {', '.join(differs)}: rank {rank} and rank 0")


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The ranks that this process was started among: by torchrun (RANK and WORLD_SIZE are set) or by Ray Train.

    device: "auto", "cpu" or "cuda", of which each rank takes the one of its LOCAL_RANK. A process group that exists
    is used and left alone; one that is made here ends with the block. Without either this process is alone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if not dist.is_initialized() and ("RANK" not in os.environ or size == 1):
        yield ALONE
        return
    owned = not dist.is_initialized()
    chosen = torch.device("cpu")
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        if owned:  # otherwise whoever made the group has chosen
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        chosen = torch.device("cuda", torch.cuda.current_device())
    if owned:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        if owned:
            dist.destroy_process_group()


def synchronize(supernet: nn.Module, ranks: Ranks) -> None:
    """Makes the elastic batch norms of `supernet` normalise by the batch of all ranks while it trains."""
    from supernet.layers import ElasticBatchNorm2d

    if ranks.size == 1:
        return
    for module in supernet.modules():
        if isinstance(module, ElasticBatchNorm2d):
            module.batch_norm = global_batch_norm


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seeds dropout and drop-connect of a distributed step: every rank its own, and no state to be saved."""
    words = json.dumps([seed, step, rank]).encode()
    return int.from_bytes(hashlib.sha256(words).digest()[:7], "little")


def _digest(value: Mapping[str, Any] | Any) -> int:
    """63 bits of the SHA-256 of a JSON value: as an int64 it travels by any backend, and nothing is unpickled."""
    text = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
