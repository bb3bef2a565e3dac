"""The calibrations that a run keeps: writing them, finding the one that a search asks for, and how each was made."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nas.calibration import Calibration
from nas.json_file import write_json
from nas.quantities import show_quantity
from nas.run import Run, RunError
from nas.trust_report import command_again, read_object
from search_spaces import cost

log = logging.getLogger(__name__)

FORMAT = "nas-calibration-1"
MADE = "calibrations.json"  # the options of `nas trust` that made each calibration that the run ever had


def save(run: Run, report: dict[str, Any], calibration: Calibration) -> None:
    """Writes `trust.json`, `calibration.json` and how that was made into the run."""
    identity = {name: report[name] for name in ("weights", "data", "epochs", "seed", "max_macs")}
    write_json(calibration_file(run), {"format": FORMAT, **identity, **calibration.to_dict()})
    made = {"archs": report["n"]} | {name: report[name] for name in ("epochs", "seed", "max_macs")}
    write_json(run.path / MADE, _made(run) | {calibration.identity: made})
    write_json(run.path / "trust.json", report)


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
    data = read_object(file)
    made = {**(read_object(run.fetch("trust.json")) or {}), **(data or {})}  # written together: one may be damaged
    again = f"make it again with: {command_again(run, made)} (stand-alone runs are kept)"
    if data is None or data.get("format") != FORMAT:
        raise RunError(f"{file} is not a calibration of this version ({FORMAT}); {again}")
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
    made = _made(run)

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
    made: Any = _made(run).get(calibration.identity)
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


def _made(run: Run) -> dict[str, Any]:
    """The options by calibration; empty, with a warning, where their file is damaged, which the next one replaces."""
    file = run.fetch(MADE)
    made = read_object(file)
    if made is None and file.exists():
        log.warning("%s is damaged: how former calibrations were made is no longer known", file)
    return made or {}
