"""The commands that read what searches wrote: `studies`, `pareto`, `compare` and `query`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.terminal import drawn, next_step, print_json, quoted, with_urls

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
StudyName = Annotated[str, typer.Option(help="Name of the study within the run.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="Run folder of `nas train`, or its URL.")]
MaxMacs = Annotated[str | None, typer.Option(help="Upper limit on multiply-adds, such as 20M.")]
MinMacs = Annotated[str | None, typer.Option(help="Lower limit on multiply-adds.")]
MaxParams = Annotated[str | None, typer.Option(help="Upper limit on parameters, such as 1M.")]
MinParams = Annotated[str | None, typer.Option(help="Lower limit on parameters.")]
MaxLatency = Annotated[
    list[str] | None,
    typer.Option(
        "--max-latency-ms", help="Upper limit on milliseconds, such as 3; with several profiles NAME=3, repeated."
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option("--max-memory", help="Upper limit on activation bytes of an image, such as 256k.")
]
MaxWeights = Annotated[str | None, typer.Option("--max-weight-bytes", help="Upper limit on bytes of weights in fp32.")]
MinTop1 = Annotated[str | None, typer.Option(help="Least top-1 accuracy, such as 0.7.")]


def limits_of(
    *,
    max_macs: str | None,
    min_macs: str | None,
    max_params: str | None,
    min_params: str | None,
    max_latency_ms: list[str] | None,
    max_memory: str | None,
    max_weight_bytes: str | None,
    min_top1: str | None,
) -> dict[str, Any]:
    """The limits that the options say. Raises ValueError for what is no quantity."""
    from nas.quantities import parse_latency_limits, parse_limits

    texts = {
        "macs": (min_macs, max_macs), "params": (min_params, max_params), "peak_memory": (None, max_memory),
        "weight_bytes": (None, max_weight_bytes), "top1": (min_top1, None),
    }  # fmt: skip
    return {**parse_limits(texts), **parse_latency_limits(max_latency_ms or [])}


def studies(run: RunFolder, as_json: Json = False) -> None:
    """List the studies of a run: settings, progress, best trial, and whether a search writes them now."""
    from nas.run import Run
    from nas.studies import list_studies

    rows = list_studies(Run.open(run))
    if as_json:
        print_json(rows)
        return
    from nas import tables

    tables.print_studies(rows)
    intact = [row for row in rows if not row["error"]]
    open_ones = [
        row
        for row in intact
        if row["current"] and not row["writing"] and not row["exhausted"] and row["n_trials"] < (row["n_asked"] or 0)
    ]
    if not intact:
        next_step(f"nas search {quoted(run)}" + (" --study-name NAME" if rows else ""))
    elif open_ones:
        next_step(f"nas resume {quoted(run)}{_study_option(open_ones[0]['study'])}")
    else:
        compare = f", or: nas compare {quoted(run)}" if _comparable(intact) else ""
        next_step(f"nas pareto {quoted(run)}{_study_option(intact[0]['study'])}{compare}")


def _comparable(rows: list[dict[str, Any]]) -> bool:
    """Whether `nas compare` has something to compare, and would not refuse it."""
    purposes = {str([row[name] for name in ("objectives", "limits", "score")]) for row in rows}
    searches = {(row["strategy"], row["seed"]) for row in rows}
    usable = all(row["current"] and row["n_trials"] for row in rows)
    return usable and len(purposes) == 1 < len(searches) == len(rows)


def pareto(run: RunFolder, study_name: StudyName = "default", as_json: Json = False) -> None:
    """Show the Pareto front of a study as a table and as a picture beside the run."""
    from nas.front_latency import of_front
    from nas.run import Run
    from nas.searching import open_study
    from nas.summary import summarize

    opened = Run.open(run)
    study = open_study(opened, study_name)
    if as_json:
        _save_front(opened, study_name, study)
        print_json({"study": study_name} | summarize(study, of_front(opened, study_name, study)))
    else:
        show_study(opened, study_name, study)


def compare(
    sources: Annotated[
        list[str], typer.Argument(metavar="STUDY…", help="Journal files, run folders (all their studies), or RUN:NAME.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Draw the curves into this file, such as a.png.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare strategies at equal numbers of evaluations: the studies of one strategy are its seeds.

    Failed and infeasible trials count as evaluations. Shown are medians over the seeds, with their quartiles.
    """
    from nas.compare import as_json as comparison_as_json
    from nas.compare import compare as compare_groups
    from nas.run import is_url
    from nas.studies import find_studies, group_studies

    if out is not None and not out.parent.is_dir():
        raise ValueError(f"there is no folder {out.parent} to draw into")
    found = find_studies(sources)
    comparison = compare_groups(group_studies(found), found[0].stored.identity.objectives)
    picture = None
    if out is not None:
        from nas.plots import save_comparison

        picture = drawn(out, lambda: save_comparison(comparison, out))
    if as_json:
        print_json(comparison_as_json(comparison))
        return
    from nas import tables

    tables.print_comparison(comparison)
    if picture:
        print(f"picture: {picture}")
    run = quoted(sources[0]) if len(sources) == 1 and (is_url(sources[0]) or Path(sources[0]).is_dir()) else "RUN"
    if len(comparison.groups) == 1:
        next_step(f"nas search {run} --strategy OTHER --study-name NAME, to have another strategy to compare with")
    elif min(len(curves.best) for curves in comparison.groups.values()) < 3:
        next_step(f"nas search {run} --strategy STRATEGY --seed N --study-name NAME: a few seeds more say more")
    elif picture:
        next_step(f"nas pareto {run} --study-name NAME, for the front of one of them")
    else:
        next_step(f"nas compare {' '.join(map(quoted, sources))} -o compare.png")


