"""`fit`: a training run from its first or its last saved step to the end, recorded and saved as it goes."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from supernet import checkpoint
from supernet.batches import train_batches
from supernet.train import MOST_ROLLBACKS, SpikeError, Trainer, TrainingError

LOG_EVERY = 10  # steps between metric records: reading a loss makes an accelerator wait
SAVE_SECONDS = 120.0  # between checkpoints inside an epoch
LAST_GOOD = "last-good.safetensors"  # beside the checkpoint: the state that a rollback goes to


@dataclass
class Hooks:
    """What a caller may attach to a run.

    on_record: receives every metric record as it is written. should_stop: asked after every step; True ends the run
    with a checkpoint.
    """

    on_record: Callable[[dict[str, Any]], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False


def fit(trainer: Trainer, checkpoint_path: Path, metrics_path: Path, hooks: Hooks | None = None) -> bool:
    """Trains to the end; True when it got there, False when `hooks.should_stop` ended it with a checkpoint.

    metrics_path: JSON lines, one record every few steps and one an epoch; records after the trainer's current step
    (written before a crash) are removed first, so that a resumed run's file has no step twice.
    A loss that is not finite or jumps towards chance takes the run back to the end of the last epoch that ended without
    a rise, with half the learning rate from there on, and if it happens again from there, to the one before; this is
    recorded. Raises TrainingError when it happens for the fourth time.
    In distributed training every rank calls it, rank 0 alone writes and records, and a request to stop that reaches
    any rank stops all. Raises RankError when the ranks do not train the same supernet on the same images.
    """
    return _Fit(trainer, checkpoint_path, metrics_path, hooks or Hooks()).run()


class _Fit:
    """The state of one `fit`. `good` is the state at the end of the last calm epoch, where a rollback goes."""

    def __init__(self, trainer: Trainer, path: Path, metrics: Path, hooks: Hooks) -> None:
        self.trainer, self.path, self.metrics, self.hooks = trainer, path, metrics, hooks
        self.good = path.with_name(LAST_GOOD)
        self.saved = time.monotonic()
        self.main = trainer.ranks.is_main

    def run(self) -> bool:
        trainer = self.trainer
        if self.main:
            _truncate_records(self.metrics, trainer)
            if trainer.step == 0 or not checkpoint.exists(self.good):
                trainer.save(self.good)
            if trainer.step > 0 and not checkpoint.exists(self.path):  # killed between the two
                self._save()
        done = True
        while done and trainer.step < trainer.total_steps:
            trainer.require_agreement()
            try:
                done = self._epoch()
            except SpikeError as error:
                self._roll_back(error)
        trainer.ranks.wait()  # a rank that ended first would have the launcher end rank 0 while it saves
        return done

    def _epoch(self) -> bool:
        """The rest of the current epoch; False when it was asked to stop."""
        trainer = self.trainer
        epoch, start = divmod(trainer.step, trainer.steps_per_epoch)
        tick, ticked = time.monotonic(), trainer.step
        size = trainer.config.images_per_step
        seen = min(size, len(trainer.data.train))
        for _, images, labels in train_batches(trainer.data, size, trainer.config.seed, epoch, start, trainer.rows):
            metrics = trainer.train_step(images.to(trainer.device), labels.to(trainer.device))
            if trainer.step % LOG_EVERY == 0 or trainer.step == trainer.total_steps:
                now = time.monotonic()
                self._record(_step_record(trainer, epoch, metrics, (trainer.step - ticked) * seen / (now - tick)))
                tick, ticked = now, trainer.step
            if trainer.step % trainer.steps_per_epoch:
                if self._asked_to_stop():
                    self._save()
                    return False
                if time.monotonic() - self.saved > SAVE_SECONDS:
                    self._save()
        self._validate(epoch)
        self._save()
        return trainer.step == trainer.total_steps or not self._asked_to_stop()

    def _validate(self, epoch: int) -> None:
        """Ends an epoch. Raises SpikeError, on every rank, where rank 0 finds weights that compute nothing."""
        trainer, broken = self.trainer, None
        if self.main:
            try:
                self._record({"step": trainer.step, "epoch": epoch + 1, **trainer.validate()})
                if trainer.spikes.is_calm():  # a collapse takes some steps to tell from noise
                    trainer.save(self.good)
            except SpikeError as error:
                broken = error
        if trainer.ranks.any(broken is not None):
            raise broken or SpikeError(f"rank 0 found the weights broken after step {trainer.step - 1}")

    def _asked_to_stop(self) -> bool:
        return self.trainer.ranks.any(self.hooks.should_stop())

    def _roll_back(self, error: SpikeError) -> None:
        rollbacks = self.trainer.rollbacks + 1
        if rollbacks > MOST_ROLLBACKS:
            raise TrainingError(
                f"{error}, for the fourth time after {MOST_ROLLBACKS} rollbacks; "
                f"start a new run with a lower lr than {self.trainer.config.lr}"
            ) from error
        self._restore_good(self.trainer.rolled_back_to)
        self.trainer.rollbacks, self.trainer.rolled_back_to = rollbacks, self.trainer.step
        self._save()
        if self.main:
            _truncate_records(self.metrics, self.trainer)
        self._record({"step": self.trainer.step, "rollback": rollbacks, "reason": str(error)})

    def _restore_good(self, tried: int) -> None:
        """Takes up the last good state, or the one before where that, of step `tried`, has led to a spike already."""
        trainer, before = self.trainer, checkpoint.previous(self.good)
        trainer.restore(self.good)
        if trainer.step != tried or trainer.ranks.any(self.main and not before.exists()):
            return
        if self.main:
            os.replace(before, self.good)
        trainer.ranks.wait()  # until the file is there for all
        trainer.restore(self.good)

    def _save(self) -> None:
        if self.main:
            self.trainer.save(self.path)
        self.saved = time.monotonic()

    def _record(self, values: Mapping[str, Any]) -> None:
        if not self.main:
            return
        try:
            with open(self.metrics, "a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:  # which names no file where the disk is full
            raise OSError(error.errno, error.strerror, str(self.metrics)) from error
        self.hooks.on_record(dict(values))


def _step_record(trainer: Trainer, epoch: int, metrics: Mapping[str, Tensor], speed: float) -> dict[str, Any]:
    values = {name: round(float(value), 6) for name, value in metrics.items()}
    lr = trainer.learning_rate(trainer.step - 1)
    return {"step": trainer.step, "epoch": epoch + 1, "lr": lr, **values, "images_per_s": round(speed, 1)}


def _truncate_records(path: Path, trainer: Trainer) -> None:
    """Drops what comes after the trainer's step, but no rollback of its: a later one may have gone further back."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, KeyError, TypeError):  # a line torn by a crash is no record
            record = json.loads(line)
            if record["step"] <= trainer.step or record.get("rollback", math.inf) <= trainer.rollbacks:
                kept.append(line + "\n")
    temporary = path.with_name(path.name + ".tmp")  # or a full disk would take all records with it
    try:
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
