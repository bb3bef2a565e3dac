"""What a request may ask to be started: checked settings, and the arguments of our command that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nas import strategies
from nas.identity import Identity
from nas.run import Run
from nas.service.paths import inside
from search_spaces.limits import Limit, checked_limit

_STUDY = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$"
_LOWEST = {"macs": "--min-macs", "params": "--min-params", "top1": "--min-top1"}
_HIGHEST = {
    "macs": "--max-macs", "params": "--max-params", "peak_memory": "--max-memory",
    "weight_bytes": "--max-weight-bytes",
}  # fmt: skip

Number = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Pair = Annotated[list[Number | None], Field(min_length=2, max_length=2)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Resources(_Settings):
    """num_workers: Ray actors, 0 evaluates in the driver, None is one a CPU. num_cpus, num_gpus: of each."""

    num_workers: int | None = Field(default=None, ge=0, le=10_000)
    num_cpus: float = Field(default=1, ge=0, le=1024, allow_inf_nan=False)
    num_gpus: float | None = Field(default=None, ge=0, le=64, allow_inf_nan=False)
    evaluation_timeout: float | None = Field(default=None, gt=0, le=1e6, allow_inf_nan=False)

    def resources(self) -> list[str]:
        """As options of `nas search` and `nas resume`."""
        named = {
            "num-workers": self.num_workers, "num-cpus": self.num_cpus, "num-gpus": self.num_gpus,
            "evaluation-timeout": self.evaluation_timeout,
        }  # fmt: skip
        return [f"--{name}={value}" for name, value in named.items() if value is not None]


class SearchSettings(_Resources):
    """A new search, or more of one that has the same settings.

    limits: metric to upper limit, or to [lowest, highest] with null for an open end. profiles: device profiles, by
    paths from the service's root.
    """

    study: str = Field(default="default", pattern=_STUDY)
    strategy: str = strategies.DEFAULT_STRATEGY
    n_trials: int = Field(default=100, ge=1, le=1_000_000)
    limits: dict[str, Number | Pair] = Field(default_factory=dict, max_length=16)
    objectives: list[str] = Field(default_factory=lambda: ["top1", "macs"], min_length=1, max_length=4)
    profiles: list[str] = Field(default_factory=list, max_length=8)
    score: str = "inherited"
    seed: int = Field(default=0, ge=0, le=2**31)
    lookahead: int = Field(default=8, ge=1, le=10_000)

    def parsed_limits(self) -> dict[str, Limit]:
        """Raises ValueError naming the limit that is none."""
        return {name: checked_limit(name, limit) for name, limit in self.limits.items()}

    def check(self, run: Run, root: Path) -> None:
        """Raises what `nas search` would before it starts anything, all of it ValueErrors, and FileNotFoundError for a
        profile that is not under `root`.
        """
        from nas.profiles import Profile
        from nas.searching import check_search

        self.options(root)
        check_search(
            run,
            study_name=self.study,
            strategy=self.strategy,
            limits=self.parsed_limits(),
            objectives=self.objectives,
            num_workers=self.num_workers,
            evaluation_timeout=self.evaluation_timeout,
            lookahead=self.lookahead,
            score=self.score,
            profiles=[Profile.read(inside(root, name)) for name in self.profiles],
            seed=self.seed,
        )

    @classmethod
    def of(cls, identity: Identity, n_asked: int | None, settings: ResumeSettings) -> SearchSettings:
        """Those that continue a study. Raises ValueError for one with device profiles, which `nas resume` continues."""
        from nas.profiles import contexts_of

        if contexts_of(identity.context):
            raise ValueError("a study with device profiles goes on by `nas resume` alone, on the cluster's head")
        limits: dict[str, Any] = {n: list(v) if isinstance(v, tuple) else v for n, v in identity.limits.items()}
        resources = settings.model_dump(exclude={"n_trials"})
        if settings.num_gpus is None and "device" in identity.context:
            resources["num_gpus"] = 1.0
        return cls(
            study=identity.study_name,
            strategy=identity.strategy,
            n_trials=settings.n_trials or n_asked or 100,
            limits=limits,
            objectives=list(identity.objectives),
            score=identity.context.get("score", "inherited"),
            seed=identity.seed,
            lookahead=identity.lookahead,
            **resources,
        )

    def options(self, root: Path) -> list[str]:
        """As options of `nas search`. Raises ValueError for a limit that it has no option for."""
        words = [
            f"--study-name={self.study}", f"--strategy={self.strategy}", f"--n-trials={self.n_trials}",
            f"--score={self.score}", f"--seed={self.seed}", f"--lookahead={self.lookahead}",
        ]  # fmt: skip
        words += [f"--objective={name}" for name in self.objectives]
        words += [f"--profile={inside(root, name)}" for name in self.profiles]
        for name, limit in self.parsed_limits().items():
            words += _limit_options(name, limit)
        return words + self.resources()


class ResumeSettings(_Resources):
    """n_trials: trials in all; None as many as the study was last asked to have."""

    n_trials: int | None = Field(default=None, ge=1, le=1_000_000)

    def options(self) -> list[str]:
        """As options of `nas resume`."""
        return ([f"--n-trials={self.n_trials}"] if self.n_trials is not None else []) + self.resources()


class ExportSettings(_Settings):
    """trial: its number in the study. formats: of "safetensors" (always there), "onnx" and "pt2"."""

    trial: int = Field(ge=0, le=10_000_000)
    formats: list[str] = Field(default_factory=lambda: ["safetensors"], max_length=3)

    def options(self) -> list[str]:
        """As options of `nas export`. Raises ValueError for an unknown format."""
        from nas.export.formats import FORMATS

        if unknown := [name for name in self.formats if name not in FORMATS]:
            raise ValueError(f"unknown format {unknown[0]!r}; valid: {', '.join(FORMATS)}")
        return [f"--trial={self.trial}", f"--format={','.join(self.formats or ['safetensors'])}"]


class PreflightSettings(_Settings):
    """limits: as of `SearchSettings`."""

    limits: dict[str, Number | Pair] = Field(default_factory=dict, max_length=16)

    def parsed_limits(self) -> dict[str, Any]:
        """Raises ValueError naming the limit that is none."""
        return {name: checked_limit(name, limit) for name, limit in self.limits.items()}


def _limit_options(name: str, limit: Limit) -> list[str]:
    low, high = limit if isinstance(limit, tuple) else (None, limit)
    words = []
    for end, value, options in (("lower", low, _LOWEST), ("upper", high, _HIGHEST)):
        if value is None:
            continue
        if end == "upper" and name.startswith("latency_ms"):
            profile = name.removeprefix("latency_ms").removeprefix("_")
            words.append(f"--max-latency-ms={profile + '=' if profile else ''}{value!r}")
        elif name in options:
            words.append(f"{options[name]}={value!r}")
        else:
            raise ValueError(f"there is no {end} limit on {name!r}; valid: {', '.join(options)}")
    return words
