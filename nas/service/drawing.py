"""Pictures of architectures as SVG texts: stages with depth, width and kernel, where they pool, what each block costs.

Colours are CSS variables of `nas.service.theme`, so one picture serves the dark and the light page. Names from a space
are untrusted and escaped.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from nas.quantities import show_quantity
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.plan import Block, Plan, plan

_TOP, _MIDDLE, _TALL = 52, 122, 118  # the labels' foot, the axis through all blocks, pixels of the largest map
_SIZES, _BARS, _BAR_TALL = 204, 290, 56  # where the sizes of the maps stand, the foot of the bars, the longest bar
_HEIGHT = 310
_POOL = 30
_GAP = 5
_STAGES = 6  # colours of stages in the theme: --stage-0, …


@dataclass(frozen=True)
class _Placed:
    """A block with its stage (None: stem or head) and where it stands: left edge and width in pixels."""

    block: Block
    stage: int | None
    x: float
    width: float

    @property
    def center(self) -> float:
        return self.x + self.width / 2


def picture(space: NetworkSpace, arch: Arch, changed: Collection[int] = ()) -> str:
    """The architecture as an `<svg>`, from the image on the left to the classes on the right.

    Height of a block is the side of its feature map (logarithmic), width its channels; the bars below are its share of
    the MACs. changed: slots of blocks to be marked. Raises ValueError where `arch` is not of `space`.
    """
    lowered = plan(space, arch)
    placed, end = _place(space, lowered)
    parts = [
        _axis(end),
        _image(lowered),
        *(_pool(p, lowered) for p in placed if p.block.pool),
        *(_block(p, lowered, p.block.slot in changed) for p in placed),
        *_stages(space, arch, placed),
        *_sizes(placed),
        *_bars(placed, lowered),
        _classes(end, lowered),
    ]
    return _svg(end + 96, _HEIGHT, describe(space, arch), parts)


def describe(space: NetworkSpace, arch: Arch) -> str:
    """The picture in words, for those who cannot see it."""
    lowered = plan(space, arch)
    stages = "; ".join(
        f"stage {i + 1}: {depth} blocks of {width} channels"
        for i, (depth, width) in enumerate(zip(arch.depth, arch.width))
    )
    pools = ", ".join(str(n) for n in pool_positions(space, arch)) or "none"
    return (
        f"{space.name}: {lowered.resolution} by {lowered.resolution} pixels; {stages}; "
        f"max-pools before blocks: {pools}; "
        f"{show_quantity(lowered.macs)} MACs, {show_quantity(lowered.params)} parameters"
    )


def pool_positions(space: NetworkSpace, arch: Arch) -> list[int]:
    """The blocks that a max-pool precedes, counted from 1 through the active blocks."""
    active = space.active_slots(arch.depth)
    return [active.index(slot) + 1 for slot in arch.pool]


def block_name(block: Block, position: int) -> str:
    """What people call a block: stem, head, or its number among the active ones."""
    if block.slot >= 0:
        return f"block {position}"
    return "head" if "head" in block.kind else "stem"


def sparkline(values: Sequence[float], label: str, width: int = 96, height: int = 26) -> str:
    """A line without axes; empty for fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{2 + i * (width - 4) / (len(values) - 1):.1f},{height - 3 - (v - low) / span * (height - 6):.1f}"
        for i, v in enumerate(values)
    )
    line = (
        f'<polyline points="{points}" fill="none" stroke="var(--front)" stroke-width="1.75" stroke-linejoin="round"/>'
    )
    return _svg(width, height, label, [line])


def _place(space: NetworkSpace, lowered: Plan) -> tuple[list[_Placed], float]:
    """Every block with its place, and where the last one ends."""
    most = max(b.out_channels for b in lowered.blocks[:-1])
    x, before, placed = 62.0, None, list[_Placed]()
    for block in lowered.blocks:
        stage = space.stage_of[block.slot] if block.slot >= 0 else None
        x += (_GAP if stage == before else 14) + (_POOL if block.pool else 0)
        width = 22 if "head" in block.kind else 27 + 23 * math.sqrt(block.out_channels / most)
        placed.append(_Placed(block, stage, x, width))
        x, before = x + width, stage
    return placed, x


def _tall(size: int, lowered: Plan) -> float:
    """Pixels of the picture for a feature map of `size` pixels a side."""
    return 24 + (_TALL - 24) * math.log2(max(size, 1)) / max(math.log2(lowered.resolution), 1)


def _color(stage: int | None) -> str:
    return "var(--stage-end)" if stage is None else f"var(--stage-{stage % _STAGES})"


def _axis(end: float) -> str:
    return f'<line x1="46" y1="{_MIDDLE}" x2="{end + 18:.0f}" y2="{_MIDDLE}" stroke="var(--line)" stroke-width="2"/>'


def _image(lowered: Plan) -> str:
    half = _tall(lowered.resolution, lowered) / 2
    return (
        f'<rect x="34" y="{_MIDDLE - half:.0f}" width="12" height="{2 * half:.0f}" rx="3" fill="none" '
        f'stroke="var(--muted)" stroke-width="1.5" stroke-dasharray="3 3"/>'
        + _text(40, _SIZES, f"{lowered.resolution}²", "size")
        + _text(40, _TOP - 16, "image", "soft")
        + _text(40, _TOP - 2, f"{lowered.in_channels} ch", "soft")
    )


