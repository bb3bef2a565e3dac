"""The reading commands on studies in every state: growing, finished, torn, empty, failed, foreign, on old weights."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from studies import CONTEXT, IDENTITY, PROBLEM, SPACE, make_run, make_trials, set_weights, write_study

from nas.journal import is_written
from nas.problem import Problem
from nas.run import Run
from nas.searching import open_study, pick_arch
from nas.store import JournalStore

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def test_studies_lists_settings_and_progress(run, nas):
    write_study(run, "default", make_trials(12, failed=(1,)), 12, limits={"macs": 3e6})
    write_study(run, "half", make_trials(5), 50, strategy="evolution", seed=7)
    write_study(run, "old", make_trials(3), context=CONTEXT | {"weights": "0" * 16, "score": "calibrated"})
    write_study(run, "none", [])
    run.study("bad").write_text("hello\n")
    code, out, err = nas("studies", run.path, "--json")
    rows = {row["study"]: row for row in json.loads(out)}
    assert (code, err) == (0, "")
    assert list(rows) == ["bad", "default", "half", "none", "old"]
    default = rows["default"]
    assert (default["n_trials"], default["n_failed"], default["n_asked"]) == (12, 1, 12)
    assert (default["limits"], default["objectives"]) == ({"macs": 3e6}, {"top1": "maximize", "macs": "minimize"})
    study = open_study(run)
    assert default["best"] == {"number": study.best.number, "metrics": dict(study.best.metrics)}
    assert default["front"] == len(study.front())
    assert (rows["half"]["strategy"], rows["half"]["seed"], rows["half"]["n_asked"]) == ("evolution", 7, 50)
    assert (rows["old"]["current"], rows["old"]["score"], default["current"]) == (False, "calibrated", True)
    assert (rows["none"]["n_trials"], rows["none"]["best"], rows["none"]["front"]) == (0, None, 0)
    assert "is not a study file" in rows["bad"]["error"]
    code, out, err = nas("studies", run.path)
    assert code == 0
    assert "12/12" in out
    assert "bad: " in out
    assert err == f"next: nas resume {run.path} --study-name half\n"


def test_studies_advises_what_would_not_be_refused(run, nas):
    run.study("bad").parent.mkdir()
    run.study("bad").write_text("hello\n")
    assert nas("studies", run.path)[2] == f"next: nas search {run.path} --study-name NAME\n"
    write_study(run, "old", make_trials(3), 10, context=CONTEXT | {"weights": "0" * 16})
    write_study(run, "random", make_trials(3))
    pareto = f"next: nas pareto {run.path} --study-name"
    assert nas("studies", run.path)[2] == f"{pareto} old\n"  # neither the damaged one, nor resuming on old weights
    for name in ("bad", "old"):
        run.study(name).unlink()
    assert nas("studies", run.path)[2] == f"{pareto} random\n"
    write_study(run, "search", make_trials(3), strategy="evolution")
    compare = f", or: nas compare {run.path}"
    assert nas("studies", run.path)[2] == f"{pareto} random{compare}\n"
    assert nas("compare", run.path)[0] == 0
    write_study(run, "small", make_trials(3), strategy="tpe", limits={"macs": 3e6})
    assert nas("studies", run.path)[2] == f"{pareto} random\n"
    assert nas("compare", run.path)[0] == 2


def test_studies_knows_which_is_being_written_by_another_process(run, nas):
    write_study(run, "default", make_trials(2))
    holder = f"""
