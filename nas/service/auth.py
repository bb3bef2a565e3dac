"""`Guard`: who may ask for anything, in front of every route, socket and download of the service."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Iterable
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_BYTES = 1 << 20  # of a request's body

_COOKIE_SECONDS = 30 * 24 * 3600
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "content-security-policy": "frame-ancestors 'none'; object-src 'none'; base-uri 'self'",
}


class Rate:
    """At most `burst` events at once and `per_second` in the long run, for each key; the oldest keys are forgotten."""

    _MOST_KEYS = 10_000

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, key: str, cost: float = 1.0) -> bool:
        """Whether one more event may happen now; it then counts. A `cost` of 0 only asks."""
        now = time.monotonic()
        left, at = self._left.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._per_second)
        allowed = left >= max(cost, 1.0)
        self._left[key] = (left - cost if allowed else left, now)
        if len(self._left) > self._MOST_KEYS:
            self._left.popitem(last=False)
        return allowed


class _TooLargeError(Exception):
    pass


class Guard:
    """ASGI middleware around a whole app.

    token: what a request has to bring, as `Authorization: Bearer …` or as the cookie that `/login` gives for it. None
    lets everyone of this machine in: then `hosts` are the only names by which it may be called, so that a page of a
    foreign name that resolves here (DNS rebinding) gets nothing.
    Whatever changes something, and every socket, has to come from a page of this service where a browser says so.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Iterable[str] = LOOPBACK) -> None:
        self._app, self._token, self._hosts = app, token, frozenset(hosts)
        self._requests, self._changes, self._failures = Rate(200, 2000), Rate(2, 40), Rate(0.2, 10)
        if token is not None:
            self._session = hmac.new(token.encode(), b"nas-service session", hashlib.sha256).hexdigest()
            self._cookie = "nas-" + hashlib.sha256(self._session.encode()).hexdigest()[:8]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what may not pass, and passes the rest on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if refusal is None and scope["path"] == "/login" and self._token is not None:
            refusal = await self._login(scope, headers, receive)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        await self._pass(scope, headers, receive, send)

    async def _pass(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        started = too_large = False

        async def passing(message: Message) -> None:
            nonlocal started
            if not too_large:  # the app may make something else of the error
                started = True
                await _with_headers(send)(message)

        async def reading() -> Message:
            nonlocal too_large
            try:
                return await bounded()
            except _TooLargeError:
                too_large = True
                raise

        bounded = _bounded(receive)
        with contextlib.suppress(_TooLargeError):
            await self._app(scope, reading, passing)
        if too_large and not started:
            await _too_large()(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that may not pass, or None."""
        client = scope["client"][0] if scope.get("client") else "unknown"
        if not self._requests.allows(client):
            return _refuse(429, "too many requests; wait a second")
        if self._token is None and _host_name(headers.get("host", "")) not in self._hosts:
            return _refuse(421, f"this service is called by another name; valid: {', '.join(sorted(self._hosts))}")
        method = scope.get("method", "GET")
        if (method not in _SAFE or scope["type"] == "websocket") and not _same_origin(headers):
            return _refuse(403, "the request comes from a page of another site")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MOST_BYTES:
            return _too_large()
        if not self._failures.allows(client, 0) and not self._has_session(
            headers
        ):  # a proxy's clients share an address
            return _refuse(429, "too many wrong tokens; wait a minute")
        if scope["path"] == "/login" and self._token is not None:
            return None
        if not self._authorised(headers):
            if "authorization" in headers:
                self._failures.allows(client)
            return self._ask(scope, headers)
        if method not in _SAFE and scope["path"].startswith("/api/") and not self._changes.allows(client):
            return _refuse(429, "too many changes at once; wait some seconds")
        return None

    def _authorised(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token.encode()):
            return True
        return self._has_session(headers)

    def _has_session(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        session = cookies[self._cookie].value if self._cookie in cookies else ""
        return hmac.compare_digest(session.encode(), self._session.encode())

    def _ask(self, scope: Scope, headers: Headers) -> Response:
        if scope["type"] == "http" and "text/html" in headers.get("accept", ""):
            query = scope.get("query_string", b"").decode("latin-1")
            place = quote(scope["path"] + (f"?{query}" if query else ""), safe="")
            return RedirectResponse(f"/login?next={place}", 303)
        return JSONResponse({"detail": "a token is needed"}, 401, {"www-authenticate": "Bearer"})

    async def _login(self, scope: Scope, headers: Headers, receive: Receive) -> Response:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        place = _local(query.get("next", ["/"])[0])
        if scope["method"] != "POST":
            return HTMLResponse(_login_page(place, None))
        client = scope["client"][0] if scope.get("client") else "unknown"
        try:
            form = parse_qs((await _body(receive)).decode("utf-8", "replace"))
        except _TooLargeError:
            return _too_large()
        given = form.get("token", [""])[0].strip()
        assert self._token is not None
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            self._failures.allows(client)
            return HTMLResponse(_login_page(place, "This is not the token."), 401)
        answer = RedirectResponse(place, 303)
        secure = scope.get("scheme") == "https" or headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(
            self._cookie, self._session, _COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure
        )  # fmt: skip
        return answer


def _too_large() -> Response:
    return _refuse(413, f"the body is larger than {MOST_BYTES} bytes")


def _refuse(code: int, reason: str) -> Response:
    return JSONResponse({"detail": reason}, code)


def _bounded(receive: Receive) -> Receive:
    taken = 0

    async def counting() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            raise _TooLargeError
        return message

    return counting


async def _body(receive: Receive) -> bytes:
    counting, body = _bounded(receive), b""
    while True:
        message = await counting()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


def _with_headers(send: Send) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", [])}
            more = [(n.encode(), v.encode()) for n, v in _HEADERS.items() if n.encode() not in there]
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return adding


def _host_name(host: str) -> str:
    """`[::1]:8390` → `::1`; empty for what is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    """Whether a browser, where it is one, says that the request comes from a page of this service.

    Clients that are no browsers send neither header.
    """
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    except ValueError:
        return False


def _local(place: str) -> str:
    """`place` where it is a path of this service, or `/`: a login leads nowhere else."""
    odd = not place.startswith("/") or place.startswith(("//", "/\\")) or any(ord(c) < 32 for c in place)
    return "/" if odd else place


def _login_page(place: str, error: str | None) -> str:
    message = f'<p role="alert">{escape(error)}</p>' if error else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in · nas</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ display: grid; place-items: center; min-height: 90vh; margin: 0; }}
form {{ display: grid; gap: .75rem; width: min(22rem, 88vw); }}
input, button {{ font: inherit; padding: .6rem .75rem; border-radius: .4rem; border: 1px solid #8888; }}
button {{ background: #0b5fa5; color: #fff; border: 0; cursor: pointer; }}
[role=alert] {{ color: #c4320a; margin: 0; }}
</style></head><body>
<form method="post" action="/login?next={escape(quote(place, safe=""))}">
<h1>nas</h1>
<label for="token">Token of this service</label>
<input id="token" name="token" type="password" autocomplete="current-password" autofocus required>
{message}
<button type="submit">Log in</button>
</form></body></html>"""
