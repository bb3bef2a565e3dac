"""A run whose subnets are exported: written aside, checked, and moved into place when the checks hold."""

from __future__ import annotations

import itertools
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nas.export import card
from nas.export.certificate import (
    CHECK_IMAGES,
    Budget,
    Certificate,
    FormatCheck,
    check_format,
    describe_machine,
    project_revision,
)
from nas.export.formats import ALWAYS, FORMATS, Exportable, checked_formats
from nas.finetune_report import load_finetuned
from nas.json_file import write_json
from nas.run import Run, versions
from nas.training import load_trained
from nas.trust_report import quote
from search_spaces.arch import Arch

if TYPE_CHECKING:
    from nas.export.isolated import Question
    from supernet.subnet import Subnet


class ExportError(RuntimeError):
    """The exported folder failed a check; the message says which, and where the files are kept."""

    def __init__(self, message: str, certificate: Certificate) -> None:
        super().__init__(message)
        self.certificate = certificate


@dataclass(frozen=True)
class Options:
    """How to export, as `export_subnet` describes it. Raises ValueError naming a bad value and the valid ones."""

    formats: tuple[str, ...] = (ALWAYS,)
    with_preprocessing: bool = False
    threads: int = 1
    budgets: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", tuple(checked_formats(self.formats)))
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}; valid: at least 1")
        if self.with_preprocessing and self.formats == (ALWAYS,):
            others = ", ".join(name for name in FORMATS if name != ALWAYS)
            raise ValueError(f"preprocessing goes into graphs: name a format that is one ({others}) with it")


class Exporter:
    """A run, loaded once, whose subnets are exported one by one. A context manager: test images lie in files meanwhile.

    Raises on entry what `nas.training.load_trained` and `nas.trust_report.quote` raise.
    """

    def __init__(self, run: Run, options: Options) -> None:
        self.run, self.options = run, options

    def __enter__(self) -> Exporter:
        self.supernet, self.state, self.data = load_trained(self.run)
        self.trust = quote(self.run, self.state["weights_hash"])  # before anything reads the test set
        self._scratch = tempfile.TemporaryDirectory()
        self._questions: dict[int, Question] = {}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._scratch.cleanup()

    def export(self, arch: Arch, out: Path, finetuned: str | None = None) -> Certificate:
        """Writes and checks one folder, see `export_subnet`. Raises ExportError and OSError as that does."""
        subnet, entry = self._weighted(arch, finetuned)
        model = Exportable(subnet, arch.key, self.data, self.options.with_preprocessing)
        config = card.config(self.run, arch, self.data)
        with _staging(out) as staged:
            write_json(staged / "config.json", config)  # formats that hold no preprocessing are checked with it
            checks = {name: self._checked(name, model, staged) for name in self.options.formats}
            certificate = self._certificate(model, checks, entry)
            write_json(staged / "config.json", config | {"certificate": certificate.summary()})
            write_json(staged / "certificate.json", certificate.to_dict())
            (staged / "README.md").write_text(card.model_card(self.run, arch, certificate), encoding="utf-8")
            if failures := certificate.failures():
                kept = _free_name(out)
                staged.rename(kept)
                raise ExportError(
                    f"the exported model failed its check: {'; '.join(failures)}; the files are in {kept}", certificate
                )
            _publish(staged, out)
        return certificate

    def _weighted(self, arch: Arch, finetuned: str | None) -> tuple[Subnet, dict[str, Any] | None]:
        """The subnet with the supernet's weights or with fine-tuned ones, and what is known of the latter."""
        from supernet.evaluate import recalibrate

        subnet = self.supernet.export(arch)
        if finetuned is None:
            recalibrate(subnet, self.data.calibration.images, self.data.mean, self.data.std)
            return subnet, None
        weights, entry = load_finetuned(self.run, finetuned, arch, self.state)
        subnet.load_state_dict(weights)
        return subnet.eval(), entry

    def _checked(self, name: str, model: Exportable, folder: Path) -> FormatCheck:
        from supernet.evaluate import predict

        FORMATS[name].write(folder, model)
        resolution = self.data.image_size if FORMATS[name].resizes else model.subnet.plan.resolution
        question = self._question(resolution)
        expected = predict(model.subnet, question.head(CHECK_IMAGES), self.data.mean, self.data.std)
        return check_format(name, folder, question, expected, self.options.threads)

    def _question(self, resolution: int) -> Question:
        """The test set at a resolution, in a file that all formats and subnets share."""
        from nas.export.isolated import Question

        if resolution not in self._questions:
            file = Path(self._scratch.name) / f"{resolution}.bin"
            self._questions[resolution] = Question.write(file, self.data.test, resolution)
        return self._questions[resolution]

    def _certificate(
        self, model: Exportable, checks: dict[str, FormatCheck], finetuned: dict[str, Any] | None
    ) -> Certificate:
        from supernet.evaluate import count_correct
        from supernet.subnet import count_macs, count_params

        subnet, lowered, data = model.subnet, model.subnet.plan, self.data
        return Certificate(
            key=model.key,
            formats=checks,
            validation_top1=count_correct(subnet, data.validation, data.mean, data.std) / len(data.validation.labels),
            macs=lowered.macs,
            counted_macs=count_macs(subnet, (lowered.in_channels, lowered.resolution, lowered.resolution)),
            params=lowered.params,
            counted_params=count_params(subnet),
            supernet=self.state["weights_hash"],
            seed=self.run.recipe.seed,
            versions=versions(),
            machine=describe_machine(),
            revision=project_revision(),
            trust=self.trust,
            finetuned=finetuned,
            budgets=self.options.budgets,
            with_preprocessing=self.options.with_preprocessing,
        )


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder beside `out`, on the same file system, that is gone afterwards unless it was moved."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.parent / f".{out.name}-{secrets.token_hex(4)}"
    try:  # around its making, too: TemporaryDirectory leaves one behind that a signal comes right after
        (staged := scratch / "model").mkdir(parents=True)
        yield staged
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _free_name(out: Path) -> Path:
    names = (out.with_name(f"{out.name}.failed{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def _publish(staged: Path, out: Path) -> None:
    """Moves the finished files into place; a folder that is there already (--force) keeps its other files."""
    if not out.exists():
        staged.rename(out)
        return
    for file in staged.iterdir():
        file.replace(out / file.name)
