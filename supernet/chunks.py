"""`Chunks`: one batch as several small tensors, whose every operation finds in the cache what the last one wrote.

A batch of 250 feature maps is tens of megabytes: each operation on it waits for memory, and each new result for pages
from the system. The statistics of a batch norm need the whole batch, the operations do not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

CACHE_BYTES = 1 << 22  # of the widest activations at once: what a core's cache holds, by benchmarks/evaluate.py


class Chunks:
    """The parts of a batch, in order. Functions of torch apply to each part; `+` and `*` pair up the parts."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Tensor],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Chunks:
        first, *others = args
        return first.map(lambda part: function(part, *others, **(kwargs or {})))

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """`function` of each part."""
        return type(self)([function(part) for part in self.parts])

    def __add__(self, other: Chunks) -> Chunks:
        return Chunks([a + b for a, b in zip(self.parts, other.parts, strict=True)])

    def __mul__(self, other: Chunks) -> Chunks:
        return Chunks([a * b for a, b in zip(self.parts, other.parts, strict=True)])

    def mean(self, *args: Any, **kwargs: Any) -> Chunks:
        """`Tensor.mean` over dimensions other than the batch's."""
        return self.map(lambda part: part.mean(*args, **kwargs))

    def flatten(self, start_dim: int) -> Chunks:
        """`Tensor.flatten` of dimensions after the batch's."""
        return self.map(lambda part: part.flatten(start_dim))


class Statistics:
    """A batch norm's cumulative average of batch statistics, gathered batch by batch.

    norm: gives affine vectors and epsilon; nothing is written to it.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self._norm = norm
        self._mean = torch.zeros_like(norm.running_mean, dtype=torch.float64)  # type: ignore[arg-type]
        self._var = torch.zeros_like(self._mean)
        self._batches = 0

    def __call__(self, batch: Chunks) -> Chunks:
        """`batch` normalised by its own statistics, which are taken note of: float [n, C, H, W] in parts."""
        first = batch.parts[0]
        total, squares, n = torch.zeros_like(self._mean), torch.zeros_like(self._mean), 0
        for part in batch.parts:
            rows = part.permute(0, 2, 3, 1).flatten(0, 2)
            # sums in fp32 within a part and in fp64 between parts: more exact than one sum over the batch in fp32
            total += rows.sum(0)
            squares += (rows * rows).sum(0)
            n += len(rows)
        if n == 1:
            raise ValueError(f"a batch norm needs more than one value per channel, got input size {tuple(first.shape)}")
        mean = total / n
        var = (squares / n - mean * mean).clamp_(min=0)
        self._mean += mean
        self._var += var * (n / (n - 1))  # running statistics are of the population, as in torch
        self._batches += 1
        norm, of_batch = self._norm, (mean.to(first.dtype), var.to(first.dtype))
        return batch.map(lambda part: nn.functional.batch_norm(part, *of_batch, norm.weight, norm.bias, eps=norm.eps))

    def folded(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution and this norm behind it as one. At least one batch must have been seen."""
        norm, (mean, var) = self._norm, (total / self._batches for total in (self._mean, self._var))
        scale = norm.weight.double() / torch.sqrt(var + norm.eps)
        bias = norm.bias.double() - mean * scale
        return (weight.double() * scale[:, None, None, None]).to(weight.dtype), bias.to(weight.dtype)
