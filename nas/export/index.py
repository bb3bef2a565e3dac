"""The index of an exported front: one page without any other resource, and the same as JSON."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from nas.json_file import write_json
from nas.quantities import show_quantity
from nas.run import Run, versions

if TYPE_CHECKING:
    from nas.export.front import Entry
    from nas.study import Study

FORMAT = "nas-front-1"


def write_index(out: Path, run: Run, study_name: str, study: Study, entries: Sequence[Entry]) -> None:
    """Writes `index.json` and `index.html` into the folder of the front."""
    write_json(out / "index.json", describe(run, study_name, entries))
    title = f"{run.space.name} on {run.data.name}: the front of study {study_name}"
    page = Template((Path(__file__).parent / "index.html.tmpl").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        picture=_picture(study),
        head=_row("th", _columns(entries)),
        rows="\n".join(_cells(entry, _formats(entries)) for entry in entries),
        note=escape(_note(entries)),
    )
    temporary = out / "index.html.tmp"
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out / "index.html")


def describe(run: Run, study_name: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """The front in plain JSON types; an entry without `error` has its `folder`, its `certificate` and its `files`."""
    return {
        "format": FORMAT, "study": study_name, "space": run.space.name, "data": run.data.name,
        "versions": versions(), "entries": [_described(entry) for entry in entries],
    }  # fmt: skip


def _described(entry: Entry) -> dict[str, Any]:
    row = {
        "trial": entry.trial.number, "key": entry.trial.arch.key, "metrics": dict(entry.trial.metrics),
        "error": entry.error,
    }  # fmt: skip
    if entry.certificate:
        files = {check.file: check.bytes for check in entry.certificate.formats.values()}
        row |= {"folder": entry.folder, "files": files, "certificate": entry.certificate.to_dict()}
    return row


def _formats(entries: Sequence[Entry]) -> list[str]:
    return next((list(entry.certificate.formats) for entry in entries if entry.certificate), [])


def _columns(entries: Sequence[Entry]) -> list[str]:
    latencies = [f"ms, {name}" for name in _formats(entries)]
    return ["trial", "test top-1", "validation top-1", "MACs", "params", *latencies, "files"]


def _cells(entry: Entry, formats: Sequence[str]) -> str:
    metrics, c = entry.trial.metrics, entry.certificate
    cost = [show_quantity(metrics["macs"]), show_quantity(metrics["params"])]
    if c is None:
        values = [str(entry.trial.number), "", "", *cost, *("" for _ in formats)]
        return _row("td", values, f'<span class="failed">{escape(entry.error or "")}</span>')
    model = c.model
    latencies = [f"{check.latency_ms or 0:.3g}" for check in c.formats.values()]
    values = [str(entry.trial.number), f"{model.top1 or 0:.2%}", f"{c.validation_top1:.2%}", *cost, *latencies]
    files = [*(check.file for check in c.formats.values()), "model.py", "README.md", "certificate.json"]
    links = ", ".join(f'<a href="{entry.folder}/{escape(name)}">{escape(name)}</a>' for name in files)
    return _row("td", values, links)


def _row(tag: str, values: Iterable[str], *markup: str) -> str:
    cells = [escape(value) for value in values]
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in (*cells, *markup)) + "</tr>"


def _note(entries: Sequence[Entry]) -> str:
    c = next((entry.certificate for entry in entries if entry.certificate), None)
    if c is None:
        return ""
    threads = f"{c.model.threads} thread{'s' * (c.model.threads != 1)}"
    return (
        f"Test top-1 on {c.model.total} images; median latency of one image in milliseconds, {threads}, {c.machine}. "
        f"Supernet {c.supernet[:16]}, seed {c.seed}."
    )


def _picture(study: Study) -> str:
    """The front as the source of an `img`; the page has a heading of its own."""
    from nas.plots import save_front

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "front.png"
        save_front(study, file)
        return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
