"""`finetune_run`: trains short-listed subnets of a search on from their inherited weights, as Ray Tune trials."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nas.finetune_records import Candidate, Records, basis_of, best
from nas.finetune_report import inherited_in_study, summarize
from nas.finetune_work import Work, sample_config
from nas.json_file import write_json
from nas.run import Run, RunError, writing
from nas.searching import open_study
from search_spaces.arch import Arch
from search_spaces.plan import plan
from supernet.recipe import TrainConfig
from workers.pool import check_address

if TYPE_CHECKING:
    from nas.study import Study
    from nas.trial import Trial
    from supernet.data import ImageData
    from supernet.mixture import SharedWeights
    from workers.ray_tune import Outcome

log = logging.getLogger(__name__)

DEFAULT_SAMPLES = 8
MOST_SEED = 2**32

OnProgress = Callable[[Mapping[str, Any]], None]


def finetune_run(
    run: Run | str | Path,
    trials: Sequence[int],
    *,
    study_name: str = "default",
    epochs: int | None = None,
    samples: int = DEFAULT_SAMPLES,
    seed: int = 0,
    num_workers: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    address: str = "local",
    on_progress: OnProgress = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Fine-tunes the architectures of these trials of a study, each with `samples` learning rates and weight decays,
    and keeps the best weights of each; returns what it writes to RUN/finetune/STUDY/results.json
    (`nas.finetune_report.summarize`).

    epochs: of a sample, by default a third of the recipe's; all else that the recipe says of one network holds too.
    After 1, 3, 9, … epochs ASHA stops samples that are not among the best third of their architecture's; as learning
    rates fall to 0 over all epochs, that is hardest on high ones, which gain most at the end. Which configurations are
    sampled follows from the seed alone (`sample_config`); which are stopped, and so what is found, from timing too.
    Accuracies are read on the search-validation split, as a search reads them. The inherited weights are a candidate:
    fine-tuning that does not improve on them is not kept. No test image is scored.
    Every sample that ended is recorded, for the supernet's weights as they are, and never trained again: an interrupted
    call goes on when it is made again, and more `samples` or another `seed` add to what there is.
    num_workers: samples under way at a time, by default as many as Ray has room for; each has `num_cpus` and
    `num_gpus`, and is on a GPU where it has any. address: as of `nas.study.search`. on_progress: gets the `samples`
    that ended, the `epochs` done, their `total_samples` and `total_epochs`, and the best `gain` in accuracy.
    should_stop: asked often; True ends the call with `Interrupted`.
    Raises ValueError for values out of range, RunError for a trial that is unknown or unfit and for a run that is being
    trained, CheckpointError for one that is not trained, ConnectionError when no cluster answers, and RayTuneError when
    a sample fails for a reason of its own.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    epochs = max(1, run.recipe.epochs // 3) if epochs is None else epochs
    _check_range(epochs, samples, seed, num_workers, num_cpus, num_gpus)
    check_address(address)
    study = open_study(run, study_name)
    chosen = _pick(study, study_name, trials)

    from nas.training import Interrupted, load_trained
    from supernet.finetune import shared_images
    from supernet.train import resolve_device

    if num_gpus and address == "local":
        resolve_device("cuda")
    with writing(run):
        supernet, state, data = load_trained(run)
        records = Records(run, study_name, basis_of(run, state))
        weights = _inherit(records, chosen, supernet, data)
        call = _Call(records, chosen, run.recipe, epochs, samples, seed, on_progress)
        try:
            done = not call.missing or _train_missing(
                call, _work(run, chosen, epochs, seed, num_cpus, num_gpus, state, data), shared_images(data) | weights,
                num_workers=num_workers, num_cpus=num_cpus, num_gpus=num_gpus, address=address, should_stop=should_stop,
            )  # fmt: skip
        finally:
            report = summarize(records, study_name, study.trials)
            write_json(records.folder / "results.json", report)
    if not done:
        raise Interrupted(
            f"stopped with {call.progress['samples']} of {call.progress['total_samples']} samples; the same command "
            f"continues: nas finetune {shlex.quote(str(run))} --trials {','.join(map(str, trials))}"
            f"{'' if study_name == 'default' else f' --study-name {study_name}'} --epochs {epochs} "
            f"--samples {samples} --seed {seed}"
        )
    return report


def parse_trials(text: str) -> list[int]:
    """`"3,7,9"` → `[3, 7, 9]`. Raises ValueError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"trials is {text!r}; write numbers separated by commas, such as 3,7,9") from None


