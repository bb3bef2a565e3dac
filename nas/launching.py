"""Searches as jobs of a Ray cluster, as `nas launch` starts them; run as a module, what the job does there."""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nas.run import Run, RunError

if TYPE_CHECKING:
    from workers.ray_jobs import Job

PACKAGES = ("nas", "workers", "supernet", "search_spaces")


def launch(command: str, run: str, options: Sequence[str], study_name: str, address: str | None = None) -> Job:
    """Submits `nas COMMAND RUN OPTIONS --address auto` as a job named after the study and the time.

    The project's packages travel with the job, so the cluster needs their dependencies alone. The head must see the
    run folder and its data set under the same paths as this machine.
    command: "search" or "resume". run: a relative path is made absolute, a URL stays as it is. options: as typed.
    Raises what `workers.ray_jobs.Jobs` does, and RuntimeError where the cluster has other versions of Ray or Python.
    """
    from workers.ray_jobs import Jobs

    jobs = Jobs(address)
    jobs.check_versions()
    place = run if "://" in run else str(Path(run).expanduser().absolute())
    root = Path(__file__).resolve().parent.parent
    # Relative paths mean there what they mean here; what lies in that folder is no part of the program.
    there = f"cd {shlex.quote(str(Path.cwd()))} 2>/dev/null; exec env PYTHONSAFEPATH=1 python -m nas.launching"
    study = "" if study_name == "default" else f" --study-name {study_name}"
    metadata = {
        "what": f"nas {command} {shlex.join([place, *options])}",
        "next": f"nas pareto {shlex.quote(place)}{study}",
    }
    if command == "search":
        metadata["again"] = f"nas launch {shlex.join([place, *options])}"
    return jobs.submit(
        f"nas-{study_name}-{datetime.now():%Y%m%d-%H%M%S-%f}",
        f"{there} {shlex.join([command, place, *options])}",
        [root / name for name in PACKAGES],
        metadata,
    )


def check_visible(run: str) -> None:
    """Raises RunError where this machine does not see the run folder or its data set; says nothing of a URL."""
    if "://" in run:
        return
    advice = "a job needs it under the same path as the machine that launched it: put it on a shared file system"
    if not Path(run).is_dir():
        raise RunError(f"{socket.gethostname()}, the head of the cluster, has no run folder {run}; {advice}")
    place = Run.open(run).data.place
    if place and not place.exists():
        raise RunError(f"{socket.gethostname()}, the head of the cluster, has no {place}, the run's data set; {advice}")


def main() -> None:
    """What a job runs: `nas` with the arguments COMMAND RUN OPTIONS of this process, when the run's files are there."""
    from nas import cli

    try:
        check_visible(sys.argv[2])
    except RunError as error:
        sys.exit(f"error: {error}")
    sys.argv = ["nas", *sys.argv[1:], "--address", "auto"]
    cli.main()


if __name__ == "__main__":
    main()
