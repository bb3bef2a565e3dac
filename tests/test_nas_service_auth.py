"""Who is let in: on every route, on the socket, by token and by cookie; foreign pages and names get nothing."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import websockets
from fastapi import FastAPI
from fastapi.testclient import TestClient
from services import TOKEN, serving
from studies import make_run, make_trials, write_study
from websockets.exceptions import InvalidStatus

from nas.cli_serve import token_of
from nas.service.app import create_api
from nas.service.auth import MOST_BYTES, Guard, Rate
from nas.service.service import Service

BEARER = {"authorization": f"Bearer {TOKEN}"}
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport="


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    write_study(make_run(folder / "run"), "default", make_trials(5), 5)
    return folder


def guarded(root: Path, token: str | None, base_url: str = "http://127.0.0.1:8390") -> TestClient:
    app = create_api(Service.open(root))
    app.add_middleware(Guard, token=token)
    return TestClient(app, base_url=base_url, follow_redirects=False)


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[str]:
    """The whole service, pages and socket included, with a token."""
    with serving(root, NAS_TOKEN=TOKEN) as url:
        yield url


def status(url: str, method: str = "GET", **headers: str) -> int:
    request = urllib.request.Request(url, method=method, headers=headers, data=b"{}" if method == "POST" else None)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def every_route(root: Path) -> list[tuple[str, str]]:
    paths = create_api(Service.open(root)).openapi()["paths"]
    names = {"{run}": "run", "{study}": "default", "{number}": "1", "{name}": "config.json", "{job}": "x"}
    found = []
    for path, methods in paths.items():
        for placeholder, value in names.items():
            path = path.replace(placeholder, value)
        found += [(method.upper(), path) for method in methods]
    return found


def test_no_route_answers_without_the_token(service: str, root: Path) -> None:
    pages = ["/", "/new", "/search/run/default", "/training/run", "/space/run", "/compare", "/nothing", "/api"]
    socket = [
        SOCKET + "polling",
        SOCKET + "websocket",
        "/_nicegui/",
        "/_nicegui/3/static/nicegui.js",
        "/api/openapi.json",
    ]
    routes = [("GET", path) for path in pages + socket] + every_route(root)
    assert len(routes) > 30
    assert ("GET", "/healthz") in routes
    codes = {(method, path): status(service + path, method) for method, path in routes}
    assert set(codes.values()) == {401}, codes
    wrong = {status(service + path, Authorization=f"Bearer {TOKEN}x") for _, path in routes[:3]}
    assert wrong == {401}
    assert status(service + "/", Authorization=f"Bearer {TOKEN}") == 200
    assert status(service + "/metrics", Authorization=f"Bearer {TOKEN}") == 200
    assert status(service + "/healthz", Authorization=f"Bearer {TOKEN}") == 200


def test_a_probe_of_this_machine_needs_no_token_where_none_is_set(root: Path) -> None:
    assert guarded(root, None).get("/healthz").text == "ok"


def test_the_websocket_needs_the_token_and_a_page_of_this_service(service: str) -> None:
    async def code(**headers: str) -> int:
        url = service.replace("http", "ws") + SOCKET + "websocket"
        try:
            async with websockets.connect(url, additional_headers=headers) as socket:
                return 101 if (await socket.recv()).startswith("0") else 0  # type: ignore[arg-type]
        except InvalidStatus as error:
            return error.response.status_code

    bearer = f"Bearer {TOKEN}"
    assert asyncio.run(code()) == 403
    assert asyncio.run(code(Authorization="Bearer wrong")) == 403
    assert asyncio.run(code(Authorization=bearer, Origin="http://evil.example")) == 403
    assert asyncio.run(code(Authorization=bearer, Origin=service)) == 101
    assert asyncio.run(code(Authorization=bearer)) == 101


def test_a_browser_logs_in_and_is_sent_where_it_wanted(root: Path) -> None:
    client = guarded(root, TOKEN)
    away = client.get("/api/v1/runs?x=1", headers={"accept": "text/html"})
    assert (away.status_code, away.headers["location"]) == (303, "/login?next=%2Fapi%2Fv1%2Fruns%3Fx%3D1")
    assert client.get(away.headers["location"]).status_code == 200
    refused = client.post(away.headers["location"], data={"token": "wrong"})
    assert refused.status_code == 401
    assert "set-cookie" not in refused.headers
    let_in = client.post(away.headers["location"], data={"token": TOKEN})
    assert (let_in.status_code, let_in.headers["location"]) == (303, "/api/v1/runs?x=1")
    cookie = let_in.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/api/v1/runs").status_code == 200  # by the cookie
    other = guarded(root, TOKEN + "other")
    other.cookies = client.cookies
    assert other.get("/api/v1/runs").status_code == 401


@pytest.mark.parametrize(
    "place", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\nb", "javascript:x"]
)
def test_a_login_leads_nowhere_else(root: Path, place: str) -> None:
    answer = guarded(root, TOKEN).post("/login", params={"next": place}, data={"token": TOKEN})
    assert answer.headers["location"] == "/"


def test_what_a_login_is_to_lead_to_is_escaped(root: Path) -> None:
    page = guarded(root, TOKEN).get("/login", params={"next": '/"><script>alert(1)</script>'}).text
    assert "<script" not in page


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_page_of_another_site_changes_nothing(root: Path, token: str | None, headers: dict[str, str]) -> None:
    client = guarded(root, token)
    place = "/api/v1/runs/run/preflight"
    assert client.post(place, json={}, headers=BEARER).status_code == 200
    assert client.post(place, json={}, headers=BEARER | {"origin": "http://127.0.0.1:8390"}).status_code == 200
    assert client.post(place, json={}, headers=BEARER | headers).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8390", "127.0.0.1.evil.example", "", "[::1", "10.0.0.1"]
)
def test_without_a_token_only_this_machine_s_names_are_answered(root: Path, host: str) -> None:
    client = guarded(root, None)
    assert client.get("/api/v1/runs").status_code == 200
    assert client.get("/api/v1/runs", headers={"host": "localhost:8390"}).status_code == 200
    assert client.get("/api/v1/runs", headers={"host": "[::1]:8390"}).status_code == 200
    assert client.get("/api/v1/runs", headers={"host": host}).status_code == 421


def test_a_large_body_is_refused_whether_it_says_so_or_not(root: Path) -> None:
    client, place = guarded(root, None), "/api/v1/runs/run/preflight"
    assert client.post(place, content=b" " * (MOST_BYTES + 1)).status_code == 413
    pieces = (b" " * 65536 for _ in range(MOST_BYTES // 65536 + 1))
    assert client.post(place, content=pieces).status_code == 413
    assert client.post(place, headers={"content-length": "x"}).status_code == 413
    assert guarded(root, TOKEN).post("/login", content=(b" " * 65536 for _ in range(20))).status_code == 413


def test_guesses_and_changes_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.service.auth.time", SimpleNamespace(monotonic=lambda: 0.0))  # however slow the machine is
    client = guarded(root, TOKEN)
    codes = [client.post("/login", data={"token": f"guess {n}"}).status_code for n in range(20)]
    assert codes[:10] == [401] * 10
    assert codes[10:] == [429] * 10
    assert client.post("/login", data={"token": TOKEN}).status_code == 429  # not even the right one, for a while
    client = guarded(root, TOKEN)
    codes = [client.get("/metrics", headers={"authorization": f"Bearer {n}"}).status_code for n in range(15)]
    assert 429 in codes
    client = guarded(root, None)
    codes = [client.post("/api/v1/runs/run/preflight", json={}).status_code for _ in range(60)]
    assert set(codes) == {200, 429}
    assert client.get("/api/v1/runs").status_code == 200


def test_who_is_logged_in_is_not_locked_out_by_the_guesses_of_others_behind_the_same_proxy(root: Path) -> None:
    client = guarded(root, TOKEN)
    client.post("/login", data={"token": TOKEN})
    session = dict(client.cookies)
    client.cookies.clear()
    codes = [client.post("/login", data={"token": f"guess {n}"}).status_code for n in range(12)]
    assert codes[-1] == 429
    assert client.get("/api/v1/runs", headers=BEARER).status_code == 429
    client.cookies.update(session)
    assert client.get("/api/v1/runs").status_code == 200


def test_rate() -> None:
    rate = Rate(0.0, 3)
    assert [rate.allows("a") for _ in range(5)] == [True, True, True, False, False]
    assert rate.allows("b")


def test_every_answer_forbids_being_framed(root: Path) -> None:
    for answer in (
        guarded(root, None).get("/metrics"),
        guarded(root, TOKEN).get("/metrics"),
        guarded(root, TOKEN).get("/login"),
    ):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_which_token_a_host_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NAS_TOKEN", raising=False)
    assert token_of(None, "127.0.0.1") == (None, False)
    made, new = token_of(None, "0.0.0.0")
    assert new
    assert made is not None
    assert len(made) > 32
    assert token_of(None, "0.0.0.0")[0] != made
    monkeypatch.setenv("NAS_TOKEN", TOKEN)
    assert token_of(None, "127.0.0.1") == (TOKEN, False)
    (tmp_path / "token").write_text(f"{TOKEN}-of-a-file\n")
    assert token_of(tmp_path / "token", "0.0.0.0") == (f"{TOKEN}-of-a-file", False)
    for bad in ("", "short", "ümlaut" * 9, "with\nlines of text"):
        (tmp_path / "token").write_text(bad)
        with pytest.raises(ValueError, match="16 or more"):
            token_of(tmp_path / "token", "127.0.0.1")


def test_the_guard_passes_the_life_of_the_app_on() -> None:
    app = FastAPI()
    app.add_middleware(Guard, token=TOKEN)
    with TestClient(app) as client:  # runs startup and shutdown
        assert client.get("/").status_code == 401
