"""One contract for every evaluator: the reference's answer to every image, in every space, whatever shares a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spaces import NETWORKS
from supernets import random_data, randomised

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.plan import plan
from supernet import evaluators, fast
from supernet.data import ImageData, Split
from supernet.evaluate import predict, recalibrate
from supernet.mixture import Mixture, SharedWeights
from supernet.trie import Trie


def make(name: str, supernet: SharedWeights, data: ImageData, validation: Split | None = None, **options: Any) -> Any:
    split = validation or data.validation
    return evaluators.get(name)(supernet, data.calibration.images, split, data.mean, data.std, **options)


def relatives(space: NetworkSpace, n: int, seed: int = 0) -> list[Arch]:
    """`n` architectures that begin alike in part, the first one twice."""
    rng = np.random.default_rng(seed)
    archs = [space.largest() if space.image_size < 32 else space.smallest()]
    while len(archs) < n - 1:
        archs.append(space.mutate(archs[rng.integers(len(archs))], rng))
    return [*archs, archs[0]]


def answers(supernet: SharedWeights, data: ImageData, arch: Arch) -> torch.Tensor:
    """The reference's, int64 [images]."""
    subnet = supernet.export(arch)
    recalibrate(subnet, data.calibration.images, data.mean, data.std)
    return predict(subnet, data.validation.images, data.mean, data.std).argmax(1)


@pytest.mark.parametrize("name", [name for name in evaluators.EVALUATORS if name != "reference"])
@pytest.mark.parametrize("space", NETWORKS.values(), ids=NETWORKS)
def test_every_image_has_the_references_answer(name: str, space: NetworkSpace) -> None:
    supernet, data = randomised(space).eval(), random_data(space)
    archs = relatives(space, 3)
    for number, arch in enumerate(archs[:2]):
        # scored against the reference's own answers, every image is right
        split = Split(data.validation.images, answers(supernet, data, arch))
        assert make(name, supernet, data, split).evaluate(archs)[number] == {"top1": 1.0}
    assert archs[0] == archs[2]


SPACE = NETWORKS["every_block_strided_and_pooled"]
SUPERNET, DATA = randomised(SPACE).eval(), random_data(SPACE)
REFERENCE = make("reference", SUPERNET, DATA)


@settings(max_examples=12, deadline=None)
@given(seeds=st.lists(st.integers(0, 30), min_size=1, max_size=6), memory=st.sampled_from([1, 200_000, 1 << 30]))
def test_what_else_is_in_the_batch_and_the_memory_change_nothing(seeds: list[int], memory: int) -> None:
    archs = [relatives(SPACE, 6, seed // 5)[seed % 5] for seed in seeds]
    found = make("fast", SUPERNET, DATA, memory=memory).evaluate(archs)
    assert found == [REFERENCE.evaluate([arch])[0] for arch in archs]


def test_nothing_is_an_empty_batch() -> None:
    assert make("fast", SUPERNET, DATA).evaluate([]) == []


def test_members_of_a_mixture_share_nothing() -> None:
    space = NETWORKS["odd_image_3_pools"]
    mixture, data = Mixture(space, 2).eval(), random_data(space)
    with torch.no_grad():
        for number, member in enumerate(mixture.members):
            member.load_state_dict(randomised(space, number).state_dict())
        mixture.router.accuracy.copy_(torch.rand(mixture.router.accuracy.shape, dtype=torch.float64))
        mixture.router.temperature.fill_(100)
    rng = np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(8)]
    assert len({id(mixture.member_of(arch)) for arch in archs}) == 2
    assert make("fast", mixture, data).evaluate(archs) == make("reference", mixture, data).evaluate(archs)


def test_a_near_tie_is_the_references_to_score(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator, archs = make("fast", SUPERNET, DATA), relatives(SPACE, 4)
    found = evaluator.evaluate(archs)
    monkeypatch.setattr(fast, "TIE", 2.0)  # nothing is further apart than that
    assert evaluator.evaluate(archs) == found
    monkeypatch.setattr(fast, "count_correct", lambda *args: len(DATA.validation))
    assert evaluator.evaluate(archs) == [{"top1": 1.0}] * 4
    monkeypatch.setattr(fast, "TIE", -1.0)
    assert evaluator.evaluate(archs) == found


def test_only_the_batches_with_a_near_tie_are_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "BATCH", 16)
    monkeypatch.setattr("supernet.evaluate.BATCH", 16)  # of the reference, too: statistics go by batches
    evaluator = make("fast", SUPERNET, DATA)
    tally = evaluator._tally([evaluator._subnet(SPACE.smallest())])
    assert tally.correct.shape == (1, 3)
    settled = evaluator._settled(SPACE.smallest(), torch.tensor([True, False, True]))
    assert settled.tolist() == tally.correct[0, [0, 2]].tolist()


def test_what_begins_alike_is_one_path_and_is_computed_once() -> None:
    space = NETWORKS["resnet20_pooling"]
    supernet = randomised(space).eval()
    early, late, other = (space.with_pools(space.largest(), pools) for pools in ((1, 7), (1, 8), (0, 8)))
    trie = Trie([(supernet, plan(space, arch)) for arch in (early, late, other, late)])
    alike = 1 + 7  # the stem, and the blocks before the second pool
    assert len(list(trie.nodes())) == 1 + 10 + (11 - alike) + 10
    assert sorted(i for node in trie.nodes() for i in node.leaves) == [0, 1, 2, 3]
    assert [node.leaves for node in trie.nodes() if len(node.leaves) > 1] == [[1, 3]]


def test_groups_keep_to_the_memory() -> None:
    space = NETWORKS["resnet20_pooling"]
    supernet, data = randomised(space).eval(), random_data(space)
    rng = np.random.default_rng(0)
    subnets = [(supernet, plan(space, space.sample(rng))) for _ in range(12)]
    one = max(Trie([subnet]).peak_bytes(fast.BATCH) for subnet in subnets)
    groups = list(make("fast", supernet, data, memory=int(1.2 * one))._groups(subnets))
    assert sorted(i for group in groups for i in group) == list(range(12))
    assert 1 < len(groups) < 12
    assert all(Trie([subnets[i] for i in group]).peak_bytes(fast.BATCH) <= 1.2 * one for group in groups)


def test_logits_that_are_not_finite_are_an_error_and_no_score() -> None:
    supernet = randomised(SPACE)
    with torch.no_grad():
        supernet.head.fc.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        make("fast", supernet, DATA).evaluate([SPACE.smallest()])


def test_an_unknown_evaluator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown evaluator 'quick'; valid: reference, fast"):
        evaluators.get("quick")