def query(
    run: RunFolder,
    max_macs: MaxMacs = None,
    min_macs: MinMacs = None,
    max_params: MaxParams = None,
    min_params: MinParams = None,
    max_latency_ms: MaxLatency = None,
    max_memory: MaxMemory = None,
    max_weight_bytes: MaxWeights = None,
    min_top1: MinTop1 = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="What is best: top1, macs or another metric; repeat it.", show_default="top1, macs"),
    ] = None,
    study_name: Annotated[str | None, typer.Option(help="Ask this study.", show_default="all of the run")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Answer from what the run's studies evaluated: the best architectures within limits, without a new search.

    Scores are the inherited ones, also of calibrated studies. Exit code 1 when nothing fits: what is nearest is shown.
    """
    from nas.querying import as_json as answer_as_json
    from nas.querying import query_run, unreachable

    options: dict[str, Any] = {
        "min_macs": min_macs, "max_macs": max_macs, "min_params": min_params, "max_params": max_params,
        "max_latency_ms": max_latency_ms, "max_memory": max_memory, "max_weight_bytes": max_weight_bytes,
        "min_top1": min_top1,
    }  # fmt: skip
    limits = limits_of(**options)
    answer = query_run(run, limits, objectives=objective or ("top1", "macs"), study_name=study_name)
    if as_json:
        print_json(answer_as_json(answer, top))
    else:
        from nas import tables

        tables.print_answer(answer, top)
        if answer.within:
            best = answer.within[0]
            next_step(f"nas export {quoted(run)}{_study_option(best.study)} --trial {best.number} -o DIR")
        elif reason := unreachable(run, limits):
            next_step(f"nas query {quoted(run)} with wider limits: {reason}")
        else:
            given = [
                f" --{name.replace('_', '-')} {text}"
                for name, texts in options.items()
                for text in (texts if isinstance(texts, list) else [texts])
                if text is not None
            ]
            profile = " --profile FILE" if max_latency_ms else ""
            next_step(f"nas search {quoted(run)} --study-name NAME{''.join(given)}{profile}")
    if not answer.within:
        raise typer.Exit(1)


def show_study(run: Any, study_name: str, study: Any) -> None:
    """The front as a table and a picture, and what to do with it."""
    from nas import tables
    from nas.front_latency import of_front

    tables.print_front(study, of_front(run, study_name, study))
    picture = _save_front(run, study_name, study)
    if picture:
        print(f"picture: {with_urls(str(picture))}")
    suffix = _study_option(study_name)
    if study.best is not None:
        next_step(f"nas export {quoted(run)}{suffix} --best -o DIR")
    elif study.outcome == "exhausted" and study.limits:  # to resume it would find nothing
        next_step(f"nas search {quoted(run)} --study-name NAME with wider limits: all that cost allows was tried")
    else:
        next_step(f"nas resume {quoted(run)}{suffix} --n-trials {len(study.trials) + 100}")


def _study_option(study_name: str) -> str:
    return "" if study_name == "default" else f" --study-name {study_name}"


def _save_front(run: Any, study_name: str, study: Any) -> Path | None:
    """The picture's path, or None where there is no feasible trial to draw or it cannot be written."""
    from nas.plots import save_front

    if not study.front():
        return None
    path = run.path / ("front.png" if study_name == "default" else f"front-{study_name}.png")
    title = f"{run.space.name}: {len(study.trials)} subnets of one supernet"
    with run.publishing():
        return drawn(path, lambda: save_front(study, path, title))
