"""Folders and journals as a disk full of other things has them: broken, foreign, taken away, closed to this user."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from services import ROOT, environment
from studies import make_run, make_trials, write_study

from nas.service.events import Hub
from nas.service.service import Service
from nas.service.state import Library, run_summary
from nas.studies import list_studies

LIKE_OTHERS = () if os.getuid() else ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")  # whom modes bind

CHANGES: dict[str, tuple[bytes, bytes]] = {
    "no JSON": (b'{"op_code":4', b"{op_code:4"),
    "an objective is missing": (b'"top1":0.', b'"top2":0.'),
    "a metric is text": (b'"macs":', b'"macs":"x","n":'),
    "no worker": (b'"worker":"test"', b'"worker":null'),
    "no architecture": (b'"arch":{', b'"arch":[],"other":{'),
    "a trial is missing": (b'"number":1', b'"number":7'),
    "seconds are text": (b'"seconds":0.0', b'"seconds":"0"'),
    "trials asked for are text": (b'"nas_n_trials":9', b'"nas_n_trials":"9"'),
    "the seed is text": (b'"seed":0', b'"seed":"0"'),
    "no space": (b'"space":{', b'"space":{},"limits":{},"objectives":{"top1":"maximize"},"x":{'),
    "it is another study": (b'"study_name":"s","space"', b'"study_name":"t","space"'),
    "no objectives": (b'"objectives":{"top1":"maximize","macs":"minimize"}', b'"objectives":{}'),
    "a date is none": (b'"datetime_complete":"2', b'"datetime_complete":"x'),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_wrong_with_a_journal_is_that_study_s_alone(tmp_path: Path, change: str) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "good", make_trials(3), 3)
    write_study(run, "s", make_trials(5), 9)
    before, after = CHANGES[change]
    data = run.study("s").read_bytes()
    assert before in data
    run.study("s").write_bytes(data.replace(before, after))
    rows = {row["study"]: row for row in run_summary(Library(tmp_path), "run")["studies"]}
    assert (rows["s"]["state"], "s.journal is damaged" in rows["s"]["error"]) == ("damaged", True)
    assert rows["good"]["state"] == "finished"


def test_files_that_are_no_studies_are_none(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "s", make_trials(3), 3)
    studies = run.study("s").parent
    for name in ("s (copy).journal", ".hidden.journal", "<b>.journal", "x" * 200 + ".journal", "..journal"):
        shutil.copy(run.study("s"), studies / name)
    (studies / "folder.journal").mkdir()
    os.mkfifo(studies / "pipe.journal")
    os.mkfifo(run.metrics)
    for name in ("piped", "of_a_folder", "list"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "piped" / "run.json")
    (tmp_path / "of_a_folder" / "run.json").mkdir()
    (tmp_path / "list" / "run.json").write_text("[]")
    without = json.loads((run.path / "run.json").read_text())
    no_text = without | {"space": without["space"] | {"name": "\ud800"}}
    (tmp_path / "no_text").mkdir()
    (tmp_path / "no_text" / "run.json").write_text(json.dumps(no_text))
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    shutil.copy(os.fsencode(run.path / "run.json"), os.fsencode(tmp_path) + b"/\xff/run.json")
    del without["classes"]
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "run.json").write_text(json.dumps(without))
    library = Library(tmp_path)
    assert list(library.runs()) == ["run"]
    assert [row["study"] for row in run_summary(library, "run")["studies"]] == ["s"]
    assert [row["study"] for row in list_studies(run)] == ["folder", "pipe", "s"]


def test_what_may_not_be_read_is_told_and_the_rest_is_there(tmp_path: Path) -> None:
    closed, run = make_run(tmp_path / "root" / "closed"), make_run(tmp_path / "root" / "run")
    write_study(run, "s", make_trials(3), 3)
    write_study(run, "t", make_trials(3), 3)
    run.study("s").chmod(0)
    run.metrics.touch()
    run.metrics.chmod(0)
    (closed.path / "run.json").chmod(0)
    (tmp_path / "root" / "sealed").mkdir(mode=0)
    (tmp_path / "root" / "listed").mkdir()
    (tmp_path / "root" / "listed" / "run.json").touch()
    (tmp_path / "root" / "listed").chmod(0o444)
    program = (
        "import sys\n"
        "from nas.service.state import Library, run_summary\n"
        "library = Library(sys.argv[1])\n"
        "print(list(library.runs()), [(row['study'], row['state'], row['error'])"
        " for row in run_summary(library, 'run')['studies']])"
    )
    command = [*LIKE_OTHERS, sys.executable, "-c", program, str(tmp_path / "root")]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = "[('s', 'damaged', 's.journal cannot be read: Permission denied'), ('t', 'finished', None)]"
    assert done.stdout.strip() == f"['run'] {found}"


def test_the_events_of_a_study_that_is_taken_away_end(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_study(run, "s", make_trials(3), 3)

    async def follow() -> list[bytes]:
        events = []
        async for event in Hub(Service.open(tmp_path).looks).follow("run", "s", 0):
            events.append(event)
            run.study("s").unlink()
        return events

    (event,) = asyncio.run(follow())
    assert event.startswith(b"event: progress\nid: 3\n")


READ_ONLY = """
import sys
from fastapi.testclient import TestClient
from nas.service.app import create_app
with TestClient(create_app(sys.argv[1]), base_url="http://127.0.0.1") as client:
    print(client.get("/").status_code)
    answer = client.post("/api/v1/runs/run/studies", json={"study": "new"})
    print(answer.status_code, answer.json()["detail"])
"""


def test_a_root_that_may_only_be_read_is_shown_and_starts_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make_run(root / "run")
    root.chmod(0o555)
    command = [*LIKE_OTHERS, sys.executable, "-c", READ_ONLY, str(root)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    root.chmod(0o755)
    assert done.returncode == 0, done.stderr
    shown, refused = done.stdout.splitlines()
    assert shown == "200"
    assert refused.startswith("507 nothing can be started, for there is no room for its record: ")
