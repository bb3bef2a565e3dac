"""Commands on runs of remote storage: the URL is what they name, and what cannot be reached is a plain error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from remotes import JOURNAL

from nas.remote_storage import Storage
from nas.run import folder_of

ROOT = Path(__file__).parent.parent


def test_a_new_run_wants_an_empty_place(published, nas):
    code, _, err = nas("train", "--space", "digits", "--data", "digits", "-o", published)
    assert (code, f"{published} is not empty; continue that run with --resume" in err) == (2, True)


@pytest.mark.parametrize("command", [["search"], ["pareto"], ["export", "--best", "-o", "model"], ["trust"]])
def test_no_run_there(nas, on, url, command):
    code, _, err = nas(command[0], url, *command[1:])
    assert (code, err) == (2, f"error: there is no run folder {url}; make one with `nas train … -o {url}`\n")
    assert not folder_of(url).exists()


def test_messages_name_the_url_of_a_file(nas, published):
    Storage(published).write(JOURNAL, b"no journal\n")
    code, _, err = nas("pareto", published)
    assert code == 2
    assert err.startswith(f"error: {published}/{JOURNAL} is not a study file")


def test_pictures_and_next_steps_name_the_url(nas, published):
    code, out, err = nas("search", published, "--n-trials", 3, "--num-workers", 0)
    assert code == 0
    assert out.splitlines()[-1] == f"picture: {published}/front.png"
    assert err.splitlines()[-1] == f"next: nas export {published} --best -o DIR"
    assert Storage(published).read("front.png").startswith(b"\x89PNG")


def test_what_cannot_be_reached_is_an_error_without_a_traceback(nas, on, tmp_path):
    assert nas("pareto", "nope://x/run")[::2] == (
        2,
        "error: nope://x/run cannot be opened: Protocol not known: nope; valid: a folder, or a URL of file, s3, gs, "
        "abfs, memory or another protocol of fsspec\n",
    )
    without = "import sys; sys.modules['s3fs'] = None; sys.argv = ['nas', 'pareto', 's3://x/run']"
    done = subprocess.run(
        [sys.executable, "-c", f"{without}; from nas import cli; cli.main()"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "error: s3://x/run cannot be opened: s3:// needs a package that is not installed: "
        "pip install 'nas-service[s3]'\n"
    )


def test_a_missing_bucket_and_a_server_that_does_not_answer(nas, on, s3, monkeypatch):
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    for arguments in (["pareto", "s3://nowhere/run"], ["train", "--space", "digits", "--data", "digits", "-o"]):
        code, _, err = nas(*arguments, *["s3://nowhere/run"] * (arguments[0] == "train"))
        assert (code, "there is no bucket 'nowhere'" in err, "Traceback" in err) == (1, True, False)


def test_a_local_run_has_no_mirror(nas, on, run_copy, tmp_path):
    before = {file.name for file in run_copy.iterdir()}
    assert nas("search", run_copy, "--n-trials", 2, "--num-workers", 0)[0] == 0
    assert {file.name for file in run_copy.iterdir()} - before == {"studies", "evaluations.jsonl", "front.png"}
    assert not (tmp_path / "first").exists()
