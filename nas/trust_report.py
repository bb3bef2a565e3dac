"""What a run's stand-alone trainings say of its supernet's scores, as figures, and where they are kept."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.calibration import LEAST_PAIRS, Calibration
from nas.quantities import show_quantity
from nas.ranking import Correlation, bootstrap_interval, kendall, noise_ceiling, spearman
from nas.run import Run, RunError, write_json
from search_spaces import cost
from search_spaces.arch import Arch

FORMAT = "nas-trust-1"
CALIBRATION_FORMAT = "nas-calibration-1"
CALIBRATIONS = "calibrations.json"  # the options of `nas trust` that made each calibration that the run ever had
MOST_BINS = 4  # of MACs; at least two architectures each


@dataclass(frozen=True)
class Pair:
    """One architecture's accuracy on the search-validation split, from 0 to 1, by shared weights and trained alone.

    macs: multiply-adds for one image. correct: which images it gets right trained alone, bool [images].
    """

    arch: Arch
    macs: int
    inherited: float
    correct: np.ndarray

    @property
    def standalone(self) -> float:
        """Accuracy trained alone."""
        return float(self.correct.mean())


@dataclass(frozen=True)
class Basis:
    """What the figures hold for: the supernet's weights and the run's data (SHA-256), how the stand-alone networks were
    trained, and up to how many MACs they were sampled, if not of the whole space.
    """

    weights: str
    data: str
    epochs: int
    seed: int
    max_macs: int | None = None


def figures(pairs: Sequence[Pair], calibration: Calibration, basis: Basis) -> dict[str, Any]:
    """The whole report in plain JSON types; a correlation that does not exist is null.

    kendall, spearman: of inherited with stand-alone accuracy. null_kendall: of MACs alone with it; a supernet that
    ranks no better has said nothing. noise_ceiling: see `nas.ranking.noise_ceiling`. bins: stand-alone minus inherited
    accuracy, by MACs. calibration: its error and rank correlation on architectures that it was not fitted to.
    """
    inherited = np.array([pair.inherited for pair in pairs])
    standalone = np.array([pair.standalone for pair in pairs])
    macs = np.array([float(pair.macs) for pair in pairs])
    unseen = calibration.leave_one_out()
    correct = np.stack([pair.correct for pair in pairs])
    rows = [
        {
            "key": p.arch.key,
            "macs": p.macs,
            "inherited": p.inherited,
            "standalone": p.standalone,
            "arch": p.arch.to_dict(),
        }
        for p in pairs
    ]
    report = {
        "format": FORMAT,
        **asdict(basis),
        "split": "validation",
        "images": correct.shape[1],
        "n": len(pairs),
        "kendall": _with_interval(kendall, inherited, standalone),
        "spearman": _with_interval(spearman, inherited, standalone),
        "null_kendall": _with_interval(kendall, macs, standalone),
        "noise_ceiling": {
            name: noise_ceiling(correlation, correct, np.random.default_rng(0))
            for name, correlation in (("kendall", kendall), ("spearman", spearman))
        },
        "bins": _bins(macs, standalone - inherited),
        "calibration": {
            "identity": calibration.identity,
            "leave_one_out_rmse": float(np.sqrt(((unseen - standalone) ** 2).mean())),
            "leave_pairs_out_kendall": calibration.leave_pairs_out_kendall(),
        },
        "archs": rows,
    }
    return _without_nan(report)


def save(run: Run, report: dict[str, Any], calibration: Calibration) -> None:
    """Writes `trust.json` and `calibration.json` into the run."""
    identity = {name: report[name] for name in ("weights", "data", "epochs", "seed", "max_macs")}
    write_json(calibration_file(run), {"format": CALIBRATION_FORMAT, **identity, **calibration.to_dict()})
    made = {"archs": report["n"]} | {name: report[name] for name in ("epochs", "seed", "max_macs")}
    write_json(run.path / CALIBRATIONS, (_read(run.fetch(CALIBRATIONS)) or {}) | {calibration.identity: made})
    write_json(run.path / "trust.json", report)


def quote(run: Run, weights_hash: str) -> dict[str, Any] | None:
    """The figures that a model card quotes, when the run has a trust report on these very weights; else None.

    kendall and spearman of inherited with stand-alone accuracy, each with its 95 % interval; null_kendall, that of
    MACs alone; n architectures, of at most `max_macs` unless that is None, trained alone for `epochs` epochs.
    Raises RunError for a report that was changed.
    """
    file = run.path / "trust.json"
    report = _read(file)
    if report is None or report.get("format") != FORMAT or report.get("weights") != weights_hash:
        return None
    try:
        most = report.get("max_macs")  # reports of before there was a limit lack it
        found: dict[str, Any] = {"n": _count(report["n"]), "epochs": _count(report["epochs"])}
        found["max_macs"] = None if most is None else _count(most)
        for name in ("kendall", "spearman", "null_kendall"):
            found[name], found[f"{name}_interval"] = _correlation(**report[name])
    except (KeyError, TypeError, ValueError) as error:
        command = command_again(run, report)
        raise RunError(f"{file} is not as it was written ({error!r}); make it again with: {command}") from None
    del found["null_kendall_interval"]
    return found


def quoted_text(trust: Mapping[str, Any] | None) -> str:
    """What `quote` returned, in words."""
    if trust is None:
        return "not measured (`nas trust`)"
    if trust["kendall"] is None:
        return f"no rank correlation among {compared(trust, 'subnets')} trained alone"
    low, high = trust["kendall_interval"]
    null = "none" if trust["null_kendall"] is None else f"{trust['null_kendall']:.2f}"
    return (
        f"Kendall {trust['kendall']:.2f} ({low:.2f} to {high:.2f}) with {compared(trust, 'subnets')} trained alone for "
        f"{trust['epochs']} epoch{'s' * (trust['epochs'] != 1)}; MACs alone {null}"
    )


def compared(report: Mapping[str, Any], noun: str = "architectures") -> str:
    """`12 architectures`, or `12 architectures of at most 40M MACs`, of a report or what `quote` returned."""
    most = report.get("max_macs")
    return f"{report['n']} {noun}" + ("" if most is None else f" of at most {show_quantity(most)} MACs")


def calibration_file(run: Run) -> Path:
    """Where a run keeps its calibration."""
    return run.path / "calibration.json"


def require_calibration(run: Run) -> None:
    """Raises RunError, with what to run, where the run has no calibration."""
    if not calibration_file(run).exists():
        raise RunError(f"{run} has no calibration; make one with: nas trust {shlex.quote(str(run))}")


def load_calibration(run: Run, weights: str) -> Calibration:
    """The run's calibration, fitted again from its pairs; `weights` is the supernet's hash, or how it begins.

    Raises RunError, with what to run, where it is missing, damaged, or of other weights.
    """
    require_calibration(run)
    file = calibration_file(run)
    data = _read(file)
    made = {**(_read(run.fetch("trust.json")) or {}), **(data or {})}  # written together: one may be damaged
    again = f"make it again with: {command_again(run, made)} (stand-alone runs are kept)"
    if data is None or data.get("format") != CALIBRATION_FORMAT:
        raise RunError(f"{file} is not a calibration of this version ({CALIBRATION_FORMAT}); {again}")
    if not str(data.get("weights")).startswith(weights):
        raise RunError(
            f"{file} belongs to other weights ({str(data.get('weights'))[:16]}) than the supernet has now "
            f"({weights[:16]}); {again}"
        )
    try:
        calibration = Calibration.from_dict(run.space, data)
    except ValueError as error:
        raise RunError(f"{file} cannot be used: {error}; {again}") from None
    accuracies = np.concatenate([calibration.inherited, calibration.standalone])
    if accuracies.min() < 0 or accuracies.max() > 1:
        raise RunError(f"{file} cannot be used: it holds an accuracy outside 0 to 1; {again}")
    if np.ptp(calibration.standalone) == 0:
        raise RunError(
            f"{file} ranks nothing: all {len(calibration.archs)} networks trained alone have {accuracies[-1]:.2%}; "
            f"train them longer: nas trust {shlex.quote(str(run))} with more --epochs than {data.get('epochs')}"
        )
    return calibration


def require_calibration_of(run: Run, study_name: str, before: str | None, calibration: Calibration) -> None:
    """Raises RunError where a study was searched with another calibration than the run has now.

    before: the identity of the study's, or None where it has none. The message says how to make it again, if the run
    knows: `nas trust` with the same options on the same weights gives the same calibration.
    """
    if before is None or before == calibration.identity:
        return
    made = _read(run.fetch(CALIBRATIONS)) or {}

    def options(identity: str) -> str:
        values = made.get(identity)
        if not isinstance(values, dict):
            return "with options that are not recorded"
        return "by " + command_again(run, values)

    raise RunError(
        f"study {study_name!r} belongs to another calibration: context.calibration is {before} in the study and "
        f"{calibration.identity} now; the study's was made {options(before)}, the present one "
        f"{options(calibration.identity)}; make the study's again, or use another --study-name"
    )


def concern_beyond_sample(run: Run, calibration: Calibration, most: float) -> str | None:
    """Why the scores of a search of up to `most` MACs are partly guesses: its calibration saw fewer. Else None."""
    made: Any = (_read(run.fetch(CALIBRATIONS)) or {}).get(calibration.identity)
    seen = made.get("max_macs") if isinstance(made, dict) else None
    largest = int(cost.macs(run.space, [run.space.most_macs()])[0])
    if not isinstance(seen, int) or min(most, largest) <= seen:
        return None
    wider = command_again(run, {**made, "max_macs": None if most >= largest else int(most)})
    return (
        f"the calibration was made of architectures of at most {show_quantity(seen)} MACs, and this search goes "
        f"beyond; its accuracies there are extrapolated. Search with --max-macs {seen}, or calibrate further: {wider}"
    )


def is_recalibrated(run: Run, context: Mapping[str, str]) -> bool:
    """Whether a study of this context was scored by another calibration than the run has for the same weights."""
    try:
        return "calibration" in context and load_calibration(run, context["weights"]).identity != context["calibration"]
    except RunError:  # it has none for them, which whoever asks for one is told
        return False


def command_again(run: Run, written: Mapping[str, Any]) -> str:
    """The command that makes a report or a calibration again, with the options of the one that was written."""
    command = f"nas trust {shlex.quote(str(run))}"
    pairs, archs = written.get("pairs"), written.get("archs")
    for rows in (pairs if isinstance(pairs, list) else None, archs):
        archs = len(rows) if isinstance(rows, list) else rows
        if isinstance(archs, int) and archs >= LEAST_PAIRS:  # else it was damaged, and would be refused
            command += f" --archs {archs}"
            break
    names = ("epochs", "seed", "max_macs")
    return command + "".join(
        f" --{name.replace('_', '-')} {written[name]}" for name in names if isinstance(written.get(name), int)
    )


def _correlation(value: float | None, interval: Sequence[float | None]) -> tuple[float | None, list[float | None]]:
    low, high = interval
    if value is not None and not (-1 <= value <= 1 and low is not None and high is not None and -1 <= low <= high <= 1):
        raise ValueError(f"a correlation of {value} in {low} to {high}")
    return value, [low, high]


def _count(value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"a count of {value}")
    return value


def _read(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _with_interval(correlation: Correlation, a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    interval = bootstrap_interval(correlation, a, b, np.random.default_rng(0))
    return {"value": correlation(a, b), "interval": list(interval)}


def _bins(macs: np.ndarray, gap: np.ndarray) -> list[dict[str, Any]]:
    """The gap in parts of nearly equal numbers of architectures, by ascending MACs."""
    parts = np.array_split(np.argsort(macs, kind="stable"), min(MOST_BINS, len(macs) // 2))
    return [
        {
            "macs_min": int(macs[part].min()),
            "macs_max": int(macs[part].max()),
            "n": len(part),
            "gap_mean": float(gap[part].mean()),
            "gap_min": float(gap[part].min()),
            "gap_max": float(gap[part].max()),
        }
        for part in parts
    ]


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
