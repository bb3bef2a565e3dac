"""`NetworkSpace`: residual networks whose depth, width, kernel sizes and pooling positions are all elastic at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from search_spaces.arch import Arch
from search_spaces.space import Gene, Space

_MOST = 1 << 16  # beyond this a misplaced zero is likelier than a network


@dataclass(frozen=True)
class Stage:
    """A run of blocks of equal width.

    depths: how many blocks may be active; the first ones are. At least 1.
    widths: channels to choose from.
    kernels: odd kernel sizes to choose from, for each block on its own.
    Every list is ascending and without repetition.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    kernels: tuple[int, ...] = (3,)

    def __post_init__(self) -> None:
        for name in ("depths", "widths", "kernels"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or any(isinstance(v, bool) or not isinstance(v, int) or not 1 <= v <= _MOST for v in values):
                raise ValueError(f"stage {name} must be positive integers of at most {_MOST}, got {values!r}")
            if list(values) != sorted(set(values)):
                raise ValueError(f"stage {name} must ascend without repetition, got {values!r}")
        if even := [k for k in self.kernels if k % 2 == 0]:
            raise ValueError(f"stage kernels must be odd, got {even[0]}")


@dataclass(frozen=True)
class NetworkSpace(Space[Arch]):
    """Stem, stages of basic residual blocks with stride 1, and `num_pools` 2x2 max-pools before active blocks.

    Depth keeps the first blocks of a stage (Once-for-All, Cai et al. 2020); a pool may stand before any active block
    and at most once there (Balanced Mixture of SuperNets, Javan et al. 2023). Block slots are numbered through all
    stages from 0, at the largest depth. Raises ValueError naming the field when a value makes no network.
    """

    name: str
    stages: tuple[Stage, ...]
    num_pools: int = 2
    in_channels: int = 3
    image_size: int = 32
    num_classes: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a text, got {self.name!r}")
        object.__setattr__(self, "stages", tuple(self.stages))
        if not self.stages:
            raise ValueError("stages: a network needs at least one stage")
        for field, low in (("num_pools", 0), ("in_channels", 1), ("image_size", 1), ("num_classes", 2)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{field} must be an integer of at least {low}, got {value!r}")
        fewest = sum(stage.depths[0] for stage in self.stages)
        if self.num_pools > fewest:
            raise ValueError(f"num_pools is {self.num_pools}, but the shallowest network has {fewest} blocks")
        if self.image_size >> self.num_pools < 1:
            raise ValueError(f"image_size {self.image_size} is too small for num_pools {self.num_pools}")

    # Layout of the block slots

    @cached_property
    def num_slots(self) -> int:
        """Blocks of the deepest network."""
        return sum(stage.depths[-1] for stage in self.stages)

    @cached_property
    def _slots(self) -> tuple[range, ...]:
        ends = list(itertools.accumulate(stage.depths[-1] for stage in self.stages))
        return tuple(range(end - stage.depths[-1], end) for stage, end in zip(self.stages, ends))

    def stage_slots(self, stage: int) -> range:
        """The slots of a stage, active or not."""
        return self._slots[stage]

    @cached_property
    def stage_of(self) -> tuple[int, ...]:
        """The stage of every slot."""
        return tuple(i for i, slots in enumerate(self._slots) for _ in slots)

    def active_slots(self, depth: Sequence[int]) -> list[int]:
        """The slots in use at these depths, ascending."""
        return [slot for slots, d in zip(self._slots, depth) for slot in slots[:d]]

    def projects(self, slot: int) -> bool:
        """Whether the block's shortcut is a 1x1 convolution: first of a stage whose width can differ from the last."""
        stage = self.stage_of[slot]
        if stage == 0 or slot != self._slots[stage][0]:
            return False
        before, here = self.stages[stage - 1].widths, self.stages[stage].widths
        return not (before == here and len(here) == 1)

    def size_at(self, level: int) -> int:
        """Feature-map height and width in pixels after `level` poolings."""
        return self.image_size >> level

    # Genes

    @cached_property
    def _genes(self) -> tuple[Gene, ...]:
        slots = tuple(range(self.num_slots))
        return (
            *(Gene(f"depth{i}", s.depths, ordered=True) for i, s in enumerate(self.stages)),
            *(Gene(f"width{i}", s.widths, ordered=True) for i, s in enumerate(self.stages)),
            *(Gene(f"kernel{t}", self.stages[s].kernels, ordered=True) for t, s in enumerate(self.stage_of)),
            *(Gene(f"pool{i}", slots, ordered=True) for i in range(self.num_pools)),
        )

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Depth and width per stage, kernel per slot, and the slot of each pool."""
        return self._genes

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """Index of every gene's choice."""
        values = (*arch.depth, *arch.width, *arch.kernel, *arch.pool)
        return tuple(gene.choices.index(v) for gene, v in zip(self._genes, values, strict=True))

    def decode(self, indices: Sequence[int]) -> Arch:
        """The canonical architecture of these choices."""
        values = [gene.choices[i] for gene, i in zip(self._genes, indices, strict=True)]
        n, m = len(self.stages), self.num_slots
        bounds = [0, n, 2 * n, 2 * n + m, len(values)]
        depth, width, kernel, pool = (tuple(values[a:b]) for a, b in itertools.pairwise(bounds))
        return self.canonical(Arch(depth, width, kernel, pool, self.image_size))  # type: ignore[arg-type]

    def canonical(self, arch: Arch) -> Arch:
        """`arch` with every gene that has no effect at its filler, so that equal networks are equal architectures.

        The kernel of an inactive slot becomes the stage's smallest. A pool before an inactive slot, or before a slot
        that has one already, moves to the next active slot that is free, or to the last such where none follows.
        """
        active = self.active_slots(arch.depth)
        is_active = set(active)
        kernel = tuple(
            k if slot in is_active else self.stages[self.stage_of[slot]].kernels[0]
            for slot, k in enumerate(arch.kernel)
        )
        free = list(active)
        for wanted in sorted(arch.pool):
            if not free:
                break  # more pools than blocks: `validate` says so
            free.remove(next((slot for slot in free if slot >= wanted), free[-1]))
        pool = tuple(sorted(is_active - set(free)))
        return Arch(tuple(arch.depth), tuple(arch.width), kernel, pool, arch.resolution)

    def validate(self, arch: Arch) -> None:
        """Raises ValueError naming the gene, its value and the valid ones, when `arch` is not canonical here."""
        _check_choices("depth", arch.depth, [s.depths for s in self.stages])
        _check_choices("width", arch.width, [s.widths for s in self.stages])
        _check_choices("kernel", arch.kernel, [self.stages[s].kernels for s in self.stage_of])
        if arch.resolution != self.image_size:
            raise ValueError(f"gene resolution is {arch.resolution}; valid: {self.image_size}")
        if arch.expand:
            raise ValueError(f"gene expand is {arch.expand}; space {self.name!r} has none")
        active = self.active_slots(arch.depth)
        if len(arch.pool) != self.num_pools or any(b <= a for a, b in itertools.pairwise(arch.pool)):
            raise ValueError(f"gene pool is {arch.pool}; valid: {self.num_pools} different slots, ascending")
        for slot in arch.pool:
            if slot not in active:
                raise ValueError(f"gene pool is {arch.pool}; valid slots at depth {arch.depth}: {active}")
        for slot in set(range(self.num_slots)) - set(active):
            filler = self.stages[self.stage_of[slot]].kernels[0]
            if arch.kernel[slot] != filler:
                raise ValueError(
                    f"gene kernel[{slot}] is {arch.kernel[slot]}, but the slot is inactive; valid: {filler}"
                )

    def arch_from_dict(self, data: Mapping[str, Any]) -> Arch:
        """The canonical architecture from its JSON form; `resolution` may be left out. Raises as `validate` does."""
        arch = Arch.from_dict({"resolution": self.image_size, **data} if isinstance(data, Mapping) else data)
        _check_choices("depth", arch.depth, [s.depths for s in self.stages])
        _check_choices("kernel", arch.kernel, [self.stages[s].kernels for s in self.stage_of])
        slots = range(self.num_slots)
        if len(set(arch.pool)) != self.num_pools or any(slot not in slots for slot in arch.pool):
            raise ValueError(f"gene pool is {arch.pool}; valid: {self.num_pools} different slots of 0 to {slots[-1]}")
        canonical = self.canonical(arch) if not arch.expand else arch
        self.validate(canonical)
        return canonical

    # Members of the space

    def sample(self, rng: np.random.Generator) -> Arch:
        """Depth, width and kernels uniform per gene; then the pools uniform among the subsets of active blocks."""
        base = super().sample(rng)
        if not self.num_pools:
            return base
        pool = sorted(rng.permutation(self.active_slots(base.depth))[: self.num_pools].tolist())
        return Arch(base.depth, base.width, base.kernel, tuple(pool), base.resolution)

    def smallest(self) -> Arch:
        """Shallowest, narrowest, smallest kernels, pooled as early as possible.

        It has the fewest parameters, and in the catalog's spaces the fewest MACs; where early blocks are very cheap, a
        deeper network that pools earlier can undercut it.
        """
        return self._extreme(0, range(self.num_pools))

    def largest(self) -> Arch:
        """Widest, deepest, largest kernels at the reference pooling: evenly spaced over the blocks.

        Pooling positions are not nested: the net that pools last has the most MACs and is not the most accurate, so
        "largest" means the capacity, at the spacing that ResNets use.
        """
        return self._extreme(-1, self.reference_pools)

    @cached_property
    def reference_pools(self) -> tuple[int, ...]:
        """Slots that divide the deepest network's blocks into `num_pools` + 1 nearly equal runs."""
        return tuple(round((i + 1) * self.num_slots / (self.num_pools + 1)) for i in range(self.num_pools))

    def with_pools(self, arch: Arch, pools: Sequence[int]) -> Arch:
        """`arch` pooled before these slots instead, made canonical."""
        return self.canonical(Arch(arch.depth, arch.width, arch.kernel, tuple(pools), arch.resolution))

    def most_macs(self) -> Arch:
        """The upper end of the MACs range: `largest()` pooled as late as possible."""
        return self._extreme(-1, range(self.num_slots - self.num_pools, self.num_slots))

    def _extreme(self, pick: int, pools: Sequence[int]) -> Arch:
        depth = tuple(s.depths[pick] for s in self.stages)
        width = tuple(s.widths[pick] for s in self.stages)
        kernel = tuple(self.stages[s].kernels[pick] for s in self.stage_of)
        return self.canonical(Arch(depth, width, kernel, tuple(pools), self.image_size))

    def size(self) -> int:
        """Number of canonical architectures: over all depths, the kernels of active blocks times the pool subsets."""
        total = 0
        for depth in itertools.product(*(s.depths for s in self.stages)):
            kernels = math.prod(len(s.kernels) ** d for s, d in zip(self.stages, depth))
            total += kernels * math.comb(sum(depth), self.num_pools)
        return total * math.prod(len(s.widths) for s in self.stages)

    def enumerate(self) -> Iterator[Arch]:
        """By depth, then width, kernels and pools."""
        for depth in itertools.product(*(s.depths for s in self.stages)):
            active = self.active_slots(depth)
            kernels = [
                self.stages[s].kernels if slot in active else self.stages[s].kernels[:1]
                for slot, s in enumerate(self.stage_of)
            ]
            for width in itertools.product(*(s.widths for s in self.stages)):
                for kernel in itertools.product(*kernels):
                    for pool in itertools.combinations(active, self.num_pools):
                        yield Arch(depth, width, kernel, pool, self.image_size)

    def to_vector(self, arch: Arch) -> np.ndarray:
        """Ranks of depth, width and active kernels (0 where inactive), then each slot's pooling level, in [0, 1]."""
        active = set(self.active_slots(arch.depth))
        ranks = [s.depths.index(d) / max(len(s.depths) - 1, 1) for s, d in zip(self.stages, arch.depth)]
        ranks += [s.widths.index(w) / max(len(s.widths) - 1, 1) for s, w in zip(self.stages, arch.width)]
        for slot, s in enumerate(self.stage_of):
            choices = self.stages[s].kernels
            ranks.append((choices.index(arch.kernel[slot]) + 1) / len(choices) if slot in active else 0.0)
        levels = [sum(p <= slot for p in arch.pool) / max(self.num_pools, 1) for slot in range(self.num_slots)]
        return np.array(ranks + levels)

    # As plain data

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, from which `from_dict` rebuilds the space."""
        data = asdict(self)
        data["stages"] = [{k: list(v) for k, v in stage.items()} for stage in data["stages"]]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpace:
        """The space described by `data`. Raises ValueError naming an unknown, missing or ill-formed field."""
        if not isinstance(data, Mapping):
            raise ValueError(f"a space is a mapping of fields, not {data!r}")
        valid = [f.name for f in fields(cls)]
        if unknown := sorted(set(map(str, data)) - set(valid)):
            raise ValueError(f"unknown field {unknown[0]!r}; valid fields: {', '.join(valid)}")
        if missing := [name for name in ("name", "stages") if name not in data]:
            raise ValueError(f"field {missing[0]!r} is missing; valid fields: {', '.join(valid)}")
        if not isinstance(data["stages"], Sequence) or isinstance(data["stages"], str):
            raise ValueError(f"stages must be a list, got {data['stages']!r}")
        stages = tuple(_stage_from_dict(i, stage) for i, stage in enumerate(data["stages"]))
        return cls(**{**data, "stages": stages})


def _stage_from_dict(index: int, data: Any) -> Stage:
    valid = [f.name for f in fields(Stage)]
    if not isinstance(data, Mapping) or set(data) - set(valid) or not {"depths", "widths"} <= set(data):
        raise ValueError(f"stages[{index}] must have the fields {', '.join(valid)}, got {data!r}")
    for name, value in data.items():
        if not isinstance(value, list | tuple):
            raise ValueError(f"stages[{index}].{name} must be a list of integers, got {value!r}")
    try:
        return Stage(**{name: tuple(value) for name, value in data.items()})
    except ValueError as error:
        raise ValueError(f"stages[{index}]: {error}") from None


def _check_choices(gene: str, values: Sequence[int], choices: Sequence[tuple[int, ...]]) -> None:
    if len(values) != len(choices):
        raise ValueError(f"gene {gene} has {len(values)} entries {tuple(values)}; this space takes {len(choices)}")
    for i, (value, valid) in enumerate(zip(values, choices)):
        if value not in valid:
            raise ValueError(f"gene {gene}[{i}] is {value}; valid: {', '.join(map(str, valid))}")
