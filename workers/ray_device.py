"""Running a function on the node of a Ray cluster that is a certain device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayTaskError

from workers.ray_connect import connect, environment


def run_on(resource: str, work: Callable[[], Any], num_cpus: int, address: str) -> Any:
    """What `work`, picklable, returns on a node that was started with `--resources '{"<resource>": 1}'`.

    The node has to have this project installed. `num_cpus` cores of it are reserved meanwhile.
    Raises ConnectionError when no cluster answers at `address`, ValueError where no node has the resource, and what
    `work` raises.
    """
    owns = not ray.is_initialized()
    if owns:
        connect(address, num_cpus, None)
    try:
        there = ray.cluster_resources()
        if not there.get(resource):
            labels = [name for name in there if name not in _USUAL and not name.startswith("node:")]
            raise ValueError(f"no node of the cluster has the resource {resource!r}; there are: {_listed(labels)}")
        options = {
            "num_cpus": num_cpus,
            "resources": {resource: 1},
            "runtime_env": {"env_vars": environment(num_cpus, address)},
        }
        try:
            return ray.get(ray.remote(work_alone).options(**options).remote(work))
        except RayTaskError as error:
            raise error.cause or error from None
    finally:
        if owns:
            ray.shutdown()


def work_alone(work: Callable[[], Any]) -> Any:
    """The task: Ray takes functions, and `work` may be any callable."""
    return work()


_USUAL = ("CPU", "GPU", "memory", "object_store_memory")


def _listed(labels: list[str]) -> str:
    return ", ".join(sorted(labels)) or "none; start one with: ray start --address HEAD --resources '{\"NAME\": 1}'"
