"""Progress bars on stderr, and TensorBoard curves of a training run."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from nas.trial import Trial


_CURVES = "curves"  # the prefix by which tensorboardX finds `_EventFile`


def bar(console: Console) -> Progress:
    """A bar with a count, free text, elapsed time and time left; it disappears from logs that are no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


class TrainingProgress:
    """Shows a training run: loss, accuracy and time left in a bar, every record in TensorBoard.

    A line an epoch goes with it, unless `quiet`.
    """

    def __init__(self, console: Console, tensorboard: Path, quiet: bool = False) -> None:
        self._console, self._tensorboard, self._quiet = console, tensorboard, quiet
        self._bar = bar(console)
        self._writer: Any = None

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._writer is not None:
            self._bar.stop()
            self._writer.close()

    def start(self, step: int, total: int) -> None:
        """The run stands at `step` of `total`; nothing is shown or written before this.

        Raises RunError where a file stands in place of the curves' folder.
        """
        from tensorboardX import SummaryWriter
        from tensorboardX.record_writer import register_writer_factory

        from nas.run import require_empty

        require_empty(self._tensorboard, None)
        register_writer_factory(_CURVES, _EventFile)
        self._task = self._bar.add_task("training", total=total, completed=step, note="")
        self._writer = SummaryWriter(f"{_CURVES}:{self._tensorboard}")
        self._bar.start()

    def record(self, values: dict[str, Any]) -> None:
        """One metric record of `supernet.fit.fit`."""
        step = values["step"]
        for name, value in values.items():
            if name not in ("step", "epoch", "reason"):
                self._writer.add_scalar(name, value, step)
        if "rollback" in values:
            self._bar.update(self._task, completed=step)
            again = f"back to step {step} with half the learning rate (rollback {values['rollback']})"
            self._console.print(f"{values['reason']}: {again}", style="yellow", highlight=False)
        elif "images_per_s" in values:
            loss = next(value for name, value in values.items() if name.startswith("loss_"))
            note = f"epoch {values['epoch']}  loss {loss:.3f}  {values['images_per_s']:.0f} images/s"
            self._bar.update(self._task, completed=step, note=note)
        elif not self._quiet:
            scores = f"largest {values['val_top1_max']:.1%}, smallest {values['val_top1_min']:.1%}"
            self._console.print(f"epoch {values['epoch']}: validation top-1 of the {scores}", highlight=False)


class _EventFile:
    """A file for tensorboardX, whose writing thread would die of a full disk and then block the training.

    The first write that fails is the last: every value is in `metrics.jsonl`, which is written first and says it.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path.removeprefix(f"{_CURVES}:"), "wb", buffering=0)  # noqa: SIM115  `close` does
        self._full = False

    @classmethod
    def open(cls, path: str) -> _EventFile:
        return cls(path)

    @staticmethod
    def directory_check(path: str) -> None:
        Path(path.removeprefix(f"{_CURVES}:")).mkdir(parents=True, exist_ok=True)

    def write(self, data: bytes) -> None:
        try:
            self._full = self._full or self._file.write(data) < len(data)
        except OSError:
            self._full = True

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self._file.close()


class SearchProgress:
    """Shows a search: trials done, the best feasible score and time left in a bar."""

    def __init__(self, console: Console, n_trials: int) -> None:
        self._bar, self._total, self._best = bar(console), n_trials, 0.0

    def __enter__(self) -> SearchProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar.tasks:
            self._bar.stop()

    def trial(self, trial: Trial) -> None:
        """One more trial was recorded; the bar appears with the first."""
        if not self._bar.tasks:
            self._task = self._bar.add_task("searching", total=self._total, completed=trial.number, note="")
            self._bar.start()
        if trial.feasible:
            self._best = max(self._best, trial.metrics.get("top1", 0.0))
        note = f"best {self._best:.2%}" if self._best else ""
        self._bar.update(self._task, completed=trial.number + 1, note=note)
