"""How the workers of a search build the evaluator of a run, and what its results depend on."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.run import Run
from supernet import evaluators

if TYPE_CHECKING:
    from supernet.data import ImageData
    from supernet.mixture import SharedWeights
    from workers.evaluator import EvaluatorSpec

BATCH = 32  # most subnets in a call of the fast evaluator, where the lookahead lets as many wait for a worker


def check_evaluator(name: str | None, worker_memory: float | None) -> None:
    """Raises ValueError for an unknown evaluator, and for a worker's memory that is none or is not one to be set."""
    if name is not None:
        evaluators.check(name)
    if worker_memory is not None and (name == "reference" or worker_memory <= 0):
        raise ValueError(
            f"worker memory is {worker_memory:g}; valid: a positive number of bytes, with evaluator 'fast'"
        )


def evaluator_spec(
    run: Run, device: str = "cpu", evaluator: str | None = None, worker_memory: float | None = None
) -> tuple[EvaluatorSpec, dict[str, str]]:
    """How workers build the run's evaluator, and what its results depend on: the weights, the split, a GPU."""
    from nas.training import load_trained

    return evaluator_of(run, *load_trained(run), device, evaluator, worker_memory)


def evaluator_of(
    run: Run,
    supernet: SharedWeights,
    state: Mapping[str, Any],
    data: ImageData,
    device: str = "cpu",
    evaluator: str | None = None,
    worker_memory: float | None = None,
) -> tuple[EvaluatorSpec, dict[str, str]]:
    """`evaluator_spec` of what `load_trained` gave."""
    from supernet.evaluate import evaluator_from_arrays, shared_arrays
    from workers.evaluator import EvaluatorSpec

    name = evaluator or ("fast" if device == "cpu" else "reference")
    options: dict[str, Any] = {} if worker_memory is None else {"memory": int(worker_memory)}
    factory = functools.partial(
        evaluator_from_arrays, run.space.to_dict(), data.mean, data.std, device,
        members=run.recipe.members, evaluator=name, **options,
    )  # fmt: skip
    spec = EvaluatorSpec(factory, shared_arrays(supernet.state_dict(), data), BATCH if name == "fast" else 1)
    context = context_of(state)
    return spec, context if device == "cpu" else context | {"device": device}


def context_of(state: Mapping[str, Any]) -> dict[str, str]:
    """What evaluations depend on, from the state of the run's checkpoint: the weights and the split."""
    return {"weights": state["weights_hash"][:16], "data": state["data"][:16], "split": "validation"}
