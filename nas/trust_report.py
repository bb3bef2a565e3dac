"""What a run's stand-alone trainings say of its supernet's scores, as figures, and where they are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.calibration import Calibration
from nas.ranking import Correlation, bootstrap_interval, kendall, noise_ceiling, spearman
from nas.run import Run, RunError, write_json
from search_spaces.arch import Arch

FORMAT = "nas-trust-1"
CALIBRATION_FORMAT = "nas-calibration-1"
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
    """What the figures hold for: the supernet's weights and the run's data (SHA-256), and how the stand-alone networks
    were trained.
    """

    weights: str
    data: str
    epochs: int
    seed: int


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
            "leave_one_out_kendall": kendall(unseen, standalone),
        },
        "archs": rows,
    }
    return _without_nan(report)


def save(run: Run, report: dict[str, Any], calibration: Calibration) -> None:
    """Writes `trust.json` and `calibration.json` into the run."""
    identity = {name: report[name] for name in ("weights", "data", "epochs", "seed")}
    write_json(calibration_file(run), {"format": CALIBRATION_FORMAT, **identity, **calibration.to_dict()})
    write_json(run.path / "trust.json", report)


def quote(run: Run, weights_hash: str) -> dict[str, Any] | None:
    """The figures that a model card quotes, when the run has a trust report on these very weights; else None.

    kendall and spearman of inherited with stand-alone accuracy, each with its 95 % interval; null_kendall, that of
    MACs alone; n architectures, trained alone for `epochs` epochs.
    """
    report = _read(run.path / "trust.json")
    if report is None or report.get("format") != FORMAT or report.get("weights") != weights_hash:
        return None
    return {
        "kendall": report["kendall"]["value"],
        "kendall_interval": report["kendall"]["interval"],
        "spearman": report["spearman"]["value"],
        "spearman_interval": report["spearman"]["interval"],
        "null_kendall": report["null_kendall"]["value"],
        "n": report["n"],
        "epochs": report["epochs"],
    }


def quoted_text(trust: Mapping[str, Any] | None) -> str:
    """What `quote` returned, in words."""
    if trust is None:
        return "not measured (`nas trust`)"
    if trust["kendall"] is None:
        return f"no rank correlation among {trust['n']} subnets trained alone"
    low, high = trust["kendall_interval"]
    null = "none" if trust["null_kendall"] is None else f"{trust['null_kendall']:.2f}"
    return (
        f"Kendall {trust['kendall']:.2f} ({low:.2f} to {high:.2f}) with {trust['n']} subnets trained alone for "
        f"{trust['epochs']} epochs; MACs alone {null}"
    )


def calibration_file(run: Run) -> Path:
    """Where a run keeps its calibration."""
    return run.path / "calibration.json"


def require_calibration(run: Run) -> None:
    """Raises RunError, with what to run, where the run has no calibration."""
    if not calibration_file(run).exists():
        raise RunError(f"{run.path} has no calibration; make one with: nas trust {run.path}")


def load_calibration(run: Run, weights: str) -> Calibration:
    """The run's calibration, fitted again from its pairs; `weights` is the supernet's hash, or how it begins.

    Raises RunError, with what to run, where it is missing, damaged, or of other weights.
    """
    require_calibration(run)
    file, again = calibration_file(run), f"make it again with: nas trust {run.path} (stand-alone runs are kept)"
    data = _read(file)
    if data is None or data.get("format") != CALIBRATION_FORMAT:
        raise RunError(f"{file} is not a calibration of this version ({CALIBRATION_FORMAT}); {again}")
    if not str(data.get("weights")).startswith(weights):
        raise RunError(
            f"{file} belongs to other weights ({str(data.get('weights'))[:16]}) than the supernet has now "
            f"({weights[:16]}); {again}"
        )
    try:
        return Calibration.from_dict(run.space, data)
    except ValueError as error:
        raise RunError(f"{file} cannot be used: {error}; {again}") from None


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
