"""What fine-tuning has found for the trials of a study: one line of JSON for everything tried, and for each trial the
best weights, in RUN/finetune/STUDY.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.run import Run, RunError
from supernet.header import CheckpointError, read_state

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

FORMAT = "nas-finetune-1"


@dataclass(frozen=True)
class Candidate:
    """Weights that a trial's architecture could have, and how they came about: inherited, or by one sample.

    trial: its number in the study. sample: from 0 within its seed; None for the inherited weights. epochs, seed, lr,
    weight_decay: of the training. correct: images of the search-validation split, of `images`, that it gets right
    after each epoch. weights: SHA-256. error: how the training diverged, or None. seconds: of the training.
    """

    trial: int
    key: str
    images: int
    correct: tuple[int, ...]
    weights: str | None
    sample: int | None = None
    epochs: int = 0
    seed: int = 0
    lr: float | None = None
    weight_decay: float | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def state(self) -> str:
        """inherited, finished, stopped (early, by ASHA) or diverged."""
        if self.sample is None:
            return "inherited"
        if self.error is not None:
            return "diverged"
        return "finished" if len(self.correct) == self.epochs else "stopped"

    @property
    def top1(self) -> float:
        """Accuracy from 0 to 1 of the weights at its end; 0 where the training diverged."""
        return 0.0 if self.error is not None else self.correct[-1] / self.images

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self) | {"correct": list(self.correct)}

    @property
    def reached(self) -> int:
        """Epochs that it was trained for."""
        return 0 if self.sample is None else len(self.correct)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Candidate:
        """The reverse. Raises TypeError, ValueError or KeyError for anything else."""
        candidate = cls(**{**data, "correct": tuple(data["correct"])})
        if not all(0 <= n <= candidate.images for n in candidate.correct) or not (candidate.correct or candidate.error):
            raise ValueError(f"{candidate.correct} of {candidate.images} images correct")
        return candidate


def basis_of(run: Run, state: Mapping[str, Any]) -> dict[str, str]:
    """What fine-tuned weights hold for: the supernet's weights and the run's data and recipe (SHA-256).

    state: of the run's checkpoint.
    """
    recipe = asdict(run.recipe) | {"teacher": state["teacher"]}  # its weights, wherever they lie
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return {"format": FORMAT, "weights": state["weights_hash"], "data": state["data"], "recipe": digest}


def best(candidates: list[Candidate]) -> Candidate:
    """The most accurate, of equals the first: of what `Records.of` gives, the inherited weights."""
    return max(candidates, key=lambda c: c.top1)


class Records:
    """The candidates of one study's trials on one basis; those on another, as after more training, are left out.

    whole: read the weights' files to their end, so that a damaged one counts as none; else their heads, without torch.
    Raises RunError for a study name that is no plain file name.
    """

    def __init__(self, run: Run, study_name: str, basis: Mapping[str, str], *, whole: bool = True) -> None:
        run.study(study_name)
        self._whole = whole
        self.folder, self.basis = run.path / "finetune" / study_name, dict(basis)
        self._lines = self.folder / "samples.jsonl"
        self.others = 0  # lines on another basis
        self._candidates = self._read()
        for trial in {candidate.trial for candidate in self._candidates}:
            run.fetch(f"finetune/{study_name}/{trial}.safetensors")
        files = self.folder.glob("*.safetensors")
        found = {int(file.stem): self._kept_in(file) for file in files if file.stem.isdecimal()}
        self._kept = {trial: candidate for trial, candidate in found.items() if candidate is not None}

    def of(self, trial: int, key: str) -> list[Candidate]:
        """What was tried for the architecture `key` as this trial, the inherited weights first.

        What is better than the weights in the trial's file is left out: its weights are lost, and so it is no result.
        """
        kept = self._kept.get(trial)
        if kept is None or kept.key != key:
            return []
        found = [c for c in self._candidates if (c.trial, c.key) == (trial, key) and c.top1 <= kept.top1]
        if kept not in found:  # a driver was killed between file and line
            found.append(kept)
        return sorted(found, key=lambda c: c.sample is not None)

    def trials(self) -> list[int]:
        """The numbers of the trials that there are weights for."""
        return sorted(self._kept)

    def add(self, candidate: Candidate, weights: Mapping[str, Tensor] | None) -> None:
        """Keeps the weights if they are the best so far, and then the line. Raises OSError when the disk is full."""
        from supernet import checkpoint

        self.folder.mkdir(parents=True, exist_ok=True)
        before = self.of(candidate.trial, candidate.key)
        if weights is not None and (not before or candidate.top1 > best(before).top1):
            file = self.file(candidate.trial)
            checkpoint.save(file, weights, self.basis | {"candidate": candidate.to_dict()})
            checkpoint.previous(file).unlink(missing_ok=True)
            self._kept[candidate.trial] = candidate
        with open(self._lines, "ab+") as lines:
            if lines.tell():
                lines.seek(-1, os.SEEK_END)
                if lines.read(1) != b"\n":
                    lines.write(b"\n")  # ends what a killed driver began
            lines.write(json.dumps(self.basis | {"candidate": candidate.to_dict()}).encode() + b"\n")
        self._candidates.append(candidate)

    def weights(self, trial: int) -> dict[str, Tensor]:
        """The best weights, a state dict. Raises RunError when they are not what the records say."""
        from supernet import checkpoint

        tensors, state = checkpoint.load(self.file(trial))
        if checkpoint.weights_hash(tensors) != state["candidate"]["weights"]:
            raise RunError(f"{self.file(trial)} is not as it was written; remove it and run `nas finetune` again")
        return tensors

    def file(self, trial: int) -> Path:
        """Where the best weights of a trial are."""
        return self.folder / f"{trial}.safetensors"

    def _kept_in(self, file: Path) -> Candidate | None:
        """What a file of weights holds, where that is on this basis."""
        try:
            if self._whole:
                from supernet import checkpoint

                _, state = checkpoint.load(file)
            else:
                state = read_state(file)
        except CheckpointError as error:
            log.warning("%s: it is made again", error)
            return None
        return self._candidate(state)

    def _candidate(self, entry: Any) -> Candidate | None:
        """The candidate of a line or a file; None where it has another basis or form."""
        if not isinstance(entry, dict) or {name: entry.get(name) for name in self.basis} != self.basis:
            return None
        try:
            return Candidate.from_dict(entry["candidate"])
        except (KeyError, TypeError, ValueError):
            return None

    def _read(self) -> list[Candidate]:
        try:
            lines = self._lines.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # torn by a killed driver
            candidate = self._candidate(entry)
            if candidate is None:
                self.others += 1
            else:
                found.append(candidate)
        return found
