"""One function under many configurations as Ray Tune trials, the worse of which are stopped early by asynchronous
successive halving (ASHA, Li et al. 2020).

Which configurations are tried is the caller's decision. Which of them are stopped depends on what the others had
reported when each came to a rung, and so on timing: ASHA trades that for workers that never wait.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
import torch
from ray import cloudpickle, tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from workers.pool import describe
from workers.ray_pool import connect, environment, warn_if_short_of

MOST_FAILURES = 3  # deaths of the worker of one sample before that is given up

Report = Callable[[float, Any], None]
"""Called after each epoch: the score, the higher the better, and what the driver shall have of it, picklable."""

Work = Callable[[Mapping[str, Any], Mapping[str, np.ndarray], Report], None]
"""Trains under a configuration, with the shared arrays, and reports after each epoch."""


class RayTuneError(RuntimeError):
    """Samples failed for a reason outside of what was tried; the message has the first."""


@dataclass(frozen=True)
class Sample:
    """One configuration to try, picklable. It competes with the samples of its `group` alone."""

    group: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A sample that came to its end, or was stopped early.

    scores: after each epoch, as reported. value: what was reported with the last. seconds: since its start.
    """

    index: int
    scores: tuple[float, ...]
    value: Any
    seconds: float


@dataclass(frozen=True)
class Halving:
    """Settings of ASHA: after `grace` epochs, and after each `reduction` times as many, a sample goes on if it is
    among the best 1 / `reduction` of those of its group that got there; at most `epochs` in all.

    past: scores by group of samples of earlier calls, against which the new ones compete too.
    """

    epochs: int
    grace: int = 1
    reduction: float = 3
    past: Mapping[str, Sequence[Sequence[float]]] | None = None


def run_on_tune(
    work: Work,
    samples: Sequence[Sample],
    shared: Mapping[str, np.ndarray],
    halving: Halving,
    folder: Path,
    *,
    num_workers: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    address: str = "local",
    on_score: Callable[[int, int, float], None] = lambda index, epoch, score: None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Calls `work` once for every sample, on Ray Tune; False when `should_stop` ended it before all had come to an end.

    shared: read-only, one copy a node. folder: holds Ray Tune's own files while it runs, on this machine alone.
    num_workers: samples under way at a time, by default as many as Ray has room for, with `num_cpus` and `num_gpus`
    each. address: as of `RayPool`; a local Ray has this machine's CPUs, or what `num_workers` need, and its GPUs.
    A sample whose worker dies begins again, up to three times. on_score: index of the sample, epoch from 1, score.
    on_outcome: every sample that ended, as it ends; both are called in this thread. should_stop: asked several times a
    second; samples under way are then abandoned, which takes some seconds.
    Raises ValueError for a bad address, ConnectionError when no cluster answers, what a callback raises, and
    RayTuneError when `work` raised or a sample's workers kept dying, after all other samples have ended.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # files that nobody reads
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is the caller's
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the newer one prints a table whatever the verbosity
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what failed is raised here, what stopped was asked to
    owns_ray = not ray.is_initialized()
    if owns_ray:
        cpus = (os.cpu_count() or 1) if num_workers is None else num_workers * num_cpus
        connect(address, math.ceil(cpus), torch.cuda.device_count() if num_gpus else 0)
    folder = folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)  # of a driver that was killed
    watch = _Watch(on_score, on_outcome, should_stop)
    try:
        warn_if_short_of(num_workers or 1, {"CPU": num_cpus, "GPU": num_gpus})
        trainable = _trainable(work, samples, shared, environment(num_cpus, address))
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": num_cpus, "gpu": num_gpus}),
            param_space={"index": tune.grid_search(list(range(len(samples))))},
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                scheduler=_HalvingByGroup([sample.group for sample in samples], halving),
                max_concurrent_trials=num_workers,
                reuse_actors=True,  # a process that has torch imported
            ),
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=MOST_FAILURES),
                callbacks=[watch],
                stop=_StopWhen(watch),
                verbose=0,
            ),
        )
        tuner.fit()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if owns_ray:
            ray.shutdown()  # also what ends the workers where the driver is interrupted
    if watch.error is not None:
        raise watch.error
    if watch.failed and not watch.stopped:
        raise RayTuneError(f"{len(watch.failed)} of {len(samples)} samples failed, the first with: {watch.failed[0]}")
    return watch.ended + len(watch.failed) == len(samples)


