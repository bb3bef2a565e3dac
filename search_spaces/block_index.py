"""The different blocks that architectures are made of, numbered: for whatever a network's blocks add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search_spaces import plan as planning
from search_spaces.arch import Arch
from search_spaces.batch import batch, entries, stem_widths
from search_spaces.blocks import Block
from search_spaces.network import NetworkSpace


def signature(block: Block) -> Block:
    """The block without what changes nothing of what it computes: its slot and its level."""
    return replace(block, slot=-1, level=0)


class BlockIndex:
    """Numbers the blocks of a space from 0 as they are met.

    `blocks` holds the `signature` of each; two that are equal have one number.
    """

    def __init__(self, space: NetworkSpace) -> None:
        self.space = space
        self.blocks: list[Block] = []
        self._number: dict[Block, int] = {}
        self._of_code: dict[int, int] = {}

    def numbers(self, archs: Sequence[Arch]) -> np.ndarray:
        """The blocks of canonical architectures, stem first and head last, int64 [len(archs), slots + 2]; -1 where a
        slot is inactive.
        """
        if not len(archs):
            return np.zeros((0, self.space.num_slots + 2), dtype=np.int64)
        many, known = batch(self.space, archs), len(entries(self.space).choices)
        sides = max(self.space.resolution_choices) + 1
        # an entry, a size and whether there is a pool; stems and heads come behind the entries
        slots = np.where(many.active, (many.entries * sides + many.before) * 2 + (many.work < many.before), -1)
        stem = ((known + many.stem) * sides + many.resolution) * 2
        head = ((known + len(stem_widths(self.space)) + many.last) * sides + many.last_size) * 2
        codes, which = np.unique(np.column_stack([stem, slots, head]), return_inverse=True)
        found = [self._of_code[code] if code in self._of_code else self._new(code, sides) for code in codes.tolist()]
        return np.array(found)[which.reshape(len(archs), -1)]

    def _new(self, code: int, sides: int) -> int:
        if code == -1:
            return -1
        block = signature(self._build(*divmod(code // 2, sides), pool=bool(code % 2)))
        number = self._number.setdefault(block, len(self.blocks))
        if number == len(self.blocks):
            self.blocks.append(block)
        self._of_code[code] = number
        return number

    def _build(self, entry: int, size: int, pool: bool) -> Block:
        known, stems = entries(self.space), stem_widths(self.space)
        if entry < len(known.choices):
            return known.block(self.space, entry, pool, size)
        if entry < len(known.choices) + len(stems):
            return planning.stem(self.space, stems[entry - len(known.choices)], size)
        width = self.space.stages[-1].widths[entry - len(known.choices) - len(stems)]
        return planning.head(self.space, width, 0, size)
