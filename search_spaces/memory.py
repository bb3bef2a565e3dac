"""Peak memory of a network's activations, exactly, by liveness: which tensors are held at each step of each block.

The convention is that of a runtime for inference in fp32 on one image: a tensor is held from the step that writes it to
the last one that reads it, while a step runs its inputs and its output are both held, and norms, activations, sums and
products are done in place. What a runtime needs beside the tensors (weights, im2col buffers) is not in the figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from search_spaces.blocks import Block, after_stride

BYTES = 4  # of a value in fp32


class Held(NamedTuple):
    """Channels held at one step, by how large their feature maps are.

    before: of the block's input. work: after its pool. out: of its output. pixel: of one pixel. half: after the first
    convolution of a stem that halves twice.
    """

    before: int = 0
    work: int = 0
    out: int = 0
    pixel: int = 0
    half: int = 0


def steps(block: Block) -> tuple[Held, ...]:
    """What is held at each step of a block."""
    pooled = (Held(before=block.in_channels, work=block.in_channels),) if block.pool else ()
    return pooled + STEPS[block.kind](block)


def peak_values(block: Block) -> int:
    """The most values that are held at once while the block runs on one image."""
    half = after_stride(block.in_size, 2)
    sizes = np.array([block.in_size, block.work_size, block.out_size, 1, half])
    return int((np.array(steps(block)) @ sizes**2).max())


def weight_values(block: Block) -> int:
    """Numbers that its weights are stored as: parameters, and the two running statistics of each norm."""
    return block.params + sum(2 * layer.out_channels for layer in block.layers if layer.op == "norm")


def _stem(b: Block) -> tuple[Held, ...]:
    return (Held(before=b.in_channels, out=b.out_channels),)


def _imagenet_stem(b: Block) -> tuple[Held, ...]:
    c = b.out_channels
    return Held(before=b.in_channels, half=c), Held(half=c, out=c)


def _mobile_stem(b: Block) -> tuple[Held, ...]:
    c = b.out_channels
    return Held(before=b.in_channels, out=c), Held(out=2 * c), Held(out=3 * c)


def _basic(b: Block) -> tuple[Held, ...]:
    x, c = b.in_channels, b.out_channels
    return Held(work=x, out=c), Held(work=x, out=2 * c), *_shortcut(b)


def _bottleneck(b: Block) -> tuple[Held, ...]:
    x, mid = b.in_channels, b.mid_channels
    return (
        Held(work=x + mid),
        Held(work=x + mid, out=mid),
        Held(work=x, out=mid + b.out_channels),
        *_shortcut(b),
    )


def _shortcut(b: Block) -> tuple[Held, ...]:
    """While it is computed, the output of the branch waits for it."""
    x, c = b.in_channels, b.out_channels
    if b.stride == 1:
        return (Held(work=x, out=2 * c),) if b.project else ()
    return (Held(work=x, out=x + c), *((Held(out=x + 2 * c),) if b.project else ()))


def _mbconv(b: Block) -> tuple[Held, ...]:
    mid = b.mid_channels
    x = b.in_channels if b.residual else 0  # held to the end for the shortcut
    squeezed = next((layer.out_channels for layer in b.layers if layer.name == "se_conv1"), 0)
    attention = (Held(work=x, out=mid, pixel=mid + squeezed),) if b.se else ()
    return (
        Held(work=b.in_channels + mid),
        Held(work=x + mid, out=mid),
        *attention,
        Held(work=x, out=mid + b.out_channels),
    )


def _head(b: Block) -> tuple[Held, ...]:
    return Held(before=b.in_channels, pixel=b.in_channels), Held(pixel=b.in_channels + b.out_channels)


def _mobile_head(b: Block) -> tuple[Held, ...]:
    mid = b.mid_channels
    return (
        Held(before=b.in_channels + mid),
        Held(before=mid, pixel=mid),
        Held(pixel=mid + b.features),
        Held(pixel=b.features + b.out_channels),
    )


STEPS: dict[str, Callable[[Block], tuple[Held, ...]]] = {
    "stem": _stem,
    "imagenet_stem": _imagenet_stem,
    "mobile_stem": _mobile_stem,
    "basic": _basic,
    "bottleneck": _bottleneck,
    "mbconv": _mbconv,
    "head": _head,
    "mobile_head": _mobile_head,
}