def _trainable(
    work: Work, samples: Sequence[Sample], shared: Mapping[str, np.ndarray], variables: Mapping[str, str]
) -> Any:
    """What Ray Tune calls in a worker's process.

    A local function with its job as bytes, for nothing of ours can be imported before the path is the driver's.
    """

    def run(config: dict[str, Any], job: bytes, shared: Mapping[str, np.ndarray]) -> None:
        paths = variables.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [path for path in paths if path and path not in sys.path[: len(paths)]]
        from workers.ray_tune import _on_worker

        _on_worker(config["index"], job, shared)

    return tune.with_parameters(run, job=cloudpickle.dumps((work, list(samples))), shared=dict(shared))


def _on_worker(index: int, job: bytes, shared: Mapping[str, np.ndarray]) -> None:
    """One sample. What `work` raises is its result: Ray Tune would begin it again, to end no better."""
    work, samples = cloudpickle.loads(job)
    try:
        work(samples[index].config, shared, lambda score, value: tune.report({"score": float(score), "value": value}))
    except Exception as error:
        tune.report({"score": -math.inf, "error": describe(error)})


class _Watch(tune.Callback):
    """Takes what the workers report to the caller. An error of the caller's is kept, for Ray Tune would retry it."""

    def __init__(
        self,
        on_score: Callable[[int, int, float], None],
        on_outcome: Callable[[Outcome], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._on_score, self._on_outcome, self._should_stop = on_score, on_outcome, should_stop
        self._scores: dict[int, list[float]] = {}
        self._last: dict[int, dict[str, Any]] = {}
        self.stopped, self.ended, self.failed = False, 0, list[str]()
        self.error: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune saves it for a continuation that is not made from its files

    def stop(self) -> bool:
        if not self.stopped:
            self.stopped = self.error is not None or self._should_stop()
        return self.stopped

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        index, epoch = trial.config["index"], result["training_iteration"]
        # taken out, so that Ray Tune neither keeps nor writes it
        self._last[index] = {name: result.pop(name) for name in ("value", "error") if name in result}
        self._last[index]["seconds"] = result["time_total_s"]
        if "error" not in self._last[index]:
            # a sample that begins again starts at 1 again
            self._scores[index] = [*self._scores.get(index, [])[: epoch - 1], result["score"]]
            self._call(self._on_score, index, epoch, result["score"])

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        index = trial.config["index"]
        last = self._last.pop(index, {"error": "it reported nothing"})
        if "error" in last:
            self.failed.append(last["error"])
        else:
            self.ended += 1
            self._call(self._on_outcome, Outcome(index, tuple(self._scores[index]), last["value"], last["seconds"]))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.failed.append(f"its worker died {MOST_FAILURES + 1} times")

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            if self.error is None:
                function(*arguments)
        except Exception as error:
            self.error = error


class _StopWhen(tune.Stopper):
    """Ends the experiment when the watch says so."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._watch.stop()


class _HalvingByGroup(FIFOScheduler):
    """An ASHA of its own for every group: the samples of one are not measured by those of another."""

    metric = "score"

    def __init__(self, groups: Sequence[str], halving: Halving) -> None:
        super().__init__()
        self._groups = groups
        self._ashas = {group: _asha(halving, (halving.past or {}).get(group, ())) for group in dict.fromkeys(groups)}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_add(controller, trial)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return self._of(trial).on_trial_result(controller, trial, result)

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(controller, trial, result)

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(controller, trial)

    def _of(self, trial: Any) -> ASHAScheduler:
        return self._ashas[self._groups[trial.config["index"]]]


def _asha(halving: Halving, past: Sequence[Sequence[float]]) -> ASHAScheduler:
    """An ASHA that has seen the scores of earlier samples."""
    asha: Any = ASHAScheduler(
        metric="score", mode="max", max_t=halving.epochs, grace_period=min(halving.grace, halving.epochs),
        reduction_factor=halving.reduction,
    )  # fmt: skip
    for number, scores in enumerate(past):
        trial = SimpleNamespace(trial_id=f"past{number}")
        asha.on_trial_add(None, trial)
        for epoch, score in enumerate(scores, start=1):
            asha.on_trial_result(None, trial, {"training_iteration": epoch, "score": score})
    return asha
