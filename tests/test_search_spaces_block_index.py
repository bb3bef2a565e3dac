"""The numbered blocks of many architectures are the blocks of their plans."""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces.block_index import BlockIndex, signature
from search_spaces.catalog import SPACES
from search_spaces.plan import plan


@pytest.mark.parametrize("name", SPACES)
def test_numbered_blocks_are_those_of_the_plan(name: str) -> None:
    space, rng = SPACES[name](), np.random.default_rng(0)
    index = BlockIndex(space)
    for _ in range(2):  # the second time many are known
        archs = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(50))]
        for arch, row in zip(archs, index.numbers(archs), strict=True):
            expected = [signature(block) for block in plan(space, arch).blocks]
            assert [index.blocks[number] for number in row if number >= 0] == expected
    assert len(set(index.blocks)) == len(index.blocks)
    assert index.numbers([]).shape == (0, space.num_slots + 2)
