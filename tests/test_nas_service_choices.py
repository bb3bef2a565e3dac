"""The search form while answers come late: the last choice of device profiles decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import devices
from nicegui import ui
from nicegui.testing import user_simulation
from studies import SPACE

from nas.profiles import Profile
from nas.service.pages.limit_fields import COSTS
from nas.service.pages.search_fields import SearchFields

PROFILES = {"a.json": devices.profile(SPACE, name="a"), "b.json": devices.profile(SPACE, threads=2, name="b")}


def test_an_earlier_choice_that_is_answered_late_changes_nothing() -> None:
    asyncio.run(_choose_twice())


async def _choose_twice() -> None:
    answers: list[asyncio.Event] = []

    async def latency_range(profile: Profile) -> list[float]:
        answers.append(asyncio.Event())
        await answers[-1].wait()
        return [1.0, 2.0]

    async def check() -> None: ...

    fields = SearchFields(check, latency_range, {name: [1.0, 2.0] for name in COSTS}, PROFILES, None)
    async with user_simulation() as user:

        @ui.page("/")
        def page() -> None:
            fields.build(lambda: None, "study")

        await user.open("/")
        profiles = next(iter(user.find("Device profiles").elements))
        profiles.value = ["a.json"]
        await _until(lambda: len(answers) == 1)
        profiles.value = ["a.json", "b.json"]
        for count in (2, 3):  # the later choice is answered first
            await _until(lambda count=count: len(answers) == count)
            answers[-1].set()
        await user.should_see("latency on b in ms, at most")
        answers[0].set()
        await asyncio.sleep(0.2)
        await user.should_see("latency on a in ms, at most")
        await user.should_see("latency on b in ms, at most")


async def _until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never happened")
