"""`nas launch`, `jobs`, `logs` and `stop`: searches as jobs of a Ray cluster."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.terminal import next_step, print_json

Address = Annotated[
    str | None,
    typer.Option(
        help="The cluster's jobs server: http://host:8265.",
        show_default="RAY_API_SERVER_ADDRESS, RAY_ADDRESS if http, or this machine",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, as `nas jobs` lists them.")]
RunPlace = Annotated[str, typer.Argument(metavar="RUN", help="Run folder of `nas train`, as the cluster sees it.")]
Settings = Callable[..., dict[str, Any]]


def launch_command(search: Callable[..., None], search_settings: Settings) -> Callable[..., None]:
    """`nas launch`: it has the options of the command `search`, but its `--address` is that of the jobs server."""

    def launch(context: typer.Context, **options: Any) -> None:
        """Search as a job of a Ray cluster, with the options of `nas search`; again continues the study."""
        run, address = options.pop("run"), options.pop("address")
        settings = search_settings(**options)
        if "://" not in run and Path(run).is_dir():
            from nas.run import Run
            from nas.searching import check_search

            check_search(Run.open(run), **settings)
        from nas import launching

        job = launching.launch("search", run, _typed_options(context), options["study_name"], address)
        print(job.id)
        next_step(f"nas logs {job.id} -f{_at(address)}")

    parameters = {
        "context": inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        **inspect.signature(search, eval_str=True).parameters,
    }
    for name, annotation, default in (("run", RunPlace, inspect.Parameter.empty), ("address", Address, None)):
        parameters[name] = parameters[name].replace(annotation=annotation, default=default)
    launch.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]  # typer reads it
    launch.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    return launch


def jobs(
    address: Address = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
    ] = False,
) -> None:
    """List the jobs of a Ray cluster, the newest first."""
    from workers.ray_jobs import Jobs

    found = Jobs(address).list()
    if as_json:
        print_json([job.to_dict() for job in found])
        return
    from nas.tables import print_jobs

    print_jobs(found)
    next_step(f"nas logs JOB -f{_at(address)}" if found else f"nas launch RUN{_at(address)}")


def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the job ends; Ctrl-C lets it run.")] = False,
    address: Address = None,
) -> None:
    """Print what a job has printed; with -f, exit with 1 where the job failed or was stopped."""
    from workers.ray_jobs import Jobs

    server = Jobs(address)
    if not follow:
        print(server.logs(job_id), end="")
        next_step(f"nas logs {job_id} -f{_at(address)}")
        return
    printed = False
    try:
        for text in server.follow(job_id):
            print(text, end="", flush=True)
            printed = True
    except KeyboardInterrupt:
        print(f"\njob {job_id} goes on; stop it with: nas stop {job_id}{_at(address)}", file=sys.stderr)
        raise
    job = server.get(job_id)
    if not job.has_ended:
        raise ConnectionError(f"the log of job {job_id} broke off; follow it with: nas logs {job_id} -f{_at(address)}")
    if job.status != "succeeded":
        raise RuntimeError(f"job {job_id} {job.status}" + ("" if printed else f": {job.message}"))
    if "next" in job.metadata:
        next_step(job.metadata["next"])


def stop(job_id: JobId, address: Address = None) -> None:
    """Stop a job and wait until it has ended; what it has evaluated is kept."""
    from workers.ray_jobs import Jobs

    job = Jobs(address).stop(job_id)
    print(f"job {job_id}: {job.status}", file=sys.stderr)
    if "again" in job.metadata and job.status != "succeeded":
        next_step(f"{job.metadata['again']}{_at(address)} continues the study")


def _typed_options(context: typer.Context) -> list[str]:
    """The options that were given, as `nas search` takes them."""
    words = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in ("run", "address") or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[name]
        for one in value if isinstance(value, list | tuple) else [value]:
            words.append(parameter.opts[0] if one is True else f"{parameter.opts[0]}={one}")
    return words


def _at(address: str | None) -> str:
    return f" --address {address}" if address else ""
