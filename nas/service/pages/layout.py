"""What all pages share: the frame, tiles, chips, empty states, errors as toasts, and words for times."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, TypeVar
from urllib.parse import quote

from nicegui import app, ui
from nicegui import run as background
from pydantic import ValidationError

from nas.service import theme
from nas.service.pages.charts import Options

T = TypeVar("T")

ANSWER_SECONDS = 60.0  # for a page: late, as when fifty are asked for at once, it is better than an error

_CHIPS = {
    "searching": ("live", "play_arrow"), "training": ("live", "play_arrow"), "running": ("live", "play_arrow"),
    "finished": ("good", "check"), "exhausted": ("good", "done_all"), "trained": ("good", "check"),
    "succeeded": ("good", "check"), "feasible": ("good", "check"), "interrupted": ("warn", "pause"),
    "stopped": ("warn", "pause"),
    "over a limit": ("warn", "block"), "damaged": ("bad", "error_outline"), "failed": ("bad", "error_outline"),
    "unknown": ("", "help_outline"), "idle": ("", "hourglass_empty"), "untrained": ("", "hourglass_empty"),
}  # fmt: skip
_NAV = (("Runs", "/"), ("New search", "/new"), ("Compare", "/compare"), ("API", "/api"))


def link(*parts: str, **query: str | None) -> str:
    """A path of this service, everything in it quoted: `link("search", run_id, "a b")` → `/search/…/a%20b`."""
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    pairs = [f"{quote(name)}={quote(value, safe='')}" for name, value in query.items() if value is not None]
    return path + ("?" + "&".join(pairs) if pairs else "")


@contextlib.contextmanager
def frame(title: str, here: str, crumbs: Sequence[tuple[str, str]] = ()) -> Iterator[None]:
    """Header, navigation and title; the block's elements are the page's. here: the active entry of the navigation."""
    ui.page_title(f"{title} · nas")
    ui.add_css(theme.CSS)
    dark = ui.dark_mode(app.storage.user.get("dark"))
    with ui.header(elevated=False).classes("q-pa-none"), ui.element("div").classes("top"):
        with ui.link(target="/").classes("brand").props('aria-label="nas: all runs"'):
            ui.html(theme.LOGO, sanitize=False)
            ui.html("<span>nas</span>", sanitize=False)
        with ui.element("nav").style("display:flex; gap:18px; flex:1").props('aria-label="pages"'):
            for name, target in _NAV:
                active = name == here
                mark = ui.link(name, target).classes("nav here" if active else "nav")
                if active:
                    mark.props('aria-current="page"')
        _dark_button(dark)
    with ui.element("main").classes("body"):
        with ui.element("div"):
            if crumbs:
                with ui.element("nav").classes("crumbs").props('aria-label="where this is"'):
                    for name, target in crumbs:
                        ui.link(name, target)
                        ui.label("/")
            ui.html(f"<h1 class='title'>{escape(title)}</h1>", sanitize=False)
        yield


def _dark_button(dark: ui.dark_mode) -> None:
    modes = {None: ("brightness_auto", "as the system"), True: ("dark_mode", "dark"), False: ("light_mode", "light")}
    following = {None: True, True: False, False: None}

    def turn() -> None:
        dark.value = app.storage.user["dark"] = following[dark.value]
        button.props(f"icon={modes[dark.value][0]}")
        tip.text = f"colours: {modes[dark.value][1]}"

    button = ui.button(icon=modes[dark.value][0], on_click=turn).props(
        'flat round dense color=grey aria-label="colours"'
    )
    with button:
        tip = ui.tooltip(f"colours: {modes[dark.value][1]}")


def chip(state: str, text: str | None = None) -> ui.element:
    """A state as icon and word."""
    kind, icon = _CHIPS.get(state, ("", "help_outline"))
    with ui.element("span").classes(f"chip {kind}") as element:
        ui.icon(icon).props("aria-hidden=true")
        ui.label(text or state)
    return element


def chip_look(state: str) -> dict[str, str]:
    """A chip's class and icon, for a table."""
    kind, icon = _CHIPS.get(state, ("", "help_outline"))
    return {"kind": kind, "icon": icon, "text": state}


@contextlib.contextmanager
def panel(heading: str | None = None, note: str | None = None) -> Iterator[ui.element]:
    """A box with a heading."""
    with ui.element("section").classes("panel") as box:
        if heading:
            with ui.element("div"):
                ui.html(f"<h2 class='heading'>{escape(heading)}</h2>", sanitize=False)
                if note:
                    ui.label(note).classes("soft small")
        yield box


class Tiles:
    """A row of figures that can be set anew: only what changed is sent."""

    def __init__(self, names: Sequence[str]) -> None:
        self._labels: dict[str, tuple[ui.label, ui.label]] = {}
        with ui.element("div").classes("tiles"):
            for name in names:
                with ui.element("div").classes("tile"):
                    ui.label(name).classes("name")
                    self._labels[name] = (ui.label("–").classes("value"), ui.label("").classes("note"))

    def set(self, values: Mapping[str, tuple[str, str]]) -> None:
        """By name: the figure, and a note under it."""
        for name, texts in values.items():
            for element, text in zip(self._labels[name], texts, strict=True):
                if element.text != text:
                    element.text = text


def chart(options: Options, name: str, tall: bool = False, **more: Any) -> ui.echart:
    """A chart with a name for those who cannot see it."""
    element = ui.echart(options, renderer="svg", **more).classes("chart tall" if tall else "chart")
    element._props["role"], element._props["aria-label"] = "img", name
    return element


def empty(icon: str, what: str, why: str) -> None:
    """What stands where there is nothing yet, and how something comes there."""
    with ui.element("div").classes("empty"):
        ui.icon(icon).props("aria-hidden=true")
        ui.label(what).classes("what")
        ui.label(why)


def missing(error: Exception) -> None:
    """A page for something that is not there."""
    ui.status_code(404)
    with frame("Not found", ""), panel():
        empty("search_off", "There is no such page", str(error.args[0] if error.args else error))
        with ui.element("div").classes("empty").style("padding-top: 0"):
            ui.link("All runs", "/")


def toast(error: Exception) -> None:
    """An error as a message that stays until it is closed."""
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    if isinstance(error, ValidationError):
        text = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    ui.notify(text or type(error).__name__, type="negative", timeout=0, close_button="close", multi_line=True)


async def call(function: Callable[..., T], *arguments: Any) -> T:
    """`function` in a thread: reading files must not hold up the other browsers."""
    return await background.io_bound(function, *arguments)  # type: ignore[return-value]


def guarded(action: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """A handler whose refusals become toasts."""

    async def handle(*arguments: Any) -> None:
        try:
            await action(*arguments)
        except (ValueError, LookupError, OSError, RuntimeError) as error:
            toast(error)

    return handle


def duration(seconds: float | None) -> str:
    """90 → "1 min 30 s"; a dash for None."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"


def ago(seconds: float) -> str:
    """How long ago something was, in one unit."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {name} ago"
    return "just now"
