"""`trust`: how far a supernet's scores can be trusted, found by training a few of its subnets alone."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.calibration import LEAST_PAIRS, Calibration
from nas.calibrations import save
from nas.json_file import write_json
from nas.run import Run, RunError, require_empty, writing
from nas.sampling import TooFewError, spread_sample
from nas.trust_report import Basis, Pair, command_again, compared, figures, quote
from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from search_spaces.plan import plan

if TYPE_CHECKING:
    from torch import nn

    from supernet.data import ImageData

__all__ = ["quote", "trust_run"]

log = logging.getLogger(__name__)

FORMAT = "nas-standalone-1"
DEFAULT_ARCHS = 12
MOST_SEED = 2**32
ROOM = 2**20  # bytes that must be free before a training; a record takes two for eight images
LONGEST_NAME = 200  # characters of a file's name, of the 255 bytes that file systems take
_RECORDS = "trust"  # the folder of the trainings alone, in that of the run


def trust_run(
    run: Run | str | Path,
    *,
    archs: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    max_macs: float | None = None,
    device: str = "auto",
    on_start: Callable[[int, int], None] = lambda done, total: None,
    on_record: Callable[[dict[str, Any]], None] = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains a sample of the run's subnets alone, compares, fits a calibration; returns `nas.trust_report.figures`.

    archs: how many, by default 12 or as many as there are, spread over the space's genes, poolings and MACs
    (`nas.sampling`); a later call with more extends the sample, and what was trained with these epochs and this seed is
    never trained again. epochs: of each; by default the recipe's. seed: decides sample, initial weights and batches,
    the last two alike for all architectures. max_macs: the sample holds no architecture of more multiply-adds for one
    image: what no search will look at is the dearest to train, and the easiest to rank.
    Both accuracies are read on the search-validation split, with recalibrated batch norms: searches use the
    calibration, and what chooses must not have seen the test set.
    on_start: called with the steps already done and the steps in all; on_record: `step` within a training, `loss`,
    and which `arch` (from 0) of how many `archs` it belongs to. should_stop: asked at every record; True ends the call
    with `Interrupted`, and the architecture under way is trained from its start the next time.
    Raises ValueError for values out of range (InfeasibleLimitsError where `max_macs` leaves nothing), RunError for a
    run that is being trained, CheckpointError for one that is not trained, TrainingError when a training diverges.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    epochs = run.recipe.epochs if epochs is None else epochs
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; valid: at least 1")
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed is {seed}; valid: 0 to {MOST_SEED}")
    if max_macs is not None and not 0 < max_macs < math.inf:
        raise ValueError(f"max_macs is {max_macs}; valid: above 0")
    sample = sample_of(run.space, archs, seed, max_macs)

    from nas.training import load_trained
    from supernet.train import resolve_device

    resolve_device(device)
    require_empty(run.path / _RECORDS, None)
    with writing(run):
        supernet, state, data = load_trained(run)
        basis = Basis(state["weights_hash"], state["data"], epochs, seed, None if max_macs is None else int(max_macs))
        _warn_of_changes(run, basis, len(sample))
        alone = functools.partial(
            standalone_record,
            run,
            data=data,
            epochs=epochs,
            seed=seed,
            device=device,
            teacher=teacher_of(run, state, data),
        )
        standalone = _train_missing(run, sample, basis, data, alone, on_start, on_record, should_stop)
        inherited = _inherited(run, supernet, state, data, sample)
        macs = cost.macs(run.space, sample).tolist()
        pairs = [Pair(*row) for row in zip(sample, macs, inherited, standalone, strict=True)]
        calibration = Calibration.fit(run.space, sample, inherited, [pair.standalone for pair in pairs])
        report = figures(pairs, calibration, basis)
        save(run, report, calibration)
    return report


def sample_of(space: NetworkSpace, archs: int | None, seed: int, max_macs: float | None) -> list[Arch]:
    """The `archs` architectures to train alone; unless that is said 12, or all where `max_macs` leaves fewer.

    Raises ValueError where there are not so many, or too few to compare.
    """
    if archs is not None and archs < LEAST_PAIRS:
        raise ValueError(f"archs is {archs}; valid: at least {LEAST_PAIRS}")
    try:
        return spread_sample(space, archs or DEFAULT_ARCHS, seed, max_macs)
    except TooFewError as error:
        where, found = error.where, error.available
        if found < LEAST_PAIRS:
            raise ValueError(
                f"{where} has {found} architecture{'s' * (found != 1)}; trust needs {LEAST_PAIRS} to compare"
            ) from None
        if archs is not None:
            raise ValueError(f"archs is {archs}; valid in {where}: {LEAST_PAIRS} to {found}") from None
        return spread_sample(space, found, seed, max_macs)


def standalone_record(
    run: Run,
    arch: Arch,
    data: ImageData,
    epochs: int,
    seed: int,
    device: str,
    on_record: Callable[[dict[str, Any]], None],
    teacher: nn.Module | None = None,
) -> dict[str, Any]:
    """Trains `arch` alone and reads which images of the search-validation split it gets right, in fp32 and with
    recalibrated batch norms, as a supernet's subnet is read: a pure function of its arguments, but for the `seconds`.
    """
    from supernet.evaluate import predict, recalibrate
    from supernet.standalone import train_alone
    from supernet.train import TrainingError

    started = time.monotonic()
    largest = run.recipe.is_largest(run.space, arch)
    subnet = train_alone(
        plan(run.space, arch), data, run.recipe, epochs, seed, device, on_record, largest=largest, teacher=teacher
    )
    recalibrate(subnet, data.calibration.images, data.mean, data.std)
    logits = predict(subnet, data.validation.images, data.mean, data.std)
    if not logits.isfinite().all():  # the last step broke what its own gradient could not show yet
        raise TrainingError(f"the network computes no finite numbers after the last step (lr {run.recipe.lr})")
    correct = (logits.argmax(1) == data.validation.labels).numpy()
    return {
        "format": FORMAT,
        "arch": arch.to_dict(),
        "epochs": epochs,
        "seed": seed,
        "largest": largest,
        "images": len(correct),
        "correct": np.packbits(correct).tobytes().hex(),
        "seconds": round(time.monotonic() - started, 3),
    }


def teacher_of(run: Run, state: dict[str, Any], data: ImageData) -> nn.Module | None:
    """The outside teacher that the supernet learnt from, or None. Raises RunError where it is not the same any more."""
    from supernet import checkpoint
    from supernet.teacher import load_teacher

    if run.recipe.teacher is None:
        return None
    teacher = load_teacher(run.recipe.teacher, data)
    if checkpoint.weights_hash(teacher.state_dict()) != state["teacher"]:
        raise RunError(f"the teacher {run.recipe.teacher} is not the one that {run} was trained with")
    return teacher


def _train_missing(
    run: Run,
    sample: Sequence[Arch],
    basis: Basis,
    data: ImageData,
    alone: Callable[..., dict[str, Any]],
    on_start: Callable[[int, int], None],
    on_record: Callable[[dict[str, Any]], None],
    should_stop: Callable[[], bool],
) -> list[np.ndarray]:
    """Which images every architecture gets right alone, bool [images] each; written as soon as they are known."""
    from nas.training import Interrupted
    from supernet.batches import steps_per_epoch
    from supernet.train import TrainingError

    folder = _folder(run, basis)
    folder.mkdir(parents=True, exist_ok=True)
    found = [_read_record(run, folder, arch, basis, len(data.validation)) for arch in sample]
    steps = basis.epochs * steps_per_epoch(len(data.train), run.recipe.batch_size)
    on_start(steps * sum(correct is not None for correct in found), steps * len(sample))

    def record(index: int, values: dict[str, Any]) -> None:
        if should_stop():
            done = sum(correct is not None for correct in found)
            raise Interrupted(
                f"stopped with {done} of {len(sample)} architectures trained; the same command continues: "
                f"{command_again(run, {'archs': len(sample), **asdict(basis)})}"
            )
        on_record({"arch": index, "archs": len(sample), **values})

    for index, arch in enumerate(sample):
        if found[index] is None:
            _require_room(folder)
            try:
                result = alone(arch=arch, on_record=functools.partial(record, index))
            except TrainingError as error:
                raise TrainingError(f"architecture {index + 1} of {len(sample)}, {arch.key}: {error}") from None
            write_json(_file(folder, arch), result)
            found[index] = _unpacked(result)
    return [correct for correct in found if correct is not None]


def _require_room(folder: Path) -> None:
    """Raises OSError where the record of a training would not fit on the disk: before the training, not after it."""
    if shutil.disk_usage(folder).free < ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _inherited(run: Run, supernet: Any, state: dict[str, Any], data: ImageData, sample: Sequence[Arch]) -> list[float]:
    """The search's own score of every architecture, from the run's evaluation cache where it is there."""
    from nas.cache import EvaluationCache
    from nas.evaluating import evaluator_of

    spec, context = evaluator_of(run, supernet, state, data)
    cache, evaluator = EvaluationCache(run.evaluations, json.dumps(context, sort_keys=True)), None
    scores = []
    try:
        for arch in sample:
            known: Mapping[str, float] = cache.get(arch.key) or {}
            if not 0 <= known.get("top1", -1) <= 1:  # it was never evaluated, or somebody changed the file
                evaluator = evaluator or spec.build()
                known = evaluator.evaluate([arch])[0]
                cache.put(arch.key, known)
            scores.append(known["top1"])
    finally:
        cache.close()
    return scores


def _folder(run: Run, basis: Basis) -> Path:
    """Stand-alone trainings depend on neither the supernet's weights nor the sample: only on these two."""
    return run.path / _RECORDS / f"epochs{basis.epochs}-seed{basis.seed}"


