"""What is checked on an exported folder, and what came of it: `certificate.json`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from nas.export.formats import ALWAYS, FORMATS

if TYPE_CHECKING:
    from torch import Tensor

    from nas.export.isolated import Question

FORMAT = "nas-certificate-1"
CHECK_IMAGES = 256


@dataclass(frozen=True)
class Budget:
    """A latency limit that a search held: at most `limit_ms` for one image on a CPU.

    runtime: that of one of `FORMATS`. threads: of the CPU.
    """

    name: str
    limit_ms: float
    runtime: str
    threads: int


@dataclass(frozen=True)
class FormatCheck:
    """What the process of one format measured, in which nothing of this project can be imported.

    file, bytes: what was written. max_delta: largest |Δ logit| to the subnet that was scored, on `check_images` test
    images; `allowed`: what it may be. correct: of all `total` test images, counted from this format's own logits.
    latency_ms, latency_p90_ms: median and 90th percentile of `runs` single images on `threads` CPU
    threads; calls that another process disturbed are left out.
    versions: of what ran it. error: why it did not run, where it did not; then there are no figures.
    """

    file: str
    bytes: int
    runtime: str
    threads: int
    check_images: int
    total: int
    max_delta: float | None = None
    allowed: float | None = None
    correct: int | None = None
    latency_ms: float | None = None
    latency_p90_ms: float | None = None
    runs: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def top1(self) -> float | None:
        """Test accuracy, 0 to 1."""
        return None if self.correct is None else self.correct / self.total

    @property
    def accuracy(self) -> str:
        """`top1` in words."""
        return "none: it does not run" if self.top1 is None else f"{self.top1:.2%} ({self.correct} of {self.total})"

    def failure(self) -> str | None:
        """What does not hold, or None."""
        if self.max_delta is None or self.allowed is None:
            return self.error
        if not self.max_delta <= self.allowed:
            return f"logits of {self.file} differ by {self.max_delta:.2g}, more than {self.allowed:.2g}"
        return None


def check_format(name: str, folder: Path, question: Question, expected: Tensor, threads: int) -> FormatCheck:
    """Runs one format of a folder by itself.

    expected: logits [k, classes] of the scored subnet for the first k images of `question`. threads: of the latency.
    """
    from nas.export.isolated import StandaloneError, ask
    from workers.latency import timing

    chosen = FORMATS[name]
    given: dict[str, Any] = {
        "file": chosen.file, "bytes": (folder / chosen.file).stat().st_size, "runtime": chosen.runtime,
        "threads": threads, "check_images": len(expected), "total": len(question.labels),
    }  # fmt: skip
    try:
        answer = ask(name, folder, question, logits=len(expected), threads=threads)
    except StandaloneError as error:
        return FormatCheck(**given, error=str(error))
    taken = timing(answer.calls)
    return FormatCheck(
        **given,
        max_delta=float((answer.logits - expected).abs().max()),
        allowed=chosen.atol + chosen.rtol * float(expected.abs().max()),
        correct=answer.correct,
        latency_ms=taken.median_ms,
        latency_p90_ms=taken.p90_ms,
        runs=taken.n,
        versions=answer.versions,
    )


@dataclass(frozen=True)
class Certificate:
    """What was checked on the exported files.

    formats: the check of each. macs, params: of the plan; counted_*: by an independent counter on the model.
    validation_top1: the search's score of the same architecture, recomputed. supernet: SHA-256 of its weights.
    trust: how well the supernet's scores rank (`nas trust`), where that was measured with these weights.
    finetuned: how the weights came about, where they are those of `nas finetune`; else they are the supernet's.
    budgets: limits on latency that the search held. with_preprocessing: whether graphs normalise images themselves.
    revision: of this project's repository, or None. machine: what the latencies were measured on.
    """

    key: str
    formats: dict[str, FormatCheck]
    validation_top1: float
    macs: int
    counted_macs: int
    params: int
    counted_params: int
    supernet: str
    seed: int
    versions: dict[str, str]
    machine: str
    revision: str | None = None
    trust: dict[str, Any] | None = None
    finetuned: dict[str, Any] | None = None
    budgets: tuple[Budget, ...] = ()
    with_preprocessing: bool = False

    @property
    def model(self) -> FormatCheck:
        """The check of `model.py` with its weights, which every export has."""
        return self.formats[ALWAYS]

    def failures(self) -> list[str]:
        """The checks that did not hold."""
        failed = [failure for check in self.formats.values() if (failure := check.failure())]
        if (self.macs, self.params) != (self.counted_macs, self.counted_params):
            failed.append(
                f"{self.macs} MACs and {self.params} parameters were planned, {self.counted_macs} and "
                f"{self.counted_params} counted"
            )
        return failed

    def held(self) -> list[dict[str, Any]]:
        """Each budget beside the latency that was measured.

        `measured_ms` and `met` are None where its runtime on its number of threads was not measured.
        """
        return [asdict(budget) | self._measured(budget) for budget in self.budgets]

    def _measured(self, budget: Budget) -> dict[str, Any]:
        for check in self.formats.values():
            if (check.runtime, check.threads) == (budget.runtime, budget.threads) and check.latency_ms is not None:
                return {"measured_ms": check.latency_ms, "met": check.latency_ms <= budget.limit_ms}
        return {"measured_ms": None, "met": None}

    def summary(self) -> dict[str, Any]:
        """Without the formats: the figures of `model.py` in their place, as readers of `config.json` know them."""
        model = self.model
        own = {name: value for name, value in asdict(self).items() if name not in ("formats", "budgets", "versions")}
        return own | {
            "max_delta": model.max_delta, "check_images": model.check_images, "top1": model.top1,
            "correct": model.correct, "total": model.total, "weights_bytes": model.bytes,
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """All of it, in plain JSON types: `summary`, and what was measured for each format and budget."""
        formats = {
            name: asdict(check) | {"top1": check.top1, "failure": check.failure()}
            for name, check in self.formats.items()
        }
        rest = {"formats": formats, "budgets": self.held(), "versions": self.versions}
        return {"format": FORMAT} | self.summary() | rest

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` gave. Raises ValueError, KeyError or TypeError for anything else."""
        if data.get("format") != FORMAT:
            raise ValueError(f"it is not of this version ({FORMAT})")
        checks = {name: FormatCheck(**_known(FormatCheck, check)) for name, check in data["formats"].items()}
        budgets = tuple(Budget(**_known(Budget, budget)) for budget in data["budgets"])
        return cls(**_known(cls, data) | {"formats": checks, "budgets": budgets})


def _known(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `data` that are fields of the dataclass; what is derived from them is left out."""
    return {field.name: data[field.name] for field in fields(kind) if field.name in data}


def project_revision() -> str | None:
    """The commit of this project's repository, with `-dirty` where files were changed; None outside of one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def describe_machine() -> str:
    """The processor, and how many CPUs this process may use."""
    from workers.latency import device_name

    return f"{device_name('cpu')}, {os.cpu_count()} CPUs"
