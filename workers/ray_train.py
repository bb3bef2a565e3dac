"""One function on several Ray Train workers that form a torch process group: a supernet trained on a Ray cluster.

The workers must see the driver's files under the same paths: on more than one machine that takes a shared file system.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray import cloudpickle

from workers.mailbox import Mailbox
from workers.ray_connect import connect, environment, warn_if_short_of

log = logging.getLogger(__name__)

MOST_FAILURES = 3  # deaths of workers before a run is given up
POLL_SECONDS = 0.2  # between two looks of the driver for news
ASK_SECONDS = 1.0  # between two questions of a worker whether to stop


class RayTrainError(RuntimeError):
    """Training on Ray failed for a reason outside of the trained function; the message says which."""


class NoWorkerError(RayTrainError):
    """A request to stop came while the workers waited for what Ray lacks; nothing was trained."""


class Channel:
    """A worker's end of the mailbox."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox, self._asked, self._stop = mailbox, 0.0, False

    def send(self, message: Any) -> None:
        """Gives the driver a picklable message, in order, without waiting for it."""
        self._mailbox.send.remote(message)

    def should_stop(self) -> bool:
        """Whether the driver was asked to stop, as of a second ago at most."""
        if time.monotonic() - self._asked > ASK_SECONDS:
            self._stop, self._asked = ray.get(self._mailbox.asked_to_stop.remote()), time.monotonic()
        return self._stop


def run_on_ray(
    work: Callable[[Channel, str], Any],
    num_workers: int,
    folder: Path,
    address: str = "local",
    device: str = "auto",
    fatal: tuple[type[Exception], ...] = (),
    on_message: Callable[[Any], None] = lambda message: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Any:
    """Calls `work` on `num_workers` Ray Train workers; returns what it returns on rank 0.

    work: picklable; gets its channel and its device, "cpu" or "cuda". Where a worker dies, all are started anew and
        call it again: it must go on from its own last checkpoint.
    folder: holds Ray Train's own files while it runs; every worker must see it.
    address: as of `RayPool`. device: "cuda" gives each worker a GPU, "auto" does where Ray has one for each.
    fatal: exceptions of `work` that are raised here and not tried again. on_message: gets what workers send.
    should_stop: polled; passed on to the workers.
    Raises what `connected` does, RayTrainError when workers die for the fourth time, and NoWorkerError when asked to
    stop while Ray lacks what the workers need.
    """

    def _start(config: dict[str, Any]) -> Any:
        # Local and with its job as bytes, so that Ray's controller, which has another environment than the workers,
        # can hold it without importing anything of ours.
        from workers.ray_train import _on_worker

        return _on_worker(config)

    with connected(address, num_workers, device):
        use_gpu = device == "cuda" or (device == "auto" and ray.cluster_resources().get("GPU", 0) >= num_workers)
        short = warn_if_short_of(num_workers, {"CPU": 1.0, "GPU": float(use_gpu)})
        runtime_env = {"env_vars": environment(1, address)}
        mailbox = ray.remote(Mailbox).options(num_cpus=0, runtime_env=runtime_env).remote()
        storage = folder.resolve() / "ray_train"
        trainer = ray.train.torch.TorchTrainer(
            _start,
            train_loop_config={
                "job": cloudpickle.dumps((work, fatal)), "mailbox": mailbox, "device": "cuda" if use_gpu else "cpu",
                "folder": os.getcwd(),
            },
            scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
            run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # mypy takes Ray Train 1's
                name=storage.name,
                storage_path=str(storage.parent),
                failure_config=ray.train.FailureConfig(max_failures=MOST_FAILURES),
                worker_runtime_env=runtime_env,
            ),
        )  # fmt: skip
        try:
            return _follow(trainer, mailbox, on_message, should_stop, short)
        finally:
            shutil.rmtree(storage, ignore_errors=True)


@contextlib.contextmanager
def connected(address: str, num_workers: int, device: str) -> Iterator[None]:
    """A block within which this process is connected to the Ray that `run_on_ray` takes; one that it has is kept.

    Raises ValueError for a bad address, or for "cuda" where this machine is to have the workers and has fewer GPUs,
    and ConnectionError when no cluster answers.
    """
    if ray.is_initialized():
        yield
        return
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if address == "local" and device == "cuda" and gpus < num_workers:
        raise ValueError(
            f"device 'cuda' takes a GPU for each worker: {num_workers} are wanted, this machine has {gpus}; "
            "valid: as many workers as GPUs, device 'cpu', or the address of a cluster"
        )
    connect(address, num_workers, gpus)
    try:
        yield
    finally:
        ray.shutdown()  # also what ends the workers where the driver is interrupted


def _on_worker(config: dict[str, Any]) -> Any:
    """Runs in every worker's process."""
    mailbox, (work, fatal) = config["mailbox"], cloudpickle.loads(config["job"])
    if ray.get(mailbox.join.remote()) is not None:
        return None  # Ray Train starts again after any exception; what is fatal stays so
    with contextlib.suppress(FileNotFoundError):
        os.chdir(config["folder"])  # Ray Train has moved elsewhere, where relative paths name nothing
    torch.set_num_threads(1)  # the one CPU that Ray reserves, so that a result does not depend on the machine
    try:
        return work(Channel(mailbox), config["device"])
    except fatal as error:
        ray.get(mailbox.fail.remote(error))
        raise


def _follow(
    trainer: Any, mailbox: Any, on_message: Callable[[Any], None], should_stop: Callable[[], bool], short: bool
) -> Any:
    """Runs the trainer beside this thread, which handles signals and messages: `fit` would take over Ctrl-C.

    short: Ray lacks what the workers need, so that they may never start.
    """
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            outcome["value"] = trainer.fit().return_value
        except (Exception, SystemExit) as error:  # the second where Ray is left while the workers wait
            outcome["error"] = error

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        for message in ray.get(mailbox.take.remote()):
            on_message(message)
        if should_stop() and not ray.get(mailbox.stop.remote()) and short:
            raise NoWorkerError("stopped before any worker had started")
    for message in ray.get(mailbox.take.remote()):
        on_message(message)
    if (error := ray.get(mailbox.error.remote())) is not None:
        raise error
    if "error" in outcome:
        raise RayTrainError(f"training on Ray failed: {outcome['error']}") from outcome["error"]
    return outcome["value"]
