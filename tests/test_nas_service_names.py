"""Names of runs and studies in any script, through everything that says, stores or links them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import warm_python
from prometheus_client.parser import text_string_to_metric_families
from services import ROOT, environment, serving

from nas.client import Client, ServiceError
from nas.run import Run, RunError
from nas.store import read_study

RUN, STUDY = "Läufe/日本 α 🚀", "Größe-α_検索-हिन्दी.1"
RUN_ID = RUN.replace("/", "~")


@pytest.fixture(scope="module")
def root(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(trained_run, root / RUN)
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[Client]:
    with serving(root, LC_ALL="C") as url:
        yield Client(url)
    assert "Traceback" not in (root / ".serve.log").read_text()


def cli(*words: str | Path) -> str:
    command = [warm_python.python(), "-m", "nas.cli", *map(str, words)]
    done = subprocess.run(command, env=environment(LC_ALL="C"), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_study_is_searched_followed_exported_and_downloaded(client: Client, root: Path, tmp_path: Path) -> None:
    assert [run["id"] for run in client.runs()] == [RUN_ID]
    job = client.start(RUN_ID, study=STUDY, strategy="random", num_workers=0, n_trials=6)
    assert (job["run"], job["study"]) == (RUN_ID, STUDY)
    assert client.wait(job["id"])["state"] == "succeeded"
    events = list(client.follow(RUN_ID, STUDY))
    assert [trial["number"] for event in events for trial in event["trials"]] == list(range(6))
    again = client.resume(RUN_ID, STUDY, n_trials=8, num_workers=0)
    assert client.wait(again["id"])["state"] == "succeeded"
    assert len(read_study(root / RUN / "studies" / f"{STUDY}.journal").trials) == 8

    assert client.wait(client.export(RUN_ID, STUDY, 3)["id"])["state"] == "succeeded"
    assert (client.download(RUN_ID, STUDY, 3, tmp_path / "模型") / "certificate.json").is_file()
    place = f"{client.url}/api/v1/runs/{quote(RUN_ID, safe='')}/studies/{quote(STUDY)}/trials/3/archive"
    with urllib.request.urlopen(place) as answer:
        assert answer.headers["content-disposition"] == f"attachment; filename*=utf-8''{quote(STUDY)}-trial-3.zip"

    with urllib.request.urlopen(f"{client.url}/metrics") as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    (trials,) = (family for family in families if family.name == "nas_trials")
    assert {(one.labels["run"], one.labels["study"]) for one in trials.samples} == {(RUN_ID, STUDY)}

    (listed,) = json.loads(cli("studies", root / RUN, "--json"))
    assert (listed["study"], listed["n_trials"]) == (STUDY, 8)
    assert json.loads(cli("pareto", root / RUN, "--study-name", STUDY, "--json"))["study"] == STUDY


@pytest.mark.parametrize(
    "name", ["a b", "🚀", "ein Name", "../s", "a/b", ".s", "", "a\0", "a\nb", "語" * 67, "x" * 101, "e\u0301"]
)
def test_a_name_that_is_none_is_refused_with_what_is_valid(client: Client, root: Path, name: str) -> None:
    valid = "letters, digits, '.', '_' and '-', no '.' first, in composed form (NFC) and up to 200 bytes of UTF-8"
    with pytest.raises(ServiceError, match=re.escape(valid)) as refused:
        client.start(RUN_ID, study=name)
    assert refused.value.code == 422
    with pytest.raises(RunError, match=re.escape(valid)):
        Run.open(root / RUN).study(name)


def test_the_longest_name_is_a_name(client: Client, root: Path) -> None:
    name = "語" * 66
    job = client.start(RUN_ID, study=name, strategy="random", num_workers=0, n_trials=2)
    assert client.wait(job["id"])["state"] == "succeeded"
    assert client.study(RUN_ID, name)["n_trials"] == 2
