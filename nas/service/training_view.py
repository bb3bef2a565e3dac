"""`TrainingView`: a run's training followed by the lines that its metrics file grows by."""

from __future__ import annotations

import threading
from typing import Any

import orjson

from nas.run import Run, is_training
from nas.service.tail import Tail
from supernet.header import CheckpointError

STATES = ("training", "trained", "interrupted", "untrained")


class TrainingView:
    """The records of `metrics.jsonl`, as far as they have been read; `refresh` reads on and may be called anywhere.

    steps: records of training steps (`step`, `epoch`, losses, `lr`, `images_per_s`). epochs: of validations
    (`val_top1_max`, `val_top1_min`, …). rollbacks: of returns to the last good epoch, with their `reason`.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._tail = Tail(run.metrics)
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.rollbacks: list[dict[str, Any]] = []

    @property
    def generation(self) -> int:
        """How often the file was written anew, as a resumed training does; then all records are to be read again."""
        return self._tail.generation

    @property
    def progress(self) -> tuple[int, int]:
        """The last step known and the steps in all; 0 for what nothing says."""
        try:
            state = self.run.checkpoint_state()
            step, total = int(state.get("step", 0)), int(state.get("total_steps", 0))
        except (CheckpointError, ValueError, TypeError, AttributeError):
            step = total = 0
        return max(step, self.steps[-1]["step"] if self.steps else 0), total

    @property
    def state(self) -> str:
        """One of `STATES`."""
        if is_training(self.run):
            return "training"
        step, total = self.progress
        if not step:
            return "untrained" if not total else "interrupted"
        return "trained" if total and step >= total else "interrupted"

    @property
    def seconds_left(self) -> float | None:
        """Of a training under way, at the speed of its last record; None where that is not known."""
        step, total = self.progress
        last = self.steps[-1] if self.steps else {}
        speed = last.get("images_per_s")
        images = self.run.recipe.images_per_step
        return max(0, total - step) * images / speed if speed and total else None

    def refresh(self) -> int:
        """Reads what was appended; the number of new records. Lines that are no records are left out."""
        with self._lock:
            try:
                again, lines = self._tail.read()
            except OSError:  # not ours to read
                return 0
            if again:
                self._clear()
            for line in lines:
                try:
                    record = orjson.loads(line)
                    kind = "rollbacks" if "rollback" in record else "epochs" if "val_top1_max" in record else "steps"
                    known = {n: v for n, v in record.items() if isinstance(v, int | float) or n == "reason"}
                    known["step"] = int(record["step"])
                except (ValueError, TypeError, KeyError, AttributeError):
                    continue
                getattr(self, kind).append(known)
            return len(lines)