def _work(
    run: Run,
    chosen: Sequence[Trial],
    epochs: int,
    seed: int,
    num_cpus: float,
    num_gpus: float,
    state: dict[str, Any],
    data: ImageData,
) -> Work:
    from nas.trust import teacher_of
    from supernet.finetune import Images

    archs = {trial.number: cast(Arch, trial.arch) for trial in chosen}
    return Work(
        images=Images.of(data),
        recipe=run.recipe,
        plans={number: plan(run.space, arch) for number, arch in archs.items()},
        largest=frozenset(number for number, arch in archs.items() if run.recipe.is_largest(run.space, arch)),
        epochs=epochs,
        seed=seed,
        device="cuda" if num_gpus else "cpu",
        threads=max(1, int(num_cpus)),
        teacher=teacher_of(run, state, data),
    )


def _train_missing(call: _Call, work: Work, shared: Mapping[str, np.ndarray], **options: Any) -> bool:
    """Trains what is not recorded; False when it was asked to stop. options: of `workers.ray_tune.run_on_tune`."""
    from workers.ray_tune import Halving, Sample, run_on_tune

    samples = [Sample(str(config["trial"]), config) for config in call.missing]
    halving = Halving(work.epochs, past=call.past())
    return run_on_tune(work, samples, shared, halving, call.folder, on_score=call.score, on_outcome=call.add, **options)


class _Call:
    """One call's samples: which of them are missing, how far they are, and where they are recorded."""

    def __init__(
        self,
        records: Records,
        chosen: Sequence[Trial],
        recipe: TrainConfig,
        epochs: int,
        samples: int,
        seed: int,
        on_progress: OnProgress,
    ) -> None:
        self._records, self._epochs, self._seed, self._on_progress = records, epochs, seed, on_progress
        self._keys = {trial.number: trial.arch.key for trial in chosen}
        # the first sample of every architecture before the second of any
        wanted = [(trial, sample) for sample in range(samples) for trial in self._keys]
        recorded = {(c.trial, c.sample) for c in self._recorded() if (c.epochs, c.seed) == (epochs, seed)}
        self._ended = recorded & set(wanted)
        self._reached = {which: epochs if which in recorded else 0 for which in wanted}
        self.missing: list[dict[str, Any]] = [
            {"trial": trial, "sample": sample, **sample_config(recipe, seed, sample)}
            for trial, sample in wanted
            if (trial, sample) not in recorded
        ]
        self.folder = records.folder / "ray_tune"
        self._on_progress(self.progress)

    @property
    def progress(self) -> dict[str, Any]:
        """As `finetune_run` tells it."""
        candidates = [self._records.of(trial, key) for trial, key in self._keys.items()]
        return {
            "epochs": sum(self._reached.values()), "total_epochs": self._epochs * len(self._reached),
            "samples": len(self._ended), "total_samples": len(self._reached),
            "gain": max(best(found).top1 - found[0].top1 for found in candidates),
        }  # fmt: skip

    def past(self) -> dict[str, list[tuple[int, ...]]]:
        """Images right after each epoch, by trial, of recorded samples of as many epochs: ASHA compares with them."""
        past: dict[str, list[tuple[int, ...]]] = {str(trial): [] for trial in self._keys}
        for c in self._recorded():
            if c.epochs == self._epochs:
                past[str(c.trial)].append(c.correct if c.error is None else (*c.correct, 0))
        return past

    def score(self, index: int, epoch: int, score: float) -> None:
        """A missing sample has done an epoch."""
        self._advance(index, epoch)

    def add(self, outcome: Outcome) -> None:
        """Records a missing sample that ended."""
        import safetensors.torch

        from supernet.checkpoint import weights_hash

        config, error = self.missing[outcome.index], outcome.value.get("error")
        weights = None if error else safetensors.torch.load(outcome.value["weights"])
        inherited = self._records.of(config["trial"], self._keys[config["trial"]])[0]
        candidate = Candidate(
            trial=config["trial"], key=inherited.key, images=inherited.images,
            correct=tuple(int(score) for score in outcome.scores[: -1 if error else None]),
            weights=None if weights is None else weights_hash(weights), sample=config["sample"], epochs=self._epochs,
            seed=self._seed, lr=config["lr"], weight_decay=config["weight_decay"], error=error,
            seconds=round(outcome.seconds, 3),
        )  # fmt: skip
        self._records.add(candidate, weights)
        self._ended.add((config["trial"], config["sample"]))
        self._advance(outcome.index, self._epochs)

    def _advance(self, index: int, epochs: int) -> None:
        self._reached[self.missing[index]["trial"], self.missing[index]["sample"]] = epochs
        self._on_progress(self.progress)

    def _recorded(self) -> list[Candidate]:
        """The samples of these trials that any call recorded."""
        found = (c for trial, key in self._keys.items() for c in self._records.of(trial, key))
        return [c for c in found if c.sample is not None]


