"""What a run's space holds, and which limits on its architectures can be met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nas.problem import Problem
from nas.profiles import Profile, costs_with
from nas.run import Run
from nas.searching import EVALUATED, is_stale, require_profile
from nas.service.state import Library
from search_spaces import cost
from search_spaces.arch import Arch
from search_spaces.feasible import InfeasibleLimitsError, preflight
from search_spaces.limits import Limit
from search_spaces.network import NetworkSpace

_SAMPLES = 2000  # architectures behind a distribution
_DRAWS = 200  # beside the smallest and the largest, behind a range


def reachable(
    library: Library, run_id: str, limits: Mapping[str, Limit], profiles: Sequence[Profile] = ()
) -> dict[str, Any]:
    """Between which values limits make sense, and whether these can be met together.

    range: of `macs`, `params`, `peak_memory`, `weight_bytes` and the latency of each profile, what the smallest and the
    largest architectures have, and of `top1` what was measured so far, where anything was. feasible: whether an
    architecture within `limits` was found, as far as costs tell; where not, `message` names the nearest reachable
    values. Raises ValueError for a limit that is none, or one that what is measured cannot be held to.
    """
    require_profile(list(limits), profiles)
    space = library.run(run_id).space
    batch = costs_with(space, profiles)
    ranges = {name: _ends(values) for name, values in batch(_extremes(space)).items()}
    if measured := _measured_top1(library, run_id):
        ranges["top1"] = _ends(np.array(measured))
    problem = Problem(space, {"top1": "maximize"}, limits, batch, EVALUATED)
    try:
        preflight(space, problem.limits, batch)
    except InfeasibleLimitsError as error:
        return {"range": ranges, "feasible": False, "message": str(error), "nearest": dict(error.nearest)}
    return {"range": ranges, "feasible": True, "message": None, "nearest": {}}


def _extremes(space: NetworkSpace) -> list[Arch]:
    """The cheapest and the costliest, and some between: which takes a device the longest is not known."""
    rng = np.random.default_rng(0)
    return [space.smallest(), space.largest(), space.most_macs(), *(space.sample(rng) for _ in range(_DRAWS))]


def _ends(values: np.ndarray) -> list[float]:
    return [float(values.min()), float(values.max())]


def _measured_top1(library: Library, run_id: str) -> list[float]:
    """Inherited accuracies of subnets with the weights that the run has now: of the last validation, and of studies."""
    run, epochs = library.run(run_id), library.training(run_id).epochs
    found = [epochs[-1][name] for name in ("val_top1_min", "val_top1_max") if epochs and name in epochs[-1]]
    for view in library.studies(run_id):
        if view.identity and not is_stale(run, view.identity.context):
            for trial in view.trials:
                found += [trial.metrics[name] for name in ("top1_inherited", "top1") if name in trial.metrics][:1]
    return found


def space_summary(run: Run, samples: int = _SAMPLES) -> dict[str, Any]:
    """What a space holds: its genes and their choices, its size, and MACs and parameters of a random sample."""
    space, rng = run.space, np.random.default_rng(0)
    known = cost.costs(space, [space.sample(rng) for _ in range(samples)], ("macs", "params"))
    return {
        "name": space.name,
        "size": space.size(),
        "description": space.to_dict(),
        "genes": [{"name": gene.name, "choices": list(gene.choices)} for gene in space.genes],
        "sample": {name: values.tolist() for name, values in known.items()},
        "range": {name: _ends(values) for name, values in cost.costs(space, _extremes(space)).items()},
    }
