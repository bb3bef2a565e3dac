"""The REST API in process, over real studies: its contract, and that no path leaves the root."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import devices
import pytest
from fastapi.testclient import TestClient
from studies import CONTEXT, IDENTITY, PROBLEM, SPACE, make_run, make_trials, write_study

from nas.problem import Problem
from nas.run import Run
from nas.service.app import create_api
from nas.service.jobs import FOLDER
from nas.service.paths import inside
from nas.service.requests import SearchSettings
from nas.service.service import Service
from nas.store import JournalStore, read_study
from search_spaces.catalog import SPACES

LIMITED = Problem(SPACE, PROBLEM.objectives, {"macs": 5e6}, PROBLEM.cost)
STUDY = "/api/v1/runs/deep~run/studies/default"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    run = make_run(tmp_path / "root" / "deep" / "run")
    write_study(run, "default", make_trials(40, failed=(3,), problem=LIMITED), 100, limits={"macs": 5e6})
    return tmp_path / "root"


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(create_api(Service.open(root)))


def test_runs_and_studies(client: TestClient) -> None:
    (run,) = client.get("/api/v1/runs").json()
    assert (run["id"], run["space"], run["space_size"]) == ("deep~run", "digits", SPACE.size())
    (study,) = run["studies"]
    assert client.get("/api/v1/runs/deep~run").json()["studies"][0]["study"] == "default"
    assert (study["state"], study["n_trials"], study["n_failed"], study["n_asked"]) == ("interrupted", 40, 1, 100)
    assert study["limits"] == {"macs": 5e6}
    assert study["best"]["metrics"]["macs"] <= 5e6
    assert client.get(STUDY).json()["best"] == study["best"]


def test_pages_of_trials_are_all_trials_once(client: TestClient, root: Path) -> None:
    stored = read_study(root / "deep" / "run" / "studies" / "default.journal").trials
    pages = [client.get(f"{STUDY}/trials", params={"offset": n, "limit": 7}).json() for n in range(0, 40, 7)]
    assert {page["total"] for page in pages} == {40}
    assert [t["number"] for page in pages for t in page["trials"]] == list(range(40))
    rows = [t for page in pages for t in page["trials"]]
    assert [(t["key"], t["metrics"], t["feasible"]) for t in rows] == [
        (t.arch.key, t.metrics, t.feasible) for t in stored
    ]


def test_an_infeasible_trial_is_never_best_nor_on_the_front(client: TestClient) -> None:
    front = client.get(f"{STUDY}/front").json()["trials"]
    assert front
    assert all(trial["feasible"] for trial in front)
    points = client.get(f"{STUDY}/points").json()
    assert points["front"] == [trial["number"] for trial in front]
    assert points["feasible"].count(False) > 1
    assert points["metrics"]["top1"][3] is None
    assert (
        client.get(f"{STUDY}/points", params={"since": 39}).json()["metrics"]["top1"] == points["metrics"]["top1"][39:]
    )


def test_a_trial_with_its_architecture(client: TestClient) -> None:
    trial = client.get(f"{STUDY}/trials/5", params={"other": 6}).json()
    blocks = trial["architecture"]["blocks"]
    assert sum(block["macs"] for block in blocks) == trial["metrics"]["macs"]
    assert trial["architecture"]["key"] == trial["key"]
    assert trial["difference"]


def test_the_space(client: TestClient) -> None:
    space = client.get("/api/v1/runs/deep~run/space").json()
    low, high = space["range"]["macs"]
    assert space["size"] == SPACE.size()
    assert all(low <= macs <= high for macs in space["sample"]["macs"])


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/api/v1/runs/none", "runs: deep~run"),
        ("/api/v1/runs/deep~run/studies/none", "studies: default"),
        (f"{STUDY}/trials/40", "valid: 0 to 39"),
        ("/api/v1/jobs/none", "no job 'none'"),
        (f"{STUDY}/trials/1/archive", "is not exported"),
    ],
)
def test_what_is_not_there_is_a_404_that_says_what_is(client: TestClient, path: str, says: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"limits": {"macs": 1.0}}, "nearest reachable"),
        ({"limits": {"colour": 1.0}}, "no upper limit on 'colour'; valid: macs, params, peak_memory, weight_bytes"),
        ({"limits": {"macs": -1}}, "greater than or equal to 0, not -1"),
        ({"limits": {"macs": [2, 1]}}, "contradicts itself"),
        ({"limits": {"macs": [None, None]}}, "macs"),
        ({"limits": {"peak_memory": [1, None]}}, "no lower limit on 'peak_memory'; valid: macs, params, top1"),
        ({"limits": {"top1": [70, None]}}, "the lower limit on 'top1' is 70; valid: 0 to 1"),
        ({"limits": {"top1": 0.5}}, "no upper limit on 'top1'"),
        ({"limits": {"latency_ms": 1.0}}, "latency_ms needs a device profile"),
        ({"limits": {"latency_ms_b": 1.0}, "profiles": ["a.json"]}, "unknown metric 'latency_ms_b'; valid: top1"),
        ({"profiles": ["other.json"]}, "of another space"),
        ({"profiles": ["deep/run/run.json"]}, "is not a device profile"),
        ({"profiles": ["a.json", "deep/a.json"]}, "two device profiles have one name"),
        ({"profiles": ["a.json"], "limits": {"latency_ms": 0.001}}, "nearest reachable"),
        ({"strategy": "magic"}, "magic"),
        ({"study": "../x"}, "study"),
        ({"study": "-rf"}, None),
        ({"objectives": ["--address"]}, "--address"),
        ({"score": "--help"}, "--help"),
        ({"n_trials": 0}, "n_trials"),
        ({"n_trials": "7"}, "n_trials: Input should be a valid integer, not '7'"),
        ({"num_workers": -1}, "num_workers"),
        ({"num_workers": 0, "evaluation_timeout": 5}, "an evaluation timeout needs workers"),
        ({"study": "x" * 101}, "use up to 100 letters"),
        ({"study": "neue größe"}, "use up to 100 letters"),
        ({"surprise": 1}, "surprise"),
        ({"profiles": ["/etc/passwd"]}, "/etc/passwd"),
        ({"profiles": ["../outside.json"]}, "outside.json"),
        ({"seed": 1}, "seed is 0 in the study and 1 now"),
    ],
)
def test_a_search_that_cannot_work_is_refused_before_it_starts(
    client: TestClient, root: Path, settings: dict[str, object], says: str | None
) -> None:
    for name, space in (("a", SPACE), ("deep/a", SPACE), ("other", SPACES["resnet_cifar"]())):
        devices.profile(space).write(root / f"{name}.json")
    given = {"strategy": "random", "limits": {"macs": 5e6}, "lookahead": 8} | settings
    answer = client.post("/api/v1/runs/deep~run/studies", json=given)
    if says is None:  # odd, and harmless: it is an option's value
        settings = SearchSettings(study="-rf").options(root)
        assert settings[0] == "--study-name=-rf"
        return
    assert answer.status_code in (404, 422)
    assert says in answer.json()["detail"]
    assert not (root / FOLDER / "jobs").exists()


@pytest.mark.parametrize("body", [b'{"limits": {"macs": NaN}}', b'{"limits": {"macs": Infinity}}', b"[", b"\xff", b""])
def test_a_body_that_is_no_json_of_ours_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/v1/runs/deep~run/preflight", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)


def test_preflight(client: TestClient) -> None:
    answer = client.post("/api/v1/runs/deep~run/preflight", json={"limits": {"macs": [None, 1.0]}}).json()
    assert not answer["feasible"]
    assert answer["nearest"]["macs"] == answer["range"]["macs"][0]
    assert client.post("/api/v1/runs/deep~run/preflight", json={"limits": {"macs": 5e6}}).json()["feasible"]


def test_preflight_of_several_devices_and_an_accuracy(client: TestClient, root: Path) -> None:
    devices.profile(SPACE).write(root / "slow.json")
    devices.profile(SPACE, threads=2).write(root / "fast.json")
    profiles = ["slow.json", "fast.json"]
    limits = {"latency_ms_slow": 1e3, "latency_ms_fast": 1e3, "top1": [0.1, None]}
    answer = client.post("/api/v1/runs/deep~run/preflight", json={"limits": limits, "profiles": profiles}).json()
    assert answer["feasible"]
    top1 = [metrics for metrics in client.get(f"{STUDY}/points").json()["metrics"]["top1"] if metrics is not None]
    assert answer["range"]["top1"] == [min(top1), max(top1)]
    low, high = answer["range"]["latency_ms_slow"]
    limits["latency_ms_fast"] = low / 2
    answer = client.post("/api/v1/runs/deep~run/preflight", json={"limits": limits, "profiles": profiles}).json()
    assert (answer["feasible"], low < high) == (False, True)
    assert low * 0.5 < answer["nearest"]["latency_ms_fast"]
    words = SearchSettings(limits=limits, profiles=profiles, objectives=["top1", "latency_ms_slow"]).options(root)
    assert {"--min-top1=0.1", "--max-latency-ms=slow=1000.0", "--objective=latency_ms_slow"} <= set(words)


@pytest.mark.parametrize(
    ("study", "settings", "says"),
    [
        ("done", {}, "has 5 trials already; n_trials is 5, valid: from 6"),
        ("done", {"n_trials": 4}, "n_trials is 4, valid: from 6"),
        ("vague", {}, "does not say how many trials it is to have; say it by n_trials"),
        ("all", {"n_trials": 99}, "is exhausted: its 5 trials are all that there are"),
        ("old", {"n_trials": 99}, "was searched on weights that"),
        ("bad", {"n_trials": 99}, "bad.journal is damaged"),
        ("void", {"n_trials": 99}, "does not say yet what it is"),
        ("short", {"num_workers": 0, "evaluation_timeout": 2}, "an evaluation timeout needs workers"),
    ],
)
def test_a_resumption_that_cannot_work_is_refused_before_it_starts(
    client: TestClient, root: Path, study: str, settings: dict[str, object], says: str
) -> None:
    run = Run.open(root / "deep" / "run")
    for name, asked in (("done", 5), ("vague", None), ("all", 9), ("short", 9), ("bad", 9)):
        write_study(run, name, make_trials(5), asked)
    write_study(run, "old", make_trials(5), 9, context=CONTEXT | {"weights": "0" * 16})
    with closing(JournalStore(run.study("all"), replace(IDENTITY, study_name="all"), SPACE)) as store:
        store.exhaust()
    run.study("bad").write_text("no journal\n")
    run.study("void").touch()
    answer = client.post(f"/api/v1/runs/deep~run/studies/{study}/resume", json=settings)
    assert (answer.status_code, says in answer.json()["detail"]) == (422, True), answer.json()
    assert not (root / FOLDER / "jobs").exists()


TRAVERSALS = [
    "..", "../secret", "../../secret", "..%2fsecret", "%2e%2e/secret", "%2e%2e%2fsecret", "..%252fsecret",
    "....//secret",
    "/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd", "link", "linked/secret", "folder/../../secret", "..\\secret",
    "%5c..%5csecret", "secret%00", "%00", ".", "./../secret", "~/secret", "file:///etc/passwd", "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_of_a_file_leaves_the_exported_folder(client: TestClient, root: Path, name: str) -> None:
    exported = root / FOLDER / "exports" / "deep~run" / "default" / "trial-1"
    (exported / "folder").mkdir(parents=True)
    (exported / "config.json").write_text("{}")
    secret = exported.parent / "secret"
    secret.write_text("the secret")
    (exported / "link").symlink_to(secret)
    (exported / "linked").symlink_to(exported.parent)
    listed = client.get(f"{STUDY}/trials/1/files").json()
    assert listed == [{"name": "config.json", "bytes": 2}]
    assert client.get(f"{STUDY}/trials/1/files/config.json").content == b"{}"
    answer = client.get(f"{STUDY}/trials/1/files/{name}")
    resolved = not answer.url.path.startswith(f"{STUDY}/trials/1/files/")  # by the client itself, as `..`
    assert 400 <= answer.status_code < 500 or resolved
    assert b"the secret" not in answer.content
    assert b"root:" not in answer.content


@pytest.mark.parametrize("run", ["..", "%2e%2e", "deep%2frun", "..%2f..", "%2fetc", "deep~..~deep~run", "~", "."])
def test_no_name_of_a_run_is_a_path(client: TestClient, run: str) -> None:
    assert client.get(f"/api/v1/runs/{run}/studies/default").status_code == 404


@pytest.mark.parametrize("name", ["", "..", "../x", "/x", "x\0", "a\\b", "link", "up/../x", "missing"])
def test_inside(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    (folder / "up").mkdir(parents=True)
    (folder / "x").write_text("")
    (tmp_path / "x").write_text("")
    (folder / "link").symlink_to(tmp_path / "x")
    assert inside(folder, "x") == folder / "x"
    with pytest.raises(FileNotFoundError):
        inside(folder, name)


def test_metrics(client: TestClient) -> None:
    text = client.get("/metrics").text
    points = client.get(f"{STUDY}/points").json()
    feasible = sum(points["feasible"])
    assert f'nas_trials{{run="deep~run",state="feasible",study="default"}} {feasible}.0' in text
    assert 'nas_trials{run="deep~run",state="failed",study="default"} 1.0' in text
    assert 'nas_evaluation_seconds_count{run="deep~run",study="default"} 40.0' in text
    (volume,) = re.findall(r'nas_hypervolume{run="deep~run",study="default"} (\S+)', text)
    assert float(volume) == pytest.approx(points["hypervolumes"][-1], abs=1e-5)
    assert 'nas_study_state{run="deep~run",state="interrupted",study="default"} 1.0' in text


def test_the_api_page_names_every_operation_and_loads_nothing(client: TestClient) -> None:
    page = client.get("/api").text
    description = client.get("/api/openapi.json").json()
    assert all(path in page for path in description["paths"])
    assert "<script" not in page
    assert "http" not in page.replace("https", "http").partition("<body>")[0]


def test_names_are_escaped(tmp_path: Path) -> None:
    make_run(tmp_path / "root" / "<b>x")
    client = TestClient(create_api(Service.open(tmp_path / "root")))
    assert client.get("/api/v1/runs").json()[0]["id"] == "<b>x"
    assert "nas_" in client.get("/metrics").text
    assert client.get("/api/v1/runs/%3Cb%3Ex").status_code == 200


def test_events_carry_what_is_new_and_nothing_else(root: Path) -> None:
    from nas.service.events import Hub

    service = Service.open(root)
    stored = read_study(root / "deep" / "run" / "studies" / "default.journal")

    async def follow() -> list[dict[str, object]]:
        events = Hub(service.looks).follow("deep~run", "default", 30)
        first = await anext(events)
        from nas.store import JournalStore

        store = JournalStore(root / "deep" / "run" / "studies" / "default.journal", stored.identity, SPACE, 100)
        more = make_trials(45, failed=(3,), problem=LIMITED)[40:]
        for trial in more:
            store.append(trial)
        found = [first]
        while len(found) < 2 or _data(found[-1])["summary"]["n_trials"] < 45:  # type: ignore[index]
            found.append(await anext(events))
        store.close()
        await events.aclose()  # type: ignore[attr-defined]
        return [_data(event) for event in found]

    events = asyncio.run(follow())
    numbers = [trial["number"] for event in events for trial in event["trials"]]  # type: ignore[attr-defined]
    assert numbers == list(range(30, 45))
    assert events[-1]["summary"]["state"] == "searching"  # type: ignore[index]


def _data(event: bytes) -> dict[str, object]:
    lines = event.decode().splitlines()
    assert lines[0] == "event: progress"
    found: dict[str, object] = json.loads(lines[2].removeprefix("data: "))
    return found