def _check_range(
    epochs: int, samples: int, seed: int, num_workers: int | None, num_cpus: float, num_gpus: float
) -> None:
    for name, value, low in (
        ("epochs", epochs, 1), ("samples", samples, 1), ("num_workers", 1 if num_workers is None else num_workers, 1),
        ("num_gpus", num_gpus, 0),
    ):  # fmt: skip
        if not value >= low:
            raise ValueError(f"{name} is {value}; valid: at least {low}")
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed is {seed}; valid: 0 to {MOST_SEED}")
    if not num_cpus > 0:
        raise ValueError(f"num_cpus is {num_cpus}; it must be positive")


def _pick(study: Study, study_name: str, numbers: Sequence[int]) -> list[Trial]:
    """The trials of these numbers. Raises RunError naming the first that is unknown, there twice, or unfit."""
    if not numbers:
        raise RunError("no trial to fine-tune was given; name some of `nas pareto`, such as --trials 3,7,9")
    last = len(study.trials) - 1
    for position, number in enumerate(numbers):
        if not 0 <= number <= last:
            raise RunError(f"study {study_name!r} has no trial {number}; valid: 0 to {last}")
        if number in numbers[:position]:
            raise RunError(f"trial {number} was given twice")
        trial = study.trials[number]
        if trial.state == "failed":
            raise RunError(f"trial {number} of study {study_name!r} failed ({trial.error}); its front: {_front(study)}")
        if not trial.feasible:
            over = ", ".join(name for name, excess in trial.constraints.items() if excess > 0)
            raise RunError(
                f"trial {number} of study {study_name!r} is over its limit on {over}; its front: {_front(study)}"
            )
    return [study.trials[number] for number in numbers]


def _front(study: Study) -> str:
    return ", ".join(str(trial.number) for trial in study.front()) or "empty"


def _inherit(
    records: Records, chosen: Sequence[Trial], supernet: SharedWeights, data: ImageData
) -> dict[str, np.ndarray]:
    """The inherited weights of every trial, as arrays `weights.TRIAL.NAME`; scored and recorded where they are not."""
    from supernet.checkpoint import weights_hash
    from supernet.finetune import scored

    arrays: dict[str, np.ndarray] = {}
    for trial in chosen:
        subnet = supernet.export(cast(Arch, trial.arch))
        arrays |= {f"weights.{trial.number}.{name}": t.numpy() for name, t in subnet.state_dict().items()}
        if not records.of(trial.number, trial.arch.key):
            ready, correct = scored(subnet, data)
            weights = ready.state_dict()
            inherited = Candidate(trial.number, trial.arch.key, len(data.validation), (correct,), weights_hash(weights))
            records.add(inherited, weights)
        measured, found = records.of(trial.number, trial.arch.key)[0].top1, inherited_in_study(trial)
        if measured != found:
            log.warning(
                "trial %d has %.2f%% in its study and %.2f%% now: the study was searched with other weights",
                trial.number, 100 * found, 100 * measured,
            )  # fmt: skip
    return arrays
