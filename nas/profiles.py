"""Device profiles: files that say how long a space's architectures take on a device, and the limits made of them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.json_file import write_json
from nas.latency_model import Errors, LatencyModel, held_out
from nas.quantities import LATENCY
from nas.run import Run, versions
from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.limits import BatchCost, bounds
from search_spaces.network import NetworkSpace

if TYPE_CHECKING:
    from nas.export.certificate import Budget
    from nas.identity import Identity
    from nas.profiling import Measured

FORMAT = "nas-latency-1"


class ProfileError(ValueError):
    """The file is no device profile, or one of another space; the message names it."""


@dataclass(frozen=True)
class Profile:
    """A latency model, and what it was measured on.

    device: runtime, device, threads, batch size, the device's name and the runtime's version. errors: of predictions on
    architectures that were not fitted to; added: of the sum over blocks alone. drift: how much longer than usual the
    device took in the slowest twentieth of the time, relative to it. subnets: what was measured whole.
    """

    name: str
    model: LatencyModel
    device: Mapping[str, Any]
    errors: Errors
    added: Errors
    drift: float
    subnets: Sequence[Mapping[str, Any]]
    made: str

    @classmethod
    def of(cls, name: str, space: NetworkSpace, device: Mapping[str, Any], measured: Measured) -> Profile:
        """Fits the model to what was measured."""
        archs = [arch for arch, _ in measured.archs]
        times = np.array([timing.median_ms for _, timing in measured.archs])
        table = LatencyModel.of_blocks(space, {block: timing.median_ms for block, timing in measured.blocks.items()})
        predicted = held_out(table, archs, times)
        subnets = [
            {"arch": arch.to_dict(), "predicted_ms": float(ms), **asdict(timing), "narrow": timing.narrow}
            for (arch, timing), ms in zip(measured.archs, predicted)
        ]
        return cls(
            name, table.corrected(archs, times), dict(device), Errors.of(predicted, times),
            Errors.of(table.added(archs), times), max(0.0, float(np.quantile(measured.speeds, 0.95)) - 1), subnets,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )  # fmt: skip

    @property
    def space(self) -> NetworkSpace:
        """The space whose architectures it predicts."""
        return self.model.space

    @cached_property
    def identity(self) -> str:
        """Differs between profiles that predict, or were measured, differently."""
        data = self.to_dict()
        parts = [data[name] for name in ("device", "space", "errors", "drift", "model")]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def device_text(self) -> str:
        """For people, such as `onnxruntime 1.23 on AMD EPYC, 1 thread, batch 1`."""
        d = self.device
        threads = f", {d['threads']} thread{'s' * (d['threads'] > 1)}" if d["device"] == "cpu" else ""
        return f"{d['runtime']} {d['runtime_version']} on {d['device_name']}{threads}, batch {d['batch_size']}"

    @property
    def middle_ms(self) -> float:
        """The median of what the subnets measured took."""
        return float(np.median([subnet["median_ms"] for subnet in self.subnets]))

    def summary(self) -> dict[str, Any]:
        """What was measured and how far predictions were off, as plain JSON types."""
        return {
            "device": dict(self.device),
            "space": self.space.name,
            "errors": asdict(self.errors),
            "added": asdict(self.added),
            "drift": self.drift,
            "n_blocks": len(self.model.blocks),
            "n_subnets": len(self.subnets),
            "n_narrow": sum(subnet["narrow"] for subnet in self.subnets),
            "made": self.made,
        }

    def bound(self, archs: Sequence[Arch]) -> np.ndarray:
        """Milliseconds that architectures are not to exceed on this device, [n]: the prediction, the margin that 95 %
        of architectures stay within, and the drift that the device does for 95 % of the time.
        """
        return np.asarray(self.model.predict(archs) * (1 + self.errors.margin) * (1 + self.drift))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, but for the name, which is the file's."""
        return {
            "format": FORMAT,
            "device": dict(self.device),
            "space": self.space.to_dict(),
            "errors": asdict(self.errors),
            "added": asdict(self.added),
            "drift": self.drift,
            "made": self.made,
            "model": self.model.to_dict(),
            "subnets": [dict(subnet) for subnet in self.subnets],
        }

    def write(self, path: Path) -> None:
        """Writes the file, atomically. Raises OSError."""
        write_json(path, self.to_dict() | {"versions": versions()})

    @classmethod
    def read(cls, path: Path) -> Profile:
        """Raises ProfileError naming the file when it is missing, damaged or something else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ProfileError(
                f"there is no device profile {path}; make one with `nas profile RUN -o {path}`"
            ) from None
        except (OSError, ValueError) as error:
            raise ProfileError(f"{path} cannot be read as a device profile: {error}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ProfileError(f"{path} is not a device profile of this version ({FORMAT})")
        try:
            model = LatencyModel.from_dict(NetworkSpace.from_dict(data["space"]), data["model"])
            profile = cls(
                path.stem, model, data["device"], Errors(**data["errors"]), Errors(**data["added"]),
                float(data["drift"]), data["subnets"], data["made"],
            )  # fmt: skip
            if not np.isfinite(profile.bound([model.space.smallest()])).all():
                raise ValueError("it predicts no finite latency")
            return profile
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"{path} is a damaged device profile: {type(error).__name__}: {error}") from None


def require_space(profile: Profile, space: NetworkSpace) -> None:
    """Raises ProfileError naming what differs where the profile is of another space."""
    mine, other = space.to_dict(), profile.space.to_dict()
    if differing := [name for name in mine if mine[name] != other.get(name)]:
        name = differing[0]
        raise ProfileError(
            f"the device profile {profile.name!r} is of another space: its {name} is {other.get(name)!r}, "
            f"here it is {mine[name]!r}; make one with `nas profile` of this run"
        )


def metric_names(profiles: Sequence[Profile]) -> dict[str, Profile]:
    """The metric of each profile: `latency_ms`, or where there are several `latency_ms_<name of the file>`."""
    if len(profiles) == 1:
        return {LATENCY: profiles[0]}
    names = {f"{LATENCY}_{profile.name}": profile for profile in profiles}
    if len(names) < len(profiles):
        listed = ", ".join(profile.name for profile in profiles)
        raise ProfileError(f"two device profiles have one name, of {listed}; rename one of the files")
    return names


def costs_with(space: NetworkSpace, profiles: Sequence[Profile]) -> BatchCost:
    """`search_spaces.cost.costs`, and the latency of each profile. Raises ProfileError for one of another space."""
    for profile in profiles:
        require_space(profile, space)
    return _Costs(space, metric_names(profiles) if profiles else {})


@dataclass(frozen=True)
class _Costs:
    """A batched cost, as `nas.problem.batch_cost` has it."""

    batched: ClassVar[bool] = True
    space: NetworkSpace
    profiles: Mapping[str, Profile]

    def __call__(self, archs: Sequence[Any]) -> dict[str, np.ndarray]:
        bounds = {name: profile.bound(archs) for name, profile in self.profiles.items()}
        return {**cost.costs(self.space, archs), **bounds}


def contexts(profiles: Sequence[Profile]) -> dict[str, str]:
    """What the latencies of a study depend on: the identity of each profile by its metric."""
    return {name: profile.identity for name, profile in metric_names(profiles).items()} if profiles else {}


def keep(run: Run, profiles: Sequence[Profile]) -> None:
    """Copies the profiles to the run, so that its studies can be continued. Raises OSError."""
    for profile in profiles:
        file = run.path / _kept(profile.identity)
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            profile.write(file)


def kept(run: Run, context: Mapping[str, str]) -> list[Profile]:
    """The profiles that a study of this context was searched with. Raises ProfileError where the run lacks one."""
    return [
        replace(Profile.read(run.fetch(_kept(identity))), name=name.removeprefix(LATENCY).removeprefix("_") or LATENCY)
        for name, identity in contexts_of(context).items()
    ]


def budgets(run: Run, identity: Identity) -> list[Budget]:
    """The latency limits of a study for one image on a CPU, as a certificate shows them beside what was measured.

    Raises ProfileError where the run lacks a profile of the study.
    """
    from nas.export.certificate import Budget

    found = []
    for name, profile in zip(contexts_of(identity.context), kept(run, identity.context)):
        limit = bounds(identity.limits[name])[1] if name in identity.limits else math.inf
        device = profile.device
        if math.isfinite(limit) and (device["device"], device["batch_size"]) == ("cpu", 1):
            found.append(Budget(name, limit, device["runtime"], device["threads"]))
    return found


def contexts_of(context: Mapping[str, str]) -> dict[str, str]:
    """What `contexts` gave, out of all that a study depends on."""
    return {name: value for name, value in context.items() if name.startswith(LATENCY)}


def _kept(identity: str) -> str:
    return f"profiles/{identity}.json"
