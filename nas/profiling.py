"""`measure_space`: times blocks and whole subnets of a space on this device, for a latency model of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from nas.profiles import Profile
from nas.sampling import spread_sample
from search_spaces.arch import Arch
from search_spaces.block_index import BlockIndex
from search_spaces.blocks import Block
from search_spaces.network import NetworkSpace
from search_spaces.plan import plan
from supernet.subnet import PlainBlock, Subnet
from workers.latency import Setting, Shape, Timing, identity, measure, prepared, require

LEAST_SUBNETS = 20
_GROUP = 32  # networks measured in turns; so many are in memory at a time
_ANCHORS = 6  # of the subnets, measured in every group: what the machine's speed is told by
_SCOUTED = 2000  # samples by which the blocks are found that architectures have, and how often


@dataclass(frozen=True)
class Measured:
    """What was measured: blocks by `signature`, and architectures, as at the machine's usual speed.

    speeds: how much longer the same networks took in each group than they usually did: the machine's own drift.
    """

    blocks: dict[Block, Timing]
    archs: list[tuple[Arch, Timing]]
    speeds: tuple[float, ...] = (1.0,)


def measure_space(
    space: NetworkSpace,
    setting: Setting,
    num_blocks: int,
    num_subnets: int,
    seconds: float,
    seed: int = 0,
    on_group: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Times up to `num_blocks` of the blocks that architectures have most often, and `num_subnets` subnets.

    Half of the subnets are spread over the space, half are random. seconds: that timing may take in all, beside the
    time to build what is timed; five rounds are always made. Weights are random: a dense network takes as long with
    any. on_group: networks measured so far, and in all.
    Raises RuntimeUnavailableError where the runtime or the device is not there.
    """
    rng = np.random.default_rng(seed)
    archs = _different(space, num_subnets, seed, rng)
    things: list[Block | Arch] = [*frequent_blocks(space, num_blocks, rng), *archs]
    # blocks and subnets side by side in each group, so that a slow minute of the machine meets both
    order = rng.permutation(len(things)).tolist()
    groups = [order[start : start + _GROUP] for start in range(0, len(order), _GROUP)]
    timings: dict[int, Timing] = {}
    anchors: list[list[float]] = []  # milliseconds, in each group, of the networks that all groups have
    for group in groups:
        nets = [_net(space, thing, setting.batch_size) for thing in [*archs[:_ANCHORS], *(things[i] for i in group)]]
        with prepared(setting, nets) as calls:
            taken = measure(calls, seconds / len(groups))
        anchors.append([timing.median_ms for timing in taken[:_ANCHORS]])
        timings |= zip(group, taken[_ANCHORS:])
        on_group(len(timings), len(order))
    speeds = _speeds(np.array(anchors))
    for group, speed in zip(groups, speeds):
        timings |= {i: timings[i].scaled(1 / speed) for i in group}
    known = [(thing, timings[i]) for i, thing in enumerate(things)]
    return Measured(
        {thing: timing for thing, timing in known if isinstance(thing, Block)},
        [(thing, timing) for thing, timing in known if isinstance(thing, Arch)],
        speeds,
    )


def _speeds(anchors: np.ndarray) -> tuple[float, ...]:
    """How much longer than usual networks took in each group. anchors: milliseconds, [groups, networks].

    The median over the networks: one that was disturbed in a group says nothing of the others.
    """
    return tuple(np.median(anchors / np.median(anchors, axis=0), axis=1).tolist())


def measure_archs(space: NetworkSpace, setting: Setting, archs: Sequence[Arch], seconds: float) -> list[Timing]:
    """Times whole subnets, in turns; raises RuntimeUnavailableError as `measure_space`."""
    timings: list[Timing] = []
    for start in range(0, len(archs), _GROUP):
        group = archs[start : start + _GROUP]
        with prepared(setting, [_net(space, arch, setting.batch_size) for arch in group]) as calls:
            timings += measure(calls, seconds * len(group) / len(archs))
    return timings


def frequent_blocks(space: NetworkSpace, most: int, rng: np.random.Generator) -> list[Block]:
    """The blocks that uniform samples have most often, at most so many, in a random order."""
    index = BlockIndex(space)
    numbers = index.numbers([space.smallest(), space.largest(), *(space.sample(rng) for _ in range(_SCOUTED))])
    counts = np.bincount(numbers[numbers >= 0], minlength=len(index.blocks))
    return [index.blocks[i] for i in np.argsort(-counts, kind="stable")[:most]]


def _different(space: NetworkSpace, n: int, seed: int, rng: np.random.Generator) -> list[Arch]:
    """Half of them spread over the space, half random; all of a space that has no more."""
    if space.size() <= n:
        return list(space.enumerate())
    found = {arch.key: arch for arch in spread_sample(space, n // 2, seed)}
    while len(found) < n:
        arch = space.sample(rng)
        found.setdefault(arch.key, arch)
    return list(found.values())


def _net(space: NetworkSpace, thing: Block | Arch, batch: int) -> tuple[nn.Module, Shape]:
    if isinstance(thing, Block):
        return PlainBlock(thing), (batch, thing.in_channels, thing.in_size, thing.in_size)
    lowered = plan(space, thing)
    return Subnet(lowered), (batch, lowered.in_channels, lowered.resolution, lowered.resolution)


def profile_space(
    space: NetworkSpace,
    setting: Setting,
    name: str,
    *,
    num_blocks: int = 400,
    num_subnets: int = 120,
    seconds: float = 180,
    seed: int = 0,
    address: str = "local",
    resource: str | None = None,
    on_group: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Measures the space on a device and fits a latency model to it.

    resource: label of the Ray node that is the device, in the cluster at `address`; None measures on this machine.
    The other parameters: `measure_space`. Raises RuntimeUnavailableError where the device lacks the runtime,
    ConnectionError when no cluster answers, ValueError for too few subnets or where no node has the resource.
    """
    if num_subnets < LEAST_SUBNETS:
        raise ValueError(
            f"{num_subnets} subnets are too few to learn a correction from; valid: {LEAST_SUBNETS} or more"
        )
    work = partial(_measured_here, space, setting, num_blocks, num_subnets, seconds, seed)
    if resource is None:
        device, measured = work(on_group)
    else:
        from workers.ray_device import run_on

        device, measured = run_on(resource, work, setting.threads if setting.device == "cpu" else 1, address)
    return Profile.of(name, space, device, measured)


def _measured_here(
    space: NetworkSpace,
    setting: Setting,
    num_blocks: int,
    num_subnets: int,
    seconds: float,
    seed: int,
    on_group: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], Measured]:
    require(setting)
    return identity(setting), measure_space(space, setting, num_blocks, num_subnets, seconds, seed, on_group)