def _block(placed: _Placed, lowered: Plan, changed: bool) -> str:
    block, x = placed.block, placed.x
    left, right = _tall(block.work_size, lowered) / 2, _tall(block.out_size, lowered) / 2
    if "head" in block.kind:
        left = right = _tall(1, lowered) / 2 + 8
    points = " ".join(
        f"{px:.1f},{py:.1f}"
        for px, py in (
            (x, _MIDDLE - left), (x + placed.width, _MIDDLE - right),
            (x + placed.width, _MIDDLE + right), (x, _MIDDLE + left),
        )
    )  # fmt: skip
    mark = ' stroke="var(--over)" stroke-width="3"' if changed else ' stroke="var(--surface)" stroke-width="1"'
    kernel = (
        "" if "head" in block.kind else _text(placed.center, _MIDDLE + 4, f"{block.kernel}×{block.kernel}", "kernel")
    )
    return (
        f'<g class="block"><title>{escape(_tooltip(block, lowered))}</title>'
        f'<polygon points="{points}" fill="{_color(placed.stage)}" stroke-linejoin="round"{mark}/>{kernel}</g>'
    )


def _tooltip(block: Block, lowered: Plan) -> str:
    position = [b.slot for b in lowered.blocks].index(block.slot) if block.slot >= 0 else 0
    stride = f", stride {block.stride}" if block.stride > 1 else ""
    expand = f", {block.mid_channels} inside" if block.mid_channels else ""
    return (
        f"{block_name(block, position)} ({block.kind}): {block.in_channels} to {block.out_channels} channels{expand}, "
        f"kernel {block.kernel}×{block.kernel}{stride}, {block.in_size} to {block.out_size} pixels, "
        f"{show_quantity(block.macs)} MACs ({block.macs / lowered.macs:.1%}), {show_quantity(block.params)} parameters"
    )


def _pool(placed: _Placed, lowered: Plan) -> str:
    """A funnel between two blocks: from the size before to the size after."""
    block, x = placed.block, placed.x - _POOL + 1
    before, after = _tall(block.in_size, lowered) / 2, _tall(block.work_size, lowered) / 2
    right = placed.x - 4
    return (
        f"<g><title>2×2 max-pool: {block.in_size} to {block.work_size} pixels</title>"
        f'<polygon points="{x:.1f},{_MIDDLE - before:.1f} {right:.1f},{_MIDDLE - after:.1f} {right:.1f},'
        f'{_MIDDLE + after:.1f} {x:.1f},{_MIDDLE + before:.1f}" fill="var(--pool)" stroke="var(--pool-line)" '
        f'stroke-width="1.5" stroke-linejoin="round"/>' + _text((x + right) / 2, _MIDDLE + 4, "½", "pool") + "</g>"
    )


def _stages(space: NetworkSpace, arch: Arch, placed: Sequence[_Placed]) -> Iterator[str]:
    """A bracket over each stage: its number, depth of the deepest, channels."""
    for stage, members in groupby(placed, key=lambda p: p.stage):
        blocks = list(members)
        first, last = blocks[0].x, blocks[-1].x + blocks[-1].width
        middle = (first + last) / 2
        if stage is None:
            if "head" in blocks[0].block.kind:
                yield _text(middle, _TOP - 2, "head", "soft")
            else:
                yield _text(middle, _TOP - 16, "stem", "soft")
                yield _text(middle, _TOP - 2, f"{blocks[0].block.out_channels} ch", "soft")
            continue
        deepest = space.stages[stage].depths[-1]
        yield _text(
            middle,
            14,
            f"{len(blocks)} of {deepest}" if len(space.stages[stage].depths) > 1 else f"{deepest} deep",
            "soft",
        )
        yield _text(middle, 30, f"{arch.width[stage]} ch", "width")
        yield (
            f'<path d="M{first:.1f} {_TOP - 8} v-6 H{last:.1f} v6" fill="none" '
            f'stroke="{_color(stage)}" stroke-width="2.5"/>'
        )


def _sizes(placed: Sequence[_Placed]) -> Iterator[str]:
    """Under each run of blocks of one feature-map size: a bracket and the size."""
    for size, members in groupby(placed[:-1], key=lambda p: p.block.out_size):
        blocks = list(members)
        first, last = blocks[0].x, blocks[-1].x + blocks[-1].width
        bracket = f"M{first:.1f} {_SIZES - 18} v5 H{last:.1f} v-5"
        yield f'<path d="{bracket}" fill="none" stroke="var(--line)" stroke-width="1.5"/>'
        label = f"{size}×{size}" if last - first > 44 else f"{size}²"
        yield _text((first + last) / 2, _SIZES, label, "size")


def _bars(placed: Sequence[_Placed], lowered: Plan) -> Iterator[str]:
    """MACs of each block, the longest bar for the largest share."""
    most = max(p.block.macs for p in placed) or 1
    yield f'<line x1="62" y1="{_BARS}" x2="{placed[-1].x + placed[-1].width:.0f}" y2="{_BARS}" stroke="var(--line)"/>'
    yield _text(40, _BARS - 2, "MACs", "soft")
    for p in placed:
        tall = max(1.5, _BAR_TALL * p.block.macs / most)
        share = p.block.macs / lowered.macs
        yield (
            f'<rect x="{p.x:.1f}" y="{_BARS - tall:.1f}" width="{p.width:.1f}" height="{tall:.1f}" rx="2" '
            f'fill="{_color(p.stage)}"><title>{escape(_tooltip(p.block, lowered))}</title></rect>'
        )
        yield _text(p.center, _BARS + 14, f"{share:.0%}" if share >= 0.005 else "<1%", "share")


def _classes(end: float, lowered: Plan) -> str:
    return _text(end + 22, _MIDDLE + 4, f"{lowered.num_classes} classes", "soft", "start")


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="arch-{kind}">{escape(text)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
