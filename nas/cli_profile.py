"""`nas profile`: how long the subnets of a space take on a device."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nas.terminal import drawn, next_step, print_json, quoted, stderr


def profile(
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write, such as cpu.json.")],
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run whose space is measured.")] = None,
    space: Annotated[str | None, typer.Option(help="A space instead: as for `nas train`, at its own sizes.")] = None,
    runtime: Annotated[str, typer.Option(help="torch or onnxruntime.")] = "torch",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of one inference on a CPU.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one inference.")] = 1,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks to measure, at most.")] = 400,
    subnets: Annotated[int, typer.Option(help="Whole subnets to measure.")] = 120,
    seconds: Annotated[float, typer.Option(min=0, help="Time for measuring, beside that for building.")] = 180,
    seed: Annotated[int, typer.Option(help="Decides which subnets are measured.")] = 0,
    resource: Annotated[str | None, typer.Option(help="Measure on the Ray node with this resource.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray of that node: auto or host:6379.", show_default="RAY_ADDRESS, or auto"),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
    ] = False,
) -> None:
    """Measure blocks and subnets on a device, for searches under a limit in milliseconds.

    The file holds a latency model, and how far it was off on subnets that it had not seen.
    """
    if (run is None) == (space is None):
        raise ValueError("say what to measure: either a RUN or --space NAME")
    if address is not None and resource is None:
        raise ValueError(f"which node of {address} is to be measured? Say it with --resource NAME")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} to write to")
    from nas.progress import bar
    from nas.run import Run
    from nas.spaces import own_space

    measured = own_space(space) if space is not None else Run.open(str(run)).space
    from nas.profiling import profile_space
    from workers.latency import Setting

    setting = Setting(runtime, device, threads, batch_size)
    with bar(stderr()) as progress:
        task = progress.add_task("measuring", total=None, note="networks")
        made = profile_space(
            measured, setting, out.stem, num_blocks=blocks, num_subnets=subnets, seconds=seconds, seed=seed,
            resource=resource, address=address or os.environ.get("RAY_ADDRESS") or "auto",
            on_group=lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    made.write(out)
    from nas.plots import save_profile

    picture = drawn(out.with_suffix(".png"), lambda: save_profile(made, out.with_suffix(".png")))
    if as_json:
        print_json(made.summary() | {"out": str(out)})
        return
    from nas import tables

    tables.print_profile(made)
    if picture:
        print(f"picture: {picture}")
    middle = made.middle_ms
    place = quoted(run) if run else "RUN"
    next_step(f"nas search {place} --profile {quoted(out)} --max-latency-ms {middle:.2g}")
