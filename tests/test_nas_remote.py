"""Runs on remote storage: what is pulled, kept, published and refused."""

from __future__ import annotations

import contextlib
import json
import shutil
import time

import pytest
import torch
from remotes import EVERYWHERE, JOURNAL, history, search, search_unpublished

from nas import remote
from nas.cache import EvaluationCache
from nas.remote_storage import RemoteError, Storage
from nas.run import Run, RunError, writing
from nas.searching import open_study
from supernet import checkpoint
from supernet.header import CheckpointError


@EVERYWHERE
def test_storage(url, tmp_path):
    storage = Storage(url + "/")
    assert storage.list() == {}
    assert storage.signature("a/b.txt") is None
    assert storage.read("a/b.txt") == b""
    storage.write("a/b.txt", b"one")
    first = storage.signature("a/b.txt")
    (tmp_path / "two").write_bytes(b"two")
    storage.upload("a/b.txt", tmp_path / "two")
    assert storage.signature("a/b.txt") != first
    assert storage.list() == {"a/b.txt": storage.signature("a/b.txt")}
    assert storage.read("a/b.txt", 1, 3) == b"wo"
    storage.download("a/b.txt", tmp_path / "deep" / "copy")
    assert (tmp_path / "deep" / "copy").read_bytes() == b"two"
    assert [storage.create("lock", b"1"), storage.create("lock", b"2")] == [True, False]
    assert storage.read("lock") == b"1"
    storage.remove("lock")
    storage.remove("lock")
    assert sorted(storage.list()) == ["a/b.txt"]


@EVERYWHERE
def test_an_opened_run_reads_like_a_local_one_and_takes_its_checkpoint_when_needed(published, trained_run):
    run, local = Run.open(published), Run.open(trained_run)
    assert (run.description, str(run)) == (local.description, published)
    assert run.checkpoint_state() == local.checkpoint_state() == checkpoint.load(local.checkpoint)[1]
    assert not (run.path / "checkpoint.safetensors").exists()
    assert run.checkpoint.read_bytes() == local.checkpoint.read_bytes()
    taken = run.checkpoint.stat().st_mtime_ns
    assert Run.open(published).checkpoint.stat().st_mtime_ns == taken
    assert run.checkpoint_state() == local.checkpoint_state()
    Storage(published).write("checkpoint.safetensors", b"another")
    with pytest.raises(CheckpointError, match=f"{published}/checkpoint.safetensors is damaged or not a checkpoint"):
        run.checkpoint_state()
    assert Run.open(published).checkpoint.read_bytes() == b"another"


@EVERYWHERE
def test_a_search_has_the_history_of_a_local_one_and_another_machine_continues_it(published, on, run_copy):
    expected = history(search(run_copy, 12))
    assert history(search(published, 8)) == expected[:8]
    on("second")
    assert history(open_study(published)) == expected[:8]
    assert history(search(published, 12)) == expected
    on("first")
    assert history(open_study(published)) == expected
    assert not [name for name in Storage(published).list() if name.endswith((".lock", ".tmp", ".writer"))]


def test_what_a_killed_search_did_not_publish_is_kept_and_published(published, on):
    run = Run.open(published)
    journal = run.study("default")
    search_unpublished(published, 6)
    ahead = journal.read_bytes()
    journal.write_bytes(ahead + b'{"op_code": half')
    assert len(open_study(published).trials) == 6
    with Run.open(published).publishing():  # which leaves a study to who has its lock
        pass
    on("second")
    with pytest.raises(RunError, match="no study"):
        open_study(published)
    on("first")
    search(published, 6)
    assert journal.read_bytes() == Storage(published).read(JOURNAL) == ahead
    on("second")
    assert len(open_study(published).trials) == 6


def test_machines_that_continued_the_same_search_agree_on_the_longer_history(published, on):
    search(published, 4)
    search_unpublished(published, 8)
    on("second")
    longer = history(search(published, 10))
    on("first")
    assert history(open_study(published)) == longer
    search_unpublished(published, 12)
    on("second")
    search_unpublished(published, 11)
    on("first")
    search(published, 12)
    on("second")
    assert len(search(published, 12).trials) == 12


def test_different_searches_of_one_name_are_refused_and_leave_the_other_studies_alone(published, on):
    mirror = search_unpublished(published, 3, seed=1)
    on("second")
    search(published, 3, seed=2)
    theirs = Storage(published).read(JOURNAL)
    on("first")
    with pytest.raises(RunError, match="are different searches") as refused:
        search(published, 4, seed=1)
    assert published in str(refused.value)
    assert str(mirror) in str(refused.value)
    with pytest.raises(RunError, match="are different searches"):
        open_study(published)
    search(published, 2, study_name="other")
    assert Storage(published).read(JOURNAL) == theirs
    (mirror / JOURNAL).unlink()
    assert (Run.open(published).path / JOURNAL).read_bytes() == theirs


