"""The client against a service of its own process; how a driver reports its workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import TOKEN, free_port, serving
from studies import IDENTITY, SPACE, make_run, make_trials, write_study

from nas.client import Client, ServiceError
from nas.run import Run
from nas.service.events import _MOST_TRIALS
from nas.status import read_status, reporting
from nas.store import JournalStore
from workers.evaluator import CallableEvaluator, EvaluatorSpec
from workers.pool import LocalPool


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    write_study(make_run(folder / "deep" / "run"), "s", make_trials(20, failed=(2,)), 20)
    return folder


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[Client]:
    with serving(root, NAS_TOKEN=TOKEN) as url:
        yield Client(url + "/", TOKEN)


def test_what_there_is(client: Client) -> None:
    (run,) = client.runs()
    assert run["id"] == "deep~run"
    assert [study["study"] for study in client.studies("deep~run")] == ["s"]
    assert client.study("deep~run", "s")["n_failed"] == 1
    assert [trial["number"] for trial in client.trials("deep~run", "s")] == list(range(20))
    front = client.front("deep~run", "s")
    assert [t["number"] for t in front if not client.trial("deep~run", "s", t["number"])["on_front"]] == []
    assert client.preflight("deep~run", {"macs": [None, 5e6]})["feasible"]


def test_refusals_have_the_service_s_words_and_code(client: Client) -> None:
    with pytest.raises(ServiceError, match="there is no run 'none'; runs: deep~run") as error:
        client.studies("none")
    assert error.value.code == 404
    with pytest.raises(ServiceError, match="no upper limit on 'colour'; valid: macs") as error:
        client.start("deep~run", study="t", limits={"colour": 1.0})
    assert error.value.code == 422
    with pytest.raises(ServiceError, match="a token is needed") as error:
        Client(client.url, "wrong").runs()
    assert error.value.code == 401
    with pytest.raises(ServiceError, match="no service answers at") as error:
        Client(f"http://127.0.0.1:{free_port()}").runs()
    assert error.value.code is None


def test_following_a_long_study_comes_in_pieces(root: Path, client: Client) -> None:
    n = _MOST_TRIALS + 50
    write_study(Run.open(root / "deep" / "run"), "long", make_trials(n), n)
    events = list(client.follow("deep~run", "long"))
    assert [len(event["trials"]) for event in events] == [_MOST_TRIALS, 50]
    assert events[-1]["summary"]["state"] == "finished"
    assert [volume for event in events for volume in event["hypervolumes"]] == sorted(
        volume for event in events for volume in event["hypervolumes"]
    )


def test_following_goes_on_where_the_service_was_lost(tmp_path: Path) -> None:
    run, port, trials = make_run(tmp_path / "run"), free_port(), make_trials(12)
    store = JournalStore(run.study("default"), IDENTITY, SPACE, 12)
    seen: list[int] = []

    def follow() -> None:
        for event in Client(f"http://127.0.0.1:{port}").follow("run"):
            seen.extend(trial["number"] for trial in event["trials"])

    follower = threading.Thread(target=follow)
    for trial in trials[:4]:
        store.append(trial)
    with serving(tmp_path, port=port):
        follower.start()
        _until(lambda: len(seen) == 4)
    for trial in trials[4:9]:
        store.append(trial)
    with serving(tmp_path, port=port):
        _until(lambda: len(seen) == 9)
        for trial in trials[9:]:
            store.append(trial)
        _until(lambda: len(seen) == 12)
        store.close()
        follower.join(60)
    assert not follower.is_alive()
    assert seen == list(range(12))


def _until(true: object) -> None:
    deadline = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_driver_says_what_its_workers_do_and_asks_as_before(tmp_path: Path) -> None:
    journal = tmp_path / "s.journal"
    assert read_status(journal) is None
    pool = LocalPool(EvaluatorSpec(lambda: CallableEvaluator(lambda arch: 1.0, "top1")))
    answers = iter([False, True])
    ask = reporting(journal, pool, lambda: next(answers))
    pool.submit(0, SPACE.smallest())
    assert [ask(), ask()] == [False, True]
    status = read_status(journal)
    assert status is not None
    assert (status["alive"], status["busy"], status["restarted"]) == (1, 1, 0)
    for damage in ("{", "[]", "7"):
        (tmp_path / "s.status.json").write_text(damage)
        assert read_status(journal) is None
    gone = reporting(tmp_path / "no folder" / "s.journal", pool, lambda: True)
    assert gone()