import sys, time
from pathlib import Path
from nas.journal import JournalWriter
writer = JournalWriter(Path({str(run.study("default"))!r}))
print("writing", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline() == "writing\n"
    assert json.loads(nas("studies", run.path, "--json")[1])[0]["writing"] is True
    assert "searching" in nas("studies", run.path)[1]
    process.kill()
    process.communicate()
    assert json.loads(nas("studies", run.path, "--json")[1])[0]["writing"] is False
    assert not is_written(run.study("never"))
    assert not list(run.path.glob("studies/never*"))


def test_looking_does_not_keep_a_writer_away(run):
    """The look takes the lock for an instant, shared with other looks."""
    write_study(run, "default", make_trials(2))
    with open(run.study("default").with_name("default.journal.writer")) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_written(run.study("default"))
        threading.Timer(0.01, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        write_study(run, "default", make_trials(3)[2:])
    assert len(open_study(run).trials) == 3


def in_one_process(commands, heavy):
    """Runs the commands in a fresh interpreter; after each it prints its exit code and what is loaded of `heavy`."""
    code = f"""
import sys
from nas import cli
for arguments in {commands!r}:
    sys.argv = ["nas", *arguments]
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    print("exit", code, sorted(set({heavy!r}.split()) & set(sys.modules)), flush=True)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)


def test_studies_and_query_import_nothing_heavy(run):
    write_study(run, "default", make_trials(5))
    done = in_one_process([[command, str(run.path)] for command in ("studies", "query")], "torch ray matplotlib")
    assert [line for line in done.stdout.splitlines() if line.startswith("exit ")] == ["exit 0 []"] * 2


def test_a_run_without_studies(run, nas):
    code, out, err = nas("studies", run.path)
    assert (code, out, err) == (0, "no studies yet\n", f"next: nas search {run.path}\n")
    assert nas("studies", run.path, "--json")[:2] == (0, "[]\n")
    for command in ("pareto", "resume"):
        code, out, err = nas(command, run.path)
        assert (code, out) == (2, "")
        assert "has no study 'default'; studies: none yet" in err
    code, out, err = nas("compare", run.path)
    assert (code, out) == (2, "")
    assert f"{run.path} has no studies; make one with: nas search" in err


def test_compare_draws_and_prints(run, nas, tmp_path):
    for seed in range(3):
        write_study(run, f"r{seed}", make_trials(30, seed), seed=seed)
        write_study(run, f"e{seed}", make_trials(25, seed + 3), seed=seed, strategy="evolution")
    code, out, err = nas("compare", run.path, "-o", tmp_path / "curves.png")
    assert code == 0
    assert "evolution (n=3)" in out
    assert "reference point" in out
    assert Image.open(tmp_path / "curves.png").size == (1560, 600)
    assert err.startswith(f"next: nas pareto {run.path} --study-name NAME")
    assert nas("compare", run.path)[2] == f"next: nas compare {run.path} -o compare.png\n"
    code, _, err = nas("compare", run.path, "-o", tmp_path / "nowhere" / "curves.png")
    assert (code, err) == (2, f"error: there is no folder {tmp_path / 'nowhere'} to draw into\n")
    code, out, err = nas("compare", run.path, "--json")
    found = json.loads(out)
    assert (code, err, found["evaluations"]) == (0, "", [10, 20, 25])
    best = {name: open_study(run, name) for name in ("r0", "r1", "r2")}
    finals = [max(t.metrics["top1"] for t in study.trials[:25]) for study in best.values()]
    assert [row[-1] for row in found["groups"]["random"]["best"]["studies"]] == finals
    assert found["groups"]["random"]["best"]["median"][-1] == sorted(finals)[1]
    code, _, err = nas("compare", f"{run.path}:r0", f"{run.path}:r1")
    assert code == 0
    assert "--strategy OTHER" in err


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["RUN:nope"], "has no study 'nope'; studies: a, b"),
        (["RUN"], "limits.macs is absent and 3000000.0"),
        (["nope"], "there is no journal file and no run folder nope"),
        (["nope:a"], "there is no run folder nope"),
        (["RUN/run.json"], "is not a study file"),
        (["EMPTY"], "holds no study"),
        (["."], "is not a run folder"),
    ],
)
def test_what_cannot_be_compared_is_named_with_exit_code_2(run, nas, tmp_path, sources, message):
    write_study(run, "a", make_trials(3))
    write_study(run, "b", make_trials(3), limits={"macs": 3e6})
    (tmp_path / "empty").touch()
    texts = [source.replace("RUN", str(run.path)).replace("EMPTY", str(tmp_path / "empty")) for source in sources]
    code, out, err = nas("compare", *texts)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize("bad", [None, [], "text"])
def test_a_study_whose_settings_were_changed_is_listed_as_damaged(run, nas, bad):
    write_study(run, "good", make_trials(3))
    write_study(run, "bad", make_trials(3))
    file = run.study("bad")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    (settings,) = [line["user_attr"]["nas"] for line in lines if "nas" in line.get("user_attr", ())]
    settings["context"] = bad
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, _ = nas("studies", run.path, "--json")
    rows = {row["study"]: row for row in json.loads(out)}
    assert code == 0
    assert f"context is {bad!r}; valid: an object" in rows["bad"]["error"]
    assert rows["good"]["error"] is None
    for command in ("pareto", "query", "resume"):
        code, _, err = nas(command, run.path, "--study-name", "bad")
        assert code != 0
        assert f"context is {bad!r}; valid: an object" in err


def test_a_link_to_nothing_is_no_study_and_a_file_no_folder_of_them(run, nas):
    write_study(run, "good", make_trials(3))
    run.study("lost").symlink_to(run.path / "nowhere")
    code, out, _ = nas("studies", run.path, "--json")
    assert (code, [row["study"] for row in json.loads(out)]) == (0, ["good"])
    shutil.rmtree(run.path / "studies")
    (run.path / "studies").write_text("notes")
    for command in (["studies"], ["pareto"], ["search", "--num-workers", 0]):
        code, _, err = nas(command[0], run.path, *command[1:])
        assert code == 2
        assert f"{run.path / 'studies'} is a file; a folder is needed" in err


@pytest.mark.parametrize("size", [1, 40, 200])
def test_readers_use_the_intact_part_of_a_torn_journal_and_say_what_is_lost(run, nas, caplog, size):
    write_study(run, "default", make_trials(6))
    file = run.study("default")
    whole = file.read_bytes()
    torn = whole[: whole.rfind(b"\n", 0, -1) + 1 + size]
    file.write_bytes(torn)
    for command in ("pareto", "studies", "query", "compare"):
        caplog.clear()
        code, out, _ = nas(command, run.path, "--json")
        assert code == 0
        assert f"the last {size} bytes are an unfinished record and are left out" in caplog.text
        assert '"n_trials": 5' in out or '"evaluated": 5' in out or '"evaluations": [5]' in out
    assert file.read_bytes() == torn
    store = JournalStore(file, IDENTITY, SPACE)  # while it is written, a half line is nothing to report
    store.append(make_trials(6)[5])
    with open(file, "ab") as half:
        half.write(b'{"op_')
    caplog.clear()
    assert len(open_study(run).trials) == 6
    assert caplog.text == ""
    store.close()


@pytest.mark.parametrize(
    "content", [b"hello\n", b"\x00\xff\n", b"[1]\n", b'{"op_code": 99}\n', b'{"op_code":0}\n{"x"\n']
)
def test_a_foreign_file_is_named(run, nas, tmp_path, content):
    write_study(run, "default", make_trials(2))
    run.study("default").write_bytes(content)
    for command in (["pareto"], ["query"], ["compare"], ["resume"], ["export", "--best", "-o", tmp_path / "out"]):
        code, out, err = nas(command[0], run.path, *command[1:])
        assert (code, out) == (2, "")
        assert f"{run.study('default')} is not a study file, or is damaged" in err
        assert "Traceback" not in err
    assert nas("studies", run.path)[0] == 0


@pytest.mark.parametrize(
    ("failed", "limits", "message"),
    [
        ((), {}, "0 trials, 0 failed"),
        ((0, 1, 2), {}, "no feasible trial: all failed, the first of: RuntimeError: no luck"),
        ((1,), {"macs": 1.0}, "no feasible trial: none is within the limits"),
    ],
)
def test_a_study_without_a_feasible_trial_says_why_and_what_to_do(run, nas, tmp_path, failed, limits, message):
    problem = Problem(SPACE, IDENTITY.objectives, limits, PROBLEM.cost)
    write_study(
        run, "default", make_trials(3 if limits or failed else 0, failed=failed, problem=problem), 100, limits=limits
    )
    code, out, err = nas("pareto", run.path)
    assert code == 0
    assert message in out
    assert err.startswith(f"next: nas resume {run.path} --n-trials 10")
    assert json.loads(nas("pareto", run.path, "--json")[1])["front"] == []
    code, _, err = nas("export", run.path, "--best", "-o", tmp_path / "out")
    assert code == 2
    assert "has no feasible trial" in err


def test_an_exhausted_study_without_a_feasible_trial_is_not_to_be_resumed(run, nas):
    problem = Problem(SPACE, IDENTITY.objectives, {"top1": (2, None)}, PROBLEM.cost)
    trials = make_trials(3, problem=problem)
    write_study(run, "default", trials, 100, limits=problem.limits)
    identity = replace(IDENTITY, limits=problem.limits)
    with closing(JournalStore(run.study("default"), identity, SPACE)) as store:
        store.exhaust()
    for command in (["pareto"], ["resume", "--num-workers", 0]):
        code, _, err = nas(command[0], run.path, *command[1:])
        assert code == 0, err
        assert f"next: nas search {run.path} --study-name NAME with wider limits" in err
        assert "next: nas resume" not in err


def test_a_study_on_weights_that_the_run_no_longer_has_is_warned_of(run, nas, caplog):
    write_study(run, "default", make_trials(4), 10)
    assert nas("pareto", run.path)[0] == 0
    assert caplog.text == ""
    set_weights(run, "b")
    assert nas("pareto", run.path)[0] == 0
    assert "study 'default' was searched on weights that" in caplog.text
    caplog.clear()
    pick_arch(run, best=True)  # as `nas export --best` does
    assert "study 'default' was searched on weights that" in caplog.text
    assert json.loads(nas("studies", run.path, "--json")[1])[0]["current"] is False
    code, out, err = nas("resume", run.path)
    assert (code, out) == (2, "")
    assert "cannot go on; search with another --study-name" in err
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-1])  # the one before stands in: still the study's
    caplog.clear()
    assert nas("pareto", run.path)[0] == 0
    assert caplog.text == ""


def test_other_settings_and_malformed_addresses_are_refused_before_torch_is_imported(run):
    write_study(run, "default", make_trials(3), limits={"macs": (1e6, 3e6)})
    settings = ["--strategy", "random", "--min-macs", "1M", "--max-macs", "3M", "--num-workers", "1"]
    refused = {
        ("--seed", "5"): "exists and is another search: seed is 0 in the study and 5 now.",
        ("--lookahead", "9"): "exists and is another search: lookahead is 8 in the study and 9 now.",
    } | {
        ("--address", address): f"error: address is '{address}'; valid: local, auto, or host:port"
        for address in ("foo", "http://head:8265", "head:")
    }
    done = in_one_process([["search", str(run.path), *settings, *options] for options in refused], "torch ray")
    assert done.stdout == "exit 2 []\n" * len(refused)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(message in line for message, line in zip(refused.values(), errors, strict=True)), done.stderr