def test_evaluations_of_two_machines_are_merged(published, on):
    def evaluate(run, key):
        with contextlib.closing(EvaluationCache(run.evaluations, "context")) as cache:
            cache.put(key, {"top1": 0.5})

    first = Run.open(published)
    with first.publishing():
        evaluate(first, "a")
        on("second")
        second = Run.open(published)
        with second.publishing():
            evaluate(second, "b")
    lines = Storage(published).read("evaluations.jsonl").splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]
    assert first.evaluations.read_bytes().splitlines() == lines


def test_changes_are_published_while_a_lock_is_held(published, monkeypatch):
    monkeypatch.setattr(remote, "PUBLISH_SECONDS", 0.01)
    run, storage = Run.open(published), Storage(published)
    with run.publishing(run.study("default")):
        for text in (b"one", b"two"):
            (run.path / "note.txt").write_bytes(text)
            looks = (time.sleep(0.01) or storage.read("note.txt") for _ in range(3000))
            assert text in looks


@pytest.mark.parametrize("ended", [KeyboardInterrupt, OSError])
def test_changes_are_published_however_the_block_ends(published, ended):
    run = Run.open(published)

    def write():
        with run.publishing(run.study("default")):
            (run.path / "note.txt").write_bytes(b"one")
            raise ended

    with pytest.raises(ended):
        write()
    assert Storage(published).read("note.txt") == b"one"
    assert f"{JOURNAL}.lock" not in Storage(published).list()


def checkpoint_at(step, run):
    run.path.mkdir(parents=True, exist_ok=True)
    path = run.path / "checkpoint.safetensors"
    checkpoint.save(path, {"weights": torch.full((3,), float(step))}, {"step": step})
    (run.path / "metrics.jsonl").write_text(f'{{"step": {step}}}\n')
    return path.read_bytes()


@pytest.mark.parametrize(("here", "there"), [(7, 9), (9, 7)])
def test_of_two_trainings_the_further_one_counts(published, on, here, there):
    first = Run.open(published)
    first.checkpoint  # noqa: B018 - which takes it
    ours = checkpoint_at(here, first)
    on("second")
    second = Run.open(published)
    with writing(second):
        theirs = checkpoint_at(there, second)
    on("first")
    again = Run.open(published)
    assert again.checkpoint.read_bytes() == (ours if here > there else theirs)
    assert json.loads(again.metrics.read_text())["step"] == max(here, there)
    with writing(again):
        pass
    assert Storage(published).read("checkpoint.safetensors") == again.checkpoint.read_bytes()


def test_a_failure_to_publish_loses_nothing(published, tmp_path, caplog):
    """It ends a search; where only a picture was to be published it is a warning."""
    run, place = Run.open(published), tmp_path / "shared" / "run"

    def write(text, lock):
        with run.publishing(lock):
            (run.path / "note.txt").write_text(text)
            place.rename(tmp_path / "away")
            place.write_text("no folder")

    with pytest.raises(RemoteError, match=f"cannot .* {published}/"):
        write("one", run.study("default"))
    for after in ("one", "two"):
        place.unlink()
        (tmp_path / "away").rename(place)
        with run.publishing():
            pass
        assert Storage(published).read("note.txt").decode() == after
        if after == "one":
            write("two", None)
    assert f"it is kept in {run.path}, and published the next time" in caplog.text


def test_a_run_that_was_made_anew_is_not_mixed_with_the_one_before(published):
    def make_anew(name):
        description = json.loads(Storage(published).read("run.json")) | {"classes": [name]}
        Storage(published).write("run.json", json.dumps(description).encode())

    search(published, 2)
    make_anew("a")
    run = Run.open(published)
    assert run.description["classes"] == ["a"]
    assert [file.name for file in run.path.iterdir() if file.suffix == ".safetensors"] == []
    search_unpublished(published, 3)
    make_anew("b")
    with pytest.raises(RunError, match=r"another run now, and its mirror .* not published: evaluations\.jsonl"):
        Run.open(published)
    shutil.rmtree(run.path)
    assert Run.open(published).description["classes"] == ["b"]


def test_a_run_that_was_removed_is_gone(published, tmp_path):
    mirror = Run.open(published).path
    shutil.rmtree(tmp_path / "shared")
    with pytest.raises(RunError, match="there is no run folder"):
        Run.open(published)
    assert not mirror.exists()
