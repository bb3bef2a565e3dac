"""`create_app`: the API, the pages and the guard in front of both, as one ASGI app."""

from __future__ import annotations

import atexit
import os
import reprlib
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.responses import JSONResponse

from nas.service import api, metrics, openapi_page
from nas.service.auth import LOOPBACK, Guard
from nas.service.events import Hub
from nas.service.jobs import FOLDER, BusyError
from nas.service.service import Service

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (BusyError, 409), (LookupError, 404), (FileNotFoundError, 404), (ValueError, 422), (ConnectionError, 502),
    (PermissionError, 502), (TimeoutError, 504), (OSError, 507),
)  # fmt: skip

# For which the page of a browser that fell silent is kept, so that it goes on where it was and is not loaded again;
# 0.4 of it a browser may be too busy to say that it is there.
_RECONNECT_SECONDS = 30.0


def create_api(service: Service) -> FastAPI:
    """The API alone, without pages and without a guard: what tests call in their own process."""
    app = FastAPI(
        title="nas", summary="Searches of a supernet's subnets.", openapi_url="/api/openapi.json",
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.service, app.state.hub = service, Hub(service.looks)
    app.include_router(api.router)
    for kind, code in _CODES:
        app.add_exception_handler(kind, _answer(code))
    app.add_exception_handler(RequestValidationError, _invalid)

    @app.get("/api", include_in_schema=False)
    def describe() -> HTMLResponse:
        """The OpenAPI page."""
        return HTMLResponse(openapi_page.render(app.openapi()))

    @app.get("/healthz", tags=["operating"], response_class=PlainTextResponse)
    def healthz() -> PlainTextResponse:
        """Whether the service answers."""
        return PlainTextResponse("ok")

    @app.get("/metrics", tags=["operating"], response_class=PlainTextResponse)
    def prometheus() -> Response:
        """Metrics for Prometheus."""
        return Response(metrics.exposition(service), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def create_app(
    root: str | Path, token: str | None = None, address: str | None = None, hosts: Iterable[str] = LOOPBACK
) -> FastAPI:
    """The whole service over the runs in `root`. Once in a process, as NiceGUI has one app in each.

    token, hosts: see `nas.service.auth.Guard`. address: of a Ray jobs server on which searches run; None runs them as
    processes of this machine.
    """
    service = Service.open(root, address)
    os.environ.setdefault("NICEGUI_STORAGE_PATH", str(_storage(service.library.root / FOLDER / "pages")))
    from nicegui import ui

    from nas.service import pages

    app = create_api(service)
    pages.register(service)
    ui.run_with(
        app, title="nas", dark=None, storage_secret=secrets.token_hex(32), show_welcome_message=False,
        reconnect_timeout=_RECONNECT_SECONDS,
    )  # fmt: skip
    app.add_middleware(Guard, token=token, hosts=tuple(hosts))
    return app


def _storage(folder: Path) -> Path:
    """Where NiceGUI keeps what a browser has chosen; of a root that may only be read, until the process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="nas-pages-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _answer(code: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        detail = error.args[0] if isinstance(error, KeyError) and error.args else error
        return _detail(code, str(detail))

    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    """Names what was given, but for whole bodies and lists."""
    assert isinstance(error, RequestValidationError)
    parts = []
    for one in error.errors():
        given, text = one.get("input"), one["msg"].removeprefix("Value error, ")
        named = isinstance(given, dict | list | None) or repr(given) in text
        parts.append(f"{'.'.join(map(str, one['loc']))}: {text}{'' if named else f', not {reprlib.repr(given)}'}")
    return _detail(422, "; ".join(parts))


def _detail(code: int, text: str) -> Response:
    return JSONResponse({"detail": text.encode("utf-8", "backslashreplace").decode()}, code)