def _file(folder: Path, arch: Arch) -> Path:
    name = arch.key
    if len(name) > LONGEST_NAME:  # the record holds the architecture itself
        name = f"{name[: LONGEST_NAME // 2]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / f"{name}.json"


def _read_record(run: Run, folder: Path, arch: Arch, basis: Basis, images: int) -> np.ndarray | None:
    """What a finished training got right, or None. Raises RunError for a record that is not as it was written.

    None, too, where it was trained as another network than the largest, and is that, or the other way round. A record
    that does not say it is of a version to which the largest was the one at the reference pooling alone.
    """
    file = _file(folder, arch)
    if not file.exists():
        return None
    expected = {
        "format": FORMAT, "arch": arch.to_dict(), "epochs": basis.epochs, "seed": basis.seed, "images": images,
    }  # fmt: skip
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if differs := [name for name, value in expected.items() if record[name] != value]:
            raise ValueError(f"its {differs[0]} is {record[differs[0]]}")
        as_largest = record.get("largest", arch == run.space.largest())
        return _unpacked(record) if as_largest == run.recipe.is_largest(run.space, arch) else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} is not as it was written ({error}); remove it to train it again") from None


def _unpacked(record: dict[str, Any]) -> np.ndarray:
    packed = np.frombuffer(bytes.fromhex(record["correct"]), dtype=np.uint8)
    if len(packed) != -(-record["images"] // 8):
        raise ValueError(f"{len(packed)} bytes for {record['images']} images")
    return np.unpackbits(packed, count=record["images"]).astype(bool)


def _warn_of_changes(run: Run, basis: Basis, archs: int) -> None:
    """Says which of the work done before counts now."""
    folder = _folder(run, basis)
    others = sorted({file.parent.name for file in folder.parent.glob("epochs*/*.json")} - {folder.name})
    if others and not folder.exists():
        log.warning("%s has stand-alone trainings of %s; those of %s start anew", run, ", ".join(others), folder.name)
    if not (run.path / "trust.json").is_file():
        return
    try:
        last = quote(run, basis.weights)
    except RunError:
        return  # it is about to be made again
    if last is None:
        log.warning(
            "the last report of %s is on other weights: the supernet is scored again, stand-alone trainings count",
            run,
        )
    elif last["epochs"] == basis.epochs and (last["n"] > archs or last["max_macs"] != basis.max_macs):
        log.warning(
            "the report on %s gives way to one on %s; %s brings it back without training",
            compared(last), compared({"n": archs, "max_macs": basis.max_macs}),
            command_again(run, json.loads((run.path / "trust.json").read_text(encoding="utf-8"))),
        )  # fmt: skip
