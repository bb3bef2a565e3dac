"""Connecting to Ray, and what its workers need to know of the driver."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import ray

from workers.pool import check_address

log = logging.getLogger(__name__)

TOKEN_HINT = "where it asks for a token: RAY_AUTH_MODE=token, with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
_CONNECT_SECONDS = 5.0  # for an address that answers at all


def connect(address: str, num_cpus: int, num_gpus: int | None) -> None:
    """Connects this process to the Ray at `address`; "local" starts one with these resources.

    num_gpus: None takes the GPUs that the machine has.
    Raises ValueError for a malformed address, ConnectionError when no cluster answers there, or the local one
    does not start.
    """
    check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with _sigterm_handler_kept():
        if address == "local":
            # Left unset, Ray writes a token to the home directory that later clients do not send.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            try:
                ray.init("local", num_cpus=num_cpus, num_gpus=num_gpus, include_dashboard=False, **quiet)
            except Exception as error:  # a bare one where its processes do not answer in time
                raise ConnectionError(f"Ray did not start on this machine: {str(error).strip()}") from error
            return
        if address != "auto":
            _check_reachable(address)
        # Seconds to be let in by a cluster that answers; Ray takes 20, and a wrong token does not get better.
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "5")
        try:
            ray.init(address, **quiet)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, or its own, by what is missing
            hint = f" ({TOKEN_HINT})" if isinstance(error, ConnectionError) else ""
            raise ConnectionError(f"cannot join the Ray cluster at {address!r}: {str(error).strip()}{hint}") from error


def _check_reachable(address: str) -> None:
    """Fails in seconds where Ray would go on trying for up to two minutes: nothing there, or no Ray."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
            with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=_CONNECT_SECONDS)
    except (OSError, OverflowError, grpc.RpcError) as error:
        reason = error.details() if isinstance(error, grpc.Call) else error
        raise ConnectionError(f"no Ray cluster answers at {address!r}: {reason}") from error


def warn_if_short_of(num_workers: int, needs: dict[str, float]) -> bool:
    """Warns where Ray lacks resources for workers with these `needs` each: they would wait without a word.

    Returns whether it does.
    """
    there, short = ray.cluster_resources(), False
    for name, need in needs.items():
        if num_workers * need > there.get(name, 0):
            short = True
            log.warning(
                "%d workers of %g %s each are wanted, Ray has %g in all: some have to wait until there are more",
                num_workers, need, name, there.get(name, 0),
            )  # fmt: skip
    return short


@contextlib.contextmanager
def _sigterm_handler_kept() -> Iterator[None]:
    """`ray.init` installs its own SIGTERM handler; the program's must survive, for it ends a search cleanly."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread() and callable(before):
        signal.signal(signal.SIGTERM, before)


def environment(num_cpus: float, address: str) -> dict[str, str]:
    """Environment variables of a worker: its threads, and in a local Ray where the driver's modules are."""
    threads = str(max(1, math.floor(num_cpus)))
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    if address == "local":  # this machine: what the driver can import, the actors can, installed or not
        root = str(Path(__file__).resolve().parent.parent)
        variables["PYTHONPATH"] = os.pathsep.join([root, *(path or os.getcwd() for path in sys.path)])
    return variables
