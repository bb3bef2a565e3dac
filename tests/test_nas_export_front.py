"""A whole front is exported with an index; a trial that fails, or an interruption, costs no other trial."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import warm_python

from nas.export import exporter
from nas.run import Run
from nas.searching import open_study, search_run

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("quick_checks")


@pytest.fixture(scope="module")
def searched(trained_run, tmp_path_factory):
    """A run with a study whose front has two trials, whatever was trained: it is one of costs. Not to be written to."""
    folder = tmp_path_factory.mktemp("searched") / "run"
    shutil.copytree(trained_run, folder)
    search_run(Run.open(folder), n_trials=12, num_workers=0, strategy="random", objectives=("params", "macs"))
    return folder


@pytest.fixture(scope="module")
def front(searched):
    """The numbers of its trials, in the order of their parameters."""
    trials = open_study(searched).front()
    assert len(trials) == 2
    return [trial.number for trial in sorted(trials, key=lambda trial: trial.metrics["params"])]


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.cells = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.cells.append(data)


def test_a_front_is_exported_with_an_index(searched, front, nas, monkeypatch, tmp_path):
    loaded = []
    monkeypatch.setattr(
        exporter, "load_trained", lambda run, load=exporter.load_trained: loaded.append(run) or load(run)
    )
    out = tmp_path / "front"
    code, printed, err = nas("export", searched, "--front", "-o", out)
    assert code == 0, err
    assert len(loaded) == 1
    assert f"next: open {out / 'index.html'}" in err
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["index.html", "index.json", *(f"trial-{number}" for number in front)]
    )
    index = json.loads((out / "index.json").read_text())
    assert [entry["trial"] for entry in index["entries"]] == front
    for entry in index["entries"]:
        written = json.loads((out / entry["folder"] / "certificate.json").read_text())
        assert entry["certificate"] == written
        assert entry["certificate"]["validation_top1"] == entry["metrics"]["top1"]
        assert f"{written['top1']:.2%}" in printed

    page = Links()
    page.feed((out / "index.html").read_text())
    links = [link for link in page.found if not link.startswith("data:image/png;base64,")]
    assert len(page.found) == len(links) + 1
    assert all((out / link).is_file() for link in links)
    assert len(links) == 4 * len(front)
    assert "://" not in (out / "index.html").read_text()

    code, _, err = nas("export", searched, "--front", "-o", out)
    assert (code, "is not empty; name another folder, or overwrite with --force" in err) == (2, True)


def test_a_trial_that_cannot_be_written_is_reported_and_costs_no_other(searched, front, nas, tmp_path):
    (tmp_path / f"trial-{front[0]}").write_text("a file where a folder should be")
    code, _, err = nas("export", searched, "--front", "-o", tmp_path, "--force")
    assert code == 1
    assert f"trial {front[0]}: " in err
    assert f"next: nas export {searched} --trial {front[0]} -o " in err
    entries = {entry["trial"]: entry for entry in json.loads((tmp_path / "index.json").read_text())["entries"]}
    assert "Not a directory" in entries[front[0]]["error"]
    for number in front[1:]:
        assert entries[number]["error"] is None
        assert (tmp_path / f"trial-{number}" / "model.safetensors").exists()
    assert "Not a directory" in (tmp_path / "index.html").read_text()


def test_an_interruption_keeps_what_is_exported_and_says_what_is_not(searched, front, tmp_path):
    out = tmp_path / "front"
    start = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from nas import cli; cli.main()"
    command = [warm_python.python(), "-c", start, "export", searched, "--front", "-o", out]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert first.endswith(": exported\n"), first
    entries = json.loads((out / "index.json").read_text())["entries"]
    assert [entry["error"] for entry in entries] == [None] + ["not exported yet"] * (len(front) - 1)
    assert sorted(p.name for p in out.iterdir()) == ["index.html", "index.json", entries[0]["folder"]]
    assert "not exported yet" in (out / "index.html").read_text()


@pytest.mark.parametrize("option", [["--trial", 0], ["--best"], ["--arch", "{}"]])
def test_one_trial_and_the_front_are_not_exported_at_once(option, searched, nas, tmp_path):
    code, _, err = nas("export", searched, "--front", *option, "-o", tmp_path / "front")
    assert (code, "--front exports the whole front: leave out" in err) == (2, True)


def test_a_front_of_fine_tuned_weights_needs_them_for_every_trial(searched, nas, tmp_path):
    code, _, err = nas("export", searched, "--front", "--finetuned", "-o", tmp_path / "front")
    assert (code, "has no fine-tuned weights of" in err, (tmp_path / "front").exists()) == (2, True, False)
