"""One look at each watched study for all who watch it, by its page or by its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

from nas.service.state import Library, study_summary
from nas.service.study_view import StudyView

_SHARED_SECONDS = 0.25  # for which what was read is not read again

T = TypeVar("T")


class Looks:
    """The looks at studies that someone holds; they go with who holds them."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._looks: WeakValueDictionary[tuple[str, str], Look] = WeakValueDictionary()

    def of(self, run_id: str, study: str) -> Look:
        """The look at a study that everyone shares, to be held as long as it is watched."""
        look = self._looks.get((run_id, study))
        if look is None:
            look = self._looks[run_id, study] = Look(self._library, run_id, study)
        return look


class Look:
    """A study as it was read last, by whoever found it out of date, in a thread, so that it holds up nobody.

    summary: of `study_summary`, empty before `refresh`.
    """

    def __init__(self, library: Library, run_id: str, study: str) -> None:
        self._library, self._run_id, self._study = library, run_id, study
        self._lock = asyncio.Lock()
        self._looked = float("-inf")
        self._view: StudyView | None = None
        self._made: dict[Hashable, Any] = {}
        self.summary: dict[str, Any] = {}

    async def refresh(self) -> StudyView:
        """The study as it was a moment ago at most. Raises UnknownError for one that is not there any more."""
        loop = asyncio.get_running_loop()
        async with self._lock:
            if self._view is None or loop.time() - self._looked > _SHARED_SECONDS:
                view = await asyncio.to_thread(self._library.study, self._run_id, self._study)
                if self._view is None or len(view.trials) != self.summary["n_trials"] or view.searching:
                    self.summary = await asyncio.to_thread(study_summary, view)
                else:
                    self.summary = self.summary | {"state": view.state, "error": view.error, "n_asked": view.n_asked}
                self._view, self._looked = view, loop.time()
                self._made.clear()
        return self._view

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, made for the first who asks for `key` and shared until the study is read again."""
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])
