"""What a request may ask to be started: checked settings, and the arguments of our command that they become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from nas import strategies
from nas.quantities import LATENCY
from nas.run import Run, check_study_name
from nas.service.paths import inside
from nas.service.study_view import StudyView
from search_spaces.limits import Limit, checked_limit

if TYPE_CHECKING:
    from nas.profiles import Profile

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


class PreflightSettings(_Settings):
    """What is asked of every search before it starts.

    limits: metric to upper limit, or to [lowest, highest] with null for an open end. profiles: device profiles, by
    paths from the service's root; of one the latency is `latency_ms`, of several `latency_ms_<name>`.
    """

    limits: dict[str, Number | Pair] = Field(default_factory=dict, max_length=16)
    profiles: list[str] = Field(default_factory=list, max_length=8)

    def parsed_limits(self) -> dict[str, Limit]:
        """Raises ValueError naming the limit that is none, or that a search cannot be given."""
        limits = {name: checked_limit(name, limit) for name, limit in self.limits.items()}
        for name, limit in limits.items():
            _limit_options(name, limit)
        return limits

    def opened_profiles(self, root: Path) -> list[Profile]:
        """Raises FileNotFoundError for one that is not under `root`, ProfileError for what is none."""
        from nas.profiles import Profile

        return [Profile.read(inside(root, name)) for name in self.profiles]


class SearchSettings(_Resources, PreflightSettings):
    """A new search, or more of one that has the same settings."""

    study: str = Field(default="default", min_length=1, max_length=100)
    strategy: str = strategies.DEFAULT_STRATEGY
    n_trials: int = Field(default=100, ge=1, le=1_000_000)
    objectives: list[str] = Field(default_factory=lambda: ["top1", "macs"], min_length=1, max_length=4)
    score: str = "inherited"
    seed: int = Field(default=0, ge=0, le=2**31)
    lookahead: int = Field(default=8, ge=1, le=10_000)

    @field_validator("study", mode="before")
    @classmethod
    def _named(cls, study: Any) -> Any:
        if isinstance(study, str):
            check_study_name(study)
        return study

    def check(self, run: Run, root: Path) -> None:
        """Raises what `nas search` would before it starts anything, all of it ValueErrors, and FileNotFoundError for a
        profile that is not under `root`.
        """
        from nas.searching import check_search

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
            profiles=self.opened_profiles(root),
            seed=self.seed,
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

    def check(self, view: StudyView) -> None:
        """Raises what `nas resume` would before it starts anything, all of it ValueErrors, and for nothing to do."""
        from nas.resuming import require_current
        from workers.pool import check_timeout

        name, done, asked = view.name, len(view.trials), view.n_asked if self.n_trials is None else self.n_trials
        if view.error or view.identity is None:
            raise ValueError(view.error or f"study {name!r} does not say yet what it is; start its search again")
        require_current(view.run, view.identity)
        if asked is None:
            raise ValueError(f"study {name!r} does not say how many trials it is to have; say it by n_trials")
        if view.state == "exhausted":
            raise ValueError(f"study {name!r} is exhausted: its {done} trials are all that there are within the limits")
        if asked <= done:
            raise ValueError(f"study {name!r} has {done} trials already; n_trials is {asked}, valid: from {done + 1}")
        check_timeout(self.evaluation_timeout, self.num_workers)

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


def _limit_options(name: str, limit: Limit) -> list[str]:
    """As options of `nas search`. Raises ValueError for a limit that it has no option for, or refuses."""
    low, high = limit if isinstance(limit, tuple) else (None, limit)
    if name == "top1" and (low or 0) > 1:
        raise ValueError(f"the lower limit on 'top1' is {low:g}; valid: 0 to 1, such as 0.7 for 70 %")
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
            valid = [*options, *([LATENCY] if end == "upper" else [])]
            raise ValueError(f"there is no {end} limit on {name!r}; valid: {', '.join(valid)}")
    return words
