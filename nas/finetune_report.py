"""What fine-tuning has found, as plain data: the results of a study's trials, and the weights that an export takes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.finetune_records import Candidate, Records, basis_of, best
from nas.run import Run, RunError
from search_spaces.arch import Arch

if TYPE_CHECKING:
    from torch import Tensor

    from nas.trial import Trial


def summarize(records: Records, study_name: str, trials: Sequence[Trial]) -> dict[str, Any]:
    """All that is recorded for the trials of a study, in plain JSON types, with one entry of `trials` for each.

    inherited: accuracy from 0 to 1 before. finetuned: that of the best sample, with its `lr`, its `weight_decay` and
    the epochs that it `reached` of `epochs`; None where all diverged. It is a maximum over `n_samples`, read on the
    images that chose it. kept: whose weights are in `file`: "inherited" where no sample is better. samples: each with
    its state: finished, stopped (early, by ASHA) or diverged.
    """
    rows = []
    for number in records.trials():
        if number >= len(trials) or not (found := records.of(number, trials[number].arch.key)):
            continue
        trial, kept = trials[number], best(found)
        samples = [c for c in found if c.sample is not None]
        top = max((c for c in samples if c.error is None), key=lambda c: c.top1, default=None)
        states = [c.state for c in samples]
        rows.append({
            "trial": number, "key": trial.arch.key, "arch": trial.arch.to_dict(), "macs": trial.metrics["macs"],
            "params": trial.metrics["params"], "images": kept.images,
            "inherited_in_study": inherited_in_study(trial), "inherited": found[0].top1,
            "finetuned": top and top.top1, "lr": top and top.lr, "weight_decay": top and top.weight_decay,
            "epochs": top and top.epochs, "reached": top and top.reached,
            "kept": "inherited" if kept.sample is None else "finetuned", "top1": kept.top1,
            "file": records.file(number).name, "weights_sha256": kept.weights,
            "n_samples": len(samples), "n_stopped": states.count("stopped"), "n_diverged": states.count("diverged"),
            "samples": [c.to_dict() | {"state": c.state, "top1": c.top1} for c in samples],
        })  # fmt: skip
    return {**records.basis, "study": study_name, "split": "validation", "trials": rows}


def inherited_in_study(trial: Trial) -> float:
    """The accuracy that the search measured; a calibrated study's `top1` is another one."""
    return trial.metrics.get("top1_inherited", trial.metrics["top1"])


def load_finetuned(
    run: Run, study_name: str, arch: Arch, state: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The best weights of an architecture that was fine-tuned as a trial of this study, as a state dict, and how they
    came about, as `described` takes it.

    state: of the run's checkpoint. Raises RunError, with what to run, where there are none for the supernet's weights
    or they were changed.
    """
    records = Records(run, study_name, basis_of(run, state))
    trial, found = _candidates(records, run, study_name, arch)
    kept = best(found)
    entry = {
        "study": study_name, "trial": trial, "kept": "inherited" if kept.sample is None else "finetuned",
        "inherited_top1": found[0].top1, "top1": kept.top1, "lr": kept.lr, "weight_decay": kept.weight_decay,
        "epochs": kept.reached, "samples": len(found) - 1, "weights_sha256": kept.weights,
    }  # fmt: skip
    return records.weights(trial), entry


def require_finetuned(run: Run, study_name: str, arch: Arch) -> None:
    """Raises what `load_finetuned` raises where there are no weights, in a moment: it reads none, nor imports torch."""
    records = Records(run, study_name, basis_of(run, run.checkpoint_state()), whole=False)
    _candidates(records, run, study_name, arch)


def _candidates(records: Records, run: Run, study_name: str, arch: Arch) -> tuple[int, list[Candidate]]:
    """The trial as which an architecture was fine-tuned, and what was tried for it, the inherited weights first."""
    for trial in records.trials():
        if len(found := records.of(trial, arch.key)) > 1:  # the first is what it began with
            return trial, found
    name = "" if study_name == "default" else f" --study-name {study_name}"
    command = f"nas finetune {shlex.quote(str(run))}{name} --trials N"
    if records.others and not records.trials():
        raise RunError(
            f"what was fine-tuned of study {study_name!r} belongs to other weights than the supernet has now "
            f"({records.basis['weights'][:16]}); fine-tune again with: {command}"
        )
    known = ", ".join(map(str, records.trials())) or "none"
    raise RunError(
        f"study {study_name!r} has no fine-tuned weights of {arch.key}; fine-tuned trials: {known}; "
        f"fine-tune it with: {command}"
    )


def described(entry: Mapping[str, Any]) -> str:
    """The entry of `load_finetuned` in words."""
    samples = f"{entry['samples']} sample{'s' * (entry['samples'] != 1)}"
    if entry["kept"] == "inherited":
        return (
            f"tried with {samples}, none of which is better than the inherited {entry['inherited_top1']:.2%} on "
            "search-validation: these are the inherited weights"
        )
    return (
        f"{entry['epochs']} epoch{'s' * (entry['epochs'] != 1)} from the inherited weights, learning rate "
        f"{entry['lr']:.2g}, weight decay {entry['weight_decay']:.2g}: search-validation top-1 from "
        f"{entry['inherited_top1']:.2%} to {entry['top1']:.2%}, the best of {samples} by that figure"
    )
