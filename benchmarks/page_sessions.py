"""Sessions of the page of a search, as a browser has them with the service, but without a browser that draws.

Each does what NiceGUI's own script (static/nicegui.js of 3.18) does: it loads the page with the styles and scripts that
this names, connects the socket with the page's handshake, answers what it is asked, acknowledges every three seconds
what it got, connects again where the connection is lost, and loads the page again where the service says so.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import aiohttp
import socketio

_ACK_SECONDS = 3.0
_CONNECT_SECONDS = 20.0  # after which socket.io's script gives a connection up
_ESCAPED = (("&#36;", "$"), ("&#96;", "`"), ("&gt;", ">"), ("&lt;", "<"), ("&amp;", "&"))
_WIDTH = 800  # pixels, of every chart


@contextmanager
def sessions(url: str, n: int, tile: str) -> Iterator[list[PageSession]]:
    """`n` sessions of the page at `url` until the block ends; it begins when all are connected.

    tile: the figure whose changes they write down, by its name.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opened = [PageSession(url, tile) for _ in range(n)]
    running = [asyncio.run_coroutine_threadsafe(session.run(), loop) for session in opened]
    try:
        while not all(session.connected for session in opened):
            for future in running:
                if future.done():
                    future.result()
            time.sleep(0.1)
        yield opened
    finally:
        for future in running:
            future.cancel()
        time.sleep(1.0)  # in which sockets are closed
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class PageSession:
    """seen: the tile's figure and when it came, in seconds since 1970. loads: how often the page was loaded.

    lost: how often the connection was. connected: whether there ever was one.
    """

    def __init__(self, url: str, tile: str) -> None:
        self._url, self._tile = url, tile
        self._tab = str(uuid4())
        self.seen: list[tuple[int, float]] = []
        self.loads = self.lost = 0
        self.connected = False

    async def run(self) -> None:
        """Until it is cancelled."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            while True:
                await self._load(http)
                await self._follow(http)

    async def _load(self, http: aiohttp.ClientSession) -> None:
        async with http.get(self._url, headers={"Accept": "text/html"}) as answer:
            answer.raise_for_status()
            page = await answer.text()
        for files in re.findall(r'(?:src|href)="(/_nicegui/[^"]+)"|url\("(/_nicegui/[^"]+)"\)', page):
            async with http.get(self._at("".join(files))) as answer:
                answer.raise_for_status()
                await answer.read()
        query, elements = (
            re.search(r"\n *query: (\{.*\}),\n", page),
            re.search(r"String\.raw`(.*?)`\)", page, re.DOTALL),
        )
        assert query, "the page has no query for the socket"
        assert elements, "the page has no elements"
        text = elements[1]
        for escaped, meant in _ESCAPED:
            text = text.replace(escaped, meant)
        query_of_page = ast.literal_eval(query[1])  # which the script reads with True defined as true
        self._query = query_of_page | {
            "implicit_handshake": str(query_of_page["implicit_handshake"]).lower(),
            "document_id": str(uuid4()), "tab_id": self._tab, "old_tab_id": self._tab if self.loads else "null",
        }  # fmt: skip
        self._next = int(self._query["next_message_id"])
        elements_by_id = json.loads(text)
        self._value = _figure(elements_by_id, self._tile)
        self._see(elements_by_id[self._value]["text"])
        self.loads += 1

    def _at(self, path: str) -> str:
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}{path}"

    async def _follow(self, http: aiohttp.ClientSession) -> None:
        """Until the page has to be loaded again."""
        again = asyncio.Event()
        client = socketio.AsyncClient(http_session=http)

        async def take(event: str, message: dict[str, Any]) -> None:
            await self._take(client, again, event, message)

        client.on("connect_error", lambda error: again.set() if "handshake" in str(error) else None)
        client.on("disconnect", self._count_lost)
        client.on("*", take)
        with suppress(socketio.exceptions.ConnectionError):  # then it is loaded again
            await client.connect(
                lambda: self._at("?" + urlencode(self._query | {"next_message_id": self._next})),
                headers={"Origin": self._at("")}, transports=["websocket"], namespaces=["/"],
                socketio_path="/_nicegui_ws/socket.io", wait_timeout=_CONNECT_SECONDS,
            )  # fmt: skip
            self.connected = True
            acknowledging = asyncio.create_task(self._acknowledge(client))
            try:
                await again.wait()
            finally:
                acknowledging.cancel()
                await client.disconnect()

    def _see(self, figure: str) -> None:
        self.seen.append((int(figure.replace(",", "")), time.time()))

    def _count_lost(self, reason: str) -> None:
        self.lost += reason != socketio.AsyncClient.reason.CLIENT_DISCONNECT

    async def _acknowledge(self, client: socketio.AsyncClient) -> None:
        acknowledged = -1
        while True:
            await asyncio.sleep(_ACK_SECONDS)
            if client.connected and acknowledged < self._next:
                acknowledged = self._next
                await client.emit("ack", {"client_id": self._query["client_id"], "next_message_id": acknowledged})

    async def _take(
        self, client: socketio.AsyncClient, again: asyncio.Event, event: str, message: dict[str, Any]
    ) -> None:
        if message["_id"] < self._next:  # it came once more after a connection was lost
            return
        self._next = message["_id"] + 1
        if event == "update" and self._value in message:
            self._see(message[self._value]["text"])
        elif event == "run_javascript":
            if "location.reload()" in message["code"] or "history.go(0)" in message["code"]:
                again.set()
            if "request_id" in message:
                answer = {"request_id": message["request_id"], "result": _WIDTH}
                await client.emit("javascript_response", answer | {"client_id": self._query["client_id"]})


def _figure(elements: dict[str, Any], tile: str) -> str:
    """The id of the element with the figure of a tile: the one behind its name."""
    name = next(int(i) for i, one in elements.items() if one.get("text") == tile and "name" in one.get("class", []))
    children = next(one["children"] for one in elements.values() if name in one.get("children", []))
    return str(children[children.index(name) + 1])
