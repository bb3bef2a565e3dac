"""`NetworkSpace`: residual networks with elastic depth, width, kernel, expand ratio, downsampling and resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from search_spaces import members
from search_spaces.arch import Arch
from search_spaces.blocks import HEAD_WIDTHS, STEM_HALVINGS, after_stride
from search_spaces.fields import MOST_CHANNELS, FieldError, check_integer
from search_spaces.space import Gene, Space
from search_spaces.stage import Stage, stage_from_dict
from search_spaces.validity import canonical, check_choices, validate


@dataclass(frozen=True)
class NetworkSpace(Space[Arch]):
    """A stem, stages of blocks, `num_pools` elastic 2x2 max-pools before active blocks, and a head.

    Depth keeps the first blocks of a stage (Once-for-All, Cai et al. 2020); a pool may stand before any active block
    and at most once there (Balanced Mixture of SuperNets, Javan et al. 2023). Block slots are numbered through all
    stages from 0, at the largest depth. Raises ValueError naming the field when a value makes no network.

    num_pools: elastic downsamplings; those of the stem and of `Stage.stride` are fixed and come on top.
    image_size: pixels a side, the largest resolution. resolutions: the choices, ascending up to image_size; empty
        where the resolution is fixed.
    stem, head: kinds of block, see `search_spaces.plan.stem` and `head`.
    stem_width: channels of the stem, or None for as many as the first stage has; a mobile_stem needs a number.
    head_widths: channels of mobile_head's first convolution and before its classifier; empty for "head".
    """

    name: str
    stages: tuple[Stage, ...]
    num_pools: int = 2
    in_channels: int = 3
    image_size: int = 32
    num_classes: int = 10
    resolutions: tuple[int, ...] = ()
    stem: str = "stem"
    stem_width: int | None = None
    head: str = "head"
    head_widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise FieldError(("name",), f"is {self.name!r}; valid: a text")
        for field in ("stages", "resolutions", "head_widths"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not self.stages:
            raise FieldError(("stages",), "is empty; valid: at least one stage")
        for field, low in (("num_pools", 0), ("in_channels", 1), ("image_size", 1), ("num_classes", 2)):
            check_integer(field, getattr(self, field), low)
        fewest = sum(stage.depths[0] for stage in self.stages)
        if self.num_pools > fewest:
            raise FieldError(("num_pools",), f"is {self.num_pools}, but the shallowest network has {fewest} blocks")
        self._check_ends()
        self._check_resolutions()

    def _check_ends(self) -> None:
        """The fields of stem and head."""
        for field, valid in (("stem", STEM_HALVINGS), ("head", HEAD_WIDTHS)):
            if getattr(self, field) not in tuple(valid):  # a tuple: what came from a file need not be hashable
                raise FieldError((field,), f"is {getattr(self, field)!r}; valid: {', '.join(valid)}")
        if self.stem_width is not None:
            check_integer("stem_width", self.stem_width, 1, MOST_CHANNELS)
        elif self.stem == "mobile_stem":
            raise FieldError(("stem_width",), "is missing: a mobile_stem needs a number of channels")
        for width in self.head_widths:
            check_integer("head_widths", width, 1, MOST_CHANNELS)
        if len(self.head_widths) != HEAD_WIDTHS[self.head]:
            takes = f"{self.head} takes {HEAD_WIDTHS[self.head]}"
            raise FieldError(("head_widths",), f"is {list(self.head_widths)}, but {takes}")

    def _check_resolutions(self) -> None:
        sizes = self.resolutions
        for size in sizes:
            check_integer("resolutions", size, 1)
        if list(sizes) != sorted(set(sizes)):
            raise FieldError(("resolutions",), f"is {list(sizes)}; valid: ascending, none twice")
        if sizes and sizes[-1] != self.image_size:
            raise FieldError(("resolutions",), f"is {list(sizes)}, but must end with the image size, {self.image_size}")
        least = self.resolution_choices[0]
        # pools round down: where all strides come first they have the fewest pixels to work on
        if after_stride(least, self._fixed_stride) >> self.num_pools < 1:
            fits = self._fixed_stride * ((1 << self.num_pools) - 1) + 1
            raise FieldError(
                ("resolutions" if sizes else "image_size",),
                f"is {list(sizes) if sizes else least}, too small for num_pools {self.num_pools}; "
                f"valid: at least {fits} pixels",
            )

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

    def inputs(self, slot: int) -> tuple[int, ...] | None:
        """Channels that can enter the slot's block; None where they are those that leave it."""
        stage = self.stage_of[slot]
        if slot != self._slots[stage][0]:
            return None
        if stage:
            return self.stages[stage - 1].widths
        return (self.stem_width,) if self.stem_width else None

    def projects(self, slot: int) -> bool:
        """Whether the block's input can have other channels than its output."""
        before, here = self.inputs(slot), self.stages[self.stage_of[slot]].widths
        return before is not None and not (before == here and len(here) == 1)

    def stride(self, slot: int) -> int:
        """The stage's stride in its first block, else 1."""
        stage = self.stage_of[slot]
        return self.stages[stage].stride if slot == self._slots[stage][0] else 1

    def expands_of(self, slot: int) -> tuple[float, ...]:
        """Expand ratios to choose from; (1,) where the block has none."""
        return self.stages[self.stage_of[slot]].expands or (1,)

    @cached_property
    def has_expand(self) -> bool:
        """Whether any block has an expand ratio."""
        return any(stage.expands for stage in self.stages)

    @cached_property
    def resolution_choices(self) -> tuple[int, ...]:
        """Input pixels a side to choose from."""
        return self.resolutions or (self.image_size,)

    @cached_property
    def _fixed_stride(self) -> int:
        return math.prod(stage.stride for stage in self.stages) << STEM_HALVINGS[self.stem]

    # Genes

    @cached_property
    def _genes(self) -> tuple[Gene, ...]:
        slots = tuple(range(self.num_slots))
        return (
            *(Gene(f"depth{i}", s.depths, ordered=True) for i, s in enumerate(self.stages)),
            *(Gene(f"width{i}", s.widths, ordered=True) for i, s in enumerate(self.stages)),
            *(Gene(f"kernel{t}", self.stages[s].kernels, ordered=True) for t, s in enumerate(self.stage_of)),
            *(Gene(f"pool{i}", slots, ordered=True) for i in range(self.num_pools)),
            *(Gene(f"expand{t}", self.expands_of(t), ordered=True) for t in slots if self.has_expand),
            *(Gene("resolution", r, ordered=True) for r in (self.resolutions,) if len(r) > 1),
        )

    @property
    def genes(self) -> tuple[Gene, ...]:
        """Depth and width per stage, kernel per slot, slot of each pool; expand per slot and resolution if elastic."""
        return self._genes

    def encode(self, arch: Arch) -> tuple[int, ...]:
        """Index of every gene's choice."""
        resolution = (arch.resolution,) if len(self.resolutions) > 1 else ()
        values = (*arch.depth, *arch.width, *arch.kernel, *arch.pool, *arch.expand, *resolution)
        return tuple(gene.choices.index(v) for gene, v in zip(self._genes, values, strict=True))

    def decode(self, indices: Sequence[int]) -> Arch:
        """The canonical architecture of these choices."""
        values = iter([gene.choices[i] for gene, i in zip(self._genes, indices, strict=True)])
        n, slots = len(self.stages), self.num_slots
        lengths = (n, n, slots, self.num_pools, slots if self.has_expand else 0)
        depth, width, kernel, pool, expand = (tuple(itertools.islice(values, length)) for length in lengths)
        resolution = next(values, self.image_size)
        return self.canonical(Arch(depth, width, kernel, pool, resolution, expand))  # type: ignore[arg-type]

    def canonical(self, arch: Arch) -> Arch:
        """`arch` with every gene that has no effect at its filler, so that equal networks are equal architectures.

        Kernel and expand of an inactive slot become the stage's smallest. A pool before an inactive slot, or before a
        slot that has one already, moves to the next active slot that is free, or to the last such where none follows.
        """
        return canonical(self, arch)

    def validate(self, arch: Arch) -> None:
        """Raises ValueError naming the gene, its value and the valid ones, when `arch` is not canonical here."""
        validate(self, arch)

    def arch_from_dict(self, data: Mapping[str, Any]) -> Arch:
        """The canonical architecture from its JSON form; raises as `validate` does.

        `resolution` may be left out and is then the largest.
        """
        arch = Arch.from_dict({"resolution": self.image_size, **data} if isinstance(data, Mapping) else data)
        check_choices("depth", arch.depth, [s.depths for s in self.stages])
        check_choices("kernel", arch.kernel, [self.stages[s].kernels for s in self.stage_of])
        if self.has_expand:
            check_choices("expand", arch.expand, [self.expands_of(slot) for slot in range(self.num_slots)])
        slots = range(self.num_slots)
        if len(set(arch.pool)) != self.num_pools or any(slot not in slots for slot in arch.pool):
            raise ValueError(f"gene pool is {arch.pool}; valid: {self.num_pools} different slots of 0 to {slots[-1]}")
        member = self.canonical(arch) if self.has_expand or not arch.expand else arch
        self.validate(member)
        return member

    # Members of the space

    def sample(self, rng: np.random.Generator) -> Arch:
        """Every gene uniform; then the pools uniform among the subsets of active blocks."""
        base = super().sample(rng)
        return self.place_pools(base, rng) if self.num_pools else base

    def place_pools(self, arch: Arch, rng: np.random.Generator) -> Arch:
        """`arch` with its pools uniform among the subsets of its active blocks instead."""
        pool = sorted(rng.permutation(self.active_slots(arch.depth))[: self.num_pools].tolist())
        return replace(arch, pool=tuple(pool))

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
        return self.canonical(replace(arch, pool=tuple(pools)))

    def most_macs(self) -> Arch:
        """The upper end of the MACs range: `largest()` pooled where that is dearest, as a rule as late as possible."""
        return members.pooled_dearest(self, self.largest())

    def _extreme(self, pick: int, pools: Sequence[int]) -> Arch:
        depth = tuple(s.depths[pick] for s in self.stages)
        width = tuple(s.widths[pick] for s in self.stages)
        kernel = tuple(self.stages[s].kernels[pick] for s in self.stage_of)
        expand = tuple(self.expands_of(slot)[pick] for slot in range(self.num_slots) if self.has_expand)
        return self.canonical(Arch(depth, width, kernel, tuple(pools), self.resolution_choices[pick], expand))

    def size(self) -> int:
        """Number of canonical architectures, exactly."""
        return members.count(self)

    def enumerate(self) -> Iterator[Arch]:
        """By depth, then width, kernels, pools, expand ratios and resolution."""
        return members.listing(self)

    def to_vector(self, arch: Arch) -> np.ndarray:
        """Ranks of the genes in [0, 1], see `search_spaces.members.features`."""
        return members.features(self, arch)

    # As plain data

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, from which `from_dict` rebuilds the space; late-born fields only off their defaults."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        late = {f.name: f.default for f in fields(self) if f.name in _LATE_FIELDS}
        data = {k: list(v) if isinstance(v, tuple) else v for k, v in data.items() if k not in late or v != late[k]}
        return data | {"stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkSpace:
        """The space described by `data`; `image_size` defaults to the largest of `resolutions`, where they are given.

        Raises FieldError naming an unknown, missing or ill-formed field.
        """
        valid = f"valid fields: {', '.join(f.name for f in fields(cls))}"
        if not isinstance(data, Mapping):
            raise FieldError((), f"is {data!r}; it must be a mapping; {valid}")
        if unknown := [str(name) for name in data if name not in {f.name for f in fields(cls)}]:
            raise FieldError((unknown[0],), f"is no field of a space; {valid}")
        if missing := [name for name in ("name", "stages") if name not in data]:
            raise FieldError((missing[0],), f"is missing; {valid}")
        for name in ("stages", "resolutions", "head_widths"):
            value = data.get(name, [])
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise FieldError((name,), f"is {value!r}; valid: a list")
        stages = tuple(stage_from_dict(i, stage) for i, stage in enumerate(data["stages"]))
        for size in data.get("resolutions", ()):
            check_integer("resolutions", size, 1)
        sizes = {"image_size": data["resolutions"][-1]} if data.get("resolutions") else {}
        return cls(**{**sizes, **data, "stages": stages})


# absent from the first release's files, and left out at their defaults so that those files still compare equal
_LATE_FIELDS = ("resolutions", "stem", "stem_width", "head", "head_widths")
