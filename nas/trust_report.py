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
from nas.run import Run, RunError
from search_spaces.arch import Arch

FORMAT = "nas-trust-1"
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


def quote(run: Run, weights_hash: str) -> dict[str, Any] | None:
    """The figures that a model card quotes, when the run has a trust report on these very weights; else None.

    kendall and spearman of inherited with stand-alone accuracy, each with its 95 % interval; null_kendall, that of
    MACs alone; n architectures, of at most `max_macs` unless that is None, trained alone for `epochs` epochs.
    Raises RunError for a report that was changed.
    """
    file = run.path / "trust.json"
    report = read_object(file)
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


def read_object(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def _correlation(value: float | None, interval: Sequence[float | None]) -> tuple[float | None, list[float | None]]:
    low, high = interval
    if value is not None and not (-1 <= value <= 1 and low is not None and high is not None and -1 <= low <= high <= 1):
        raise ValueError(f"a correlation of {value} in {low} to {high}")
    return value, [low, high]


def _count(value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"a count of {value}")
    return value


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
