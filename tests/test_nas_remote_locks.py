"""Who may write a run on remote storage: one machine a study and one training, until it is dead."""

from __future__ import annotations

import json
import os
import socket
import time

import pytest
from remotes import EVERYWHERE, JOURNAL, search

from nas.remote_lock import STALE_SECONDS, WriterLock
from nas.remote_storage import Storage
from nas.run import Run, RunError, writing


def test_one_machine_writes_a_study_and_others_write_other_studies(published, on):
    first = Run.open(published)
    with first.publishing(first.study("default")):
        on("second")
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()} on {socket.gethostname()}"):
            search(published, 2)
        search(published, 2, study_name="other")
        on("first")
        with pytest.raises(RunError, match="by another process of this machine"):
            search(published, 2)
    on("second")
    search(published, 2)


@EVERYWHERE
def test_the_lock_of_a_dead_process_is_taken_over(url, tmp_path):
    storage = Storage(url)

    def lock(mirror):
        return WriterLock(storage, JOURNAL, tmp_path / mirror / "lock", mirror)

    def left(mirror, age):
        holder = {"id": "dead", "mirror": mirror, "host": "far", "pid": 1, "time": time.time() - age}
        storage.write(f"{JOURNAL}.lock", json.dumps(holder).encode())

    left("second", STALE_SECONDS / 2)
    with pytest.raises(RunError, match="is being written by process 1 on far"), lock("first"):
        pass
    with lock("second"):  # of this very mirror: a lock of the operating system says that it is dead
        pass
    left("second", STALE_SECONDS + 1)
    with lock("first") as held:
        held.renew()
        held.check()
        left("second", 0)  # this machine was asleep for a minute
        held.renew()
        with pytest.raises(RunError, match="was taken over by process 1 on far"):
            held.check()
    assert json.loads(storage.read(f"{JOURNAL}.lock"))["id"] == "dead"


def test_one_machine_trains(published, on):
    with writing(Run.open(published)):
        on("second")
        with pytest.raises(RunError, match="training is being written by process"), writing(Run.open(published)):
            pass
