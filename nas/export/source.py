"""The source of an exported `model.py`: the classes of the kinds of block that a plan has, and one call a block."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from search_spaces.blocks import Block
from search_spaces.plan import Plan

if TYPE_CHECKING:
    from supernet.data import ImageData

_HERE = Path(__file__).parent
_INDENT = " " * 12

# The call that builds a block of each kind; the names are the block's own. The class is in block_<kind>.tmpl.
CALLS = {
    "stem": "Stem({in_channels}, {out_channels})",
    "imagenet_stem": "Stem({in_channels}, {out_channels})",
    "mobile_stem": "Stem({in_channels}, {out_channels})",
    "basic": (
        "BasicBlock({in_channels}, {out_channels}, kernel={kernel}, stride={stride}, pool={pool}, project={project})"
    ),
    "bottleneck": (
        "BottleneckBlock({in_channels}, {mid_channels}, {out_channels}, kernel={kernel}, stride={stride}, "
        "pool={pool}, project={project})"
    ),
    "mbconv": (
        'MBConvBlock({in_channels}, {mid_channels}, {out_channels}, kernel={kernel}, stride={stride}, pool={pool}, '
        'act="{act}", squeezed={squeezed}, residual={residual})'
    ),
    "head": "Head({in_channels}, {out_channels})",
    "mobile_head": "Head({in_channels}, {mid_channels}, {features}, {out_channels})",
}  # fmt: skip


def model_source(lowered: Plan, key: str, data: ImageData) -> str:
    """The text of a `model.py` that builds this plan's network; `key` names the architecture in its first line."""
    stem, *body, head = lowered.blocks
    kinds = dict.fromkeys(block.kind for block in lowered.blocks)
    classes = [(_HERE / f"block_{kind}.tmpl").read_text(encoding="utf-8").strip() for kind in kinds]
    return Template((_HERE / "model.py.tmpl").read_text(encoding="utf-8")).substitute(
        title=f"{lowered.macs / 1e6:.1f}M MACs, {lowered.params / 1e3:.0f}k parameters: {key}",
        in_channels=lowered.in_channels,
        image_size=lowered.resolution,
        num_classes=lowered.num_classes,
        mean=tuple(round(m, 8) for m in data.mean),
        std=tuple(round(s, 8) for s in data.std),
        classes="\n\n\n".join(classes),
        stem=_call(stem),
        blocks="\n".join(f"{_INDENT}{_call(block)}," for block in body),
        head=_call(head),
    )


def _call(block: Block) -> str:
    squeezed = next((layer.out_channels for layer in block.layers if layer.name == "se_conv1"), 0)
    return CALLS[block.kind].format(**vars(block), squeezed=squeezed)
