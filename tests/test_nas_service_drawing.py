"""The picture of an architecture says what its plan says, for every space, and escapes what it is given."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from nas.service import drawing
from search_spaces.catalog import SPACES
from search_spaces.plan import plan

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str, kind: str) -> list[str]:
    return [t.text or "" for t in ElementTree.fromstring(svg).iter(f"{SVG}text") if t.get("class") == f"arch-{kind}"]


@pytest.mark.parametrize("name", SPACES)
def test_it_shows_the_plan(name):
    space = SPACES[name]()
    rng = np.random.default_rng(0)
    for arch in (space.smallest(), space.largest(), *(space.sample(rng) for _ in range(5))):
        svg, lowered = drawing.picture(space, arch), plan(space, arch)
        assert texts(svg, "kernel") == [f"{b.kernel}×{b.kernel}" for b in lowered.blocks[:-1]]
        assert len(texts(svg, "pool")) == len(arch.pool)
        assert texts(svg, "width") == [f"{width} ch" for width in arch.width]
        sizes = list(dict.fromkeys([lowered.resolution, *(b.out_size for b in lowered.blocks[:-1])]))
        assert list(dict.fromkeys(int(re.match(r"\d+", text)[0]) for text in texts(svg, "size"))) == sizes
        assert len(texts(svg, "share")) == len(lowered.blocks)


def test_what_changed_is_marked():
    space = SPACES["digits"]()
    arch = space.largest()
    assert drawing.picture(space, arch).count("var(--over)") == 0
    assert drawing.picture(space, arch, {0, 2}).count("var(--over)") == 2


def test_names_are_escaped():
    space = replace(SPACES["digits"](), name='"><script>alert(1)</script>')
    svg = drawing.picture(space, space.smallest())
    assert "<script" not in svg
    assert ElementTree.fromstring(svg).get("aria-label", "").startswith(space.name)


def test_words_for_those_who_cannot_see_it():
    space = SPACES["digits"]()
    words = drawing.describe(space, space.smallest())
    assert "stage 1: 1 blocks of 16 channels" in words
    assert "max-pools before blocks: " in words


def test_an_architecture_of_another_space_is_refused():
    with pytest.raises(ValueError, match="width"):
        drawing.picture(SPACES["digits"](), replace(SPACES["digits"]().largest(), width=(7, 7)))
