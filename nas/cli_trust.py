"""`nas trust`, apart from the other commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.terminal import drawn, next_step, print_json, quoted, say_stopping, stderr, with_urls

if TYPE_CHECKING:
    from nas.run import Run


def trust(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run folder of `nas train`, or its URL.")],
    archs: Annotated[
        int | None,
        typer.Option(help="Subnets to train alone; more later extends the sample.", show_default="12, or all"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each.", show_default="the recipe's")] = None,
    seed: Annotated[int, typer.Option(help="Decides the sample, initial weights and batches.")] = 0,
    max_macs: Annotated[
        str | None,
        typer.Option(help="Sample subnets of at most so many multiply-adds, such as 40M.", show_default="no limit"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")
    ] = False,
) -> None:
    """Train a sample of subnets alone: how well do the supernet's scores rank, and what corrects them?"""
    from nas.quantities import parse_quantity
    from nas.run import Run
    from nas.signals import stop_requests
    from nas.trust import trust_run

    opened = Run.open(run)
    with stop_requests(say_stopping) as should_stop, _Progress(stderr()) as progress:
        report = trust_run(
            opened, archs=archs, epochs=epochs, seed=seed, device=device,
            max_macs=None if max_macs is None else parse_quantity(max_macs),
            on_start=progress.start, on_record=progress.record, should_stop=should_stop,
        )  # fmt: skip
    from nas.plots import save_trust

    picture = opened.path / "trust.png"
    with opened.publishing():
        written = drawn(picture, lambda: save_trust(report, picture, f"{opened.space.name} on {opened.data.name}"))
    if as_json:
        print_json(report)
        return
    from nas import tables

    tables.print_trust(report)
    if written:
        print(f"picture: {with_urls(str(picture))}")
    next_step(_advice(run, report, opened))


def _advice(run: str, report: dict[str, Any], opened: Run) -> str:
    """The search by whichever score ranked the sample better, where one of them says more than MACs do, and within the
    sample's limit.
    """
    limit = "" if report["max_macs"] is None else f" --max-macs {report['max_macs']}"
    inherited, null, calibrated = (
        -1.0 if value is None else value
        for value in (
            report["kendall"]["value"],
            report["null_kendall"]["value"],
            report["calibration"]["leave_pairs_out_kendall"],
        )
    )
    longer = f"nas train as for {quoted(run)}, with more than --epochs {opened.recipe.epochs} and another -o"
    if report["kendall"]["value"] is None:
        if len({row["standalone"] for row in report["archs"]}) == 1:
            return f"nas trust {quoted(run)} with more --epochs: the networks trained alone cannot be told apart"
        return f"{longer}: the subnets cannot be told apart"
    if null >= max(inherited, calibrated):
        more = f", or nas trust {quoted(run)} with more --archs" if report["n"] < opened.space.size() else ""
        return f"{longer}{more}: MACs alone rank as well"
    if calibrated > inherited:
        return f"nas search {quoted(run)} --score calibrated --study-name calibrated{limit}"
    return f"nas search {quoted(run)}{limit} (the calibrated score ranks no better)"


class _Progress:
    """A bar over the steps of all trainings together."""

    def __init__(self, console: Any) -> None:
        from nas.progress import bar

        self._bar = bar(console)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar.tasks:
            self._bar.stop()

    def start(self, done: int, total: int) -> None:
        self._done, self._arch = done, -1
        self._task = self._bar.add_task("training alone", total=total, completed=done, note="")
        self._bar.start()

    def record(self, values: dict[str, Any]) -> None:
        if values["arch"] != self._arch:
            self._begun = self._done
            self._arch = values["arch"]
        self._done = self._begun + values["step"]
        note = f"{values['arch'] + 1}/{values['archs']} loss {values['loss']:.2f}"
        self._bar.update(self._task, completed=self._done, note=note)
