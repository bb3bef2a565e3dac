"""Progress as differences: one look at each watched study, whoever many watch it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from nas.service.state import Library, study_summary, trial_row
from nas.service.study_view import StudyView

_LOOK_SECONDS = 0.5  # between two looks at a journal that someone watches
_MOST_TRIALS = 500  # in one event; a client that comes late gets several
_BEAT_SECONDS = 15.0  # after which a line is sent all the same, so that proxies keep the connection


class Hub:
    """Reads each watched study once for all who watch it."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._looks: dict[tuple[str, str], _Look] = {}
        self._closing = False

    def close(self) -> None:
        """Ends every stream within a second, so that a service can end; may be called in a signal handler."""
        self._closing = True

    async def follow(self, run_id: str, study: str, since: int) -> AsyncIterator[bytes]:
        """Server-sent events of a study: `progress` with the trials from `since` on and a summary, then what is new.

        The id of an event is the number of trials before and in it, from which a client that lost its connection goes
        on. Where the study starts over, an event has `reset`, and all trials follow.
        """
        key = (run_id, study)
        look = self._looks.setdefault(key, _Look(self._library, run_id, study))
        look.watchers += 1
        try:
            async for event in look.follow(since):
                if self._closing:
                    break
                if event:
                    yield event
        except LookupError:  # it was taken away
            return
        finally:
            look.watchers -= 1
            if not look.watchers:
                self._looks.pop(key, None)


class _Look:
    """One study while someone watches it. Whoever finds it out of date looks for all."""

    def __init__(self, library: Library, run_id: str, study: str) -> None:
        self._library, self._run_id, self._study = library, run_id, study
        self.watchers = 0
        self._lock = asyncio.Lock()
        self._looked = float("-inf")
        self._view: StudyView | None = None
        self._summary: dict[str, Any] = {}
        self._encoded: dict[tuple[int, int, int, str], bytes] = {}

    async def follow(self, since: int) -> AsyncIterator[bytes]:
        """Events; empty ones where there is nothing to say."""
        loop, generation, sent, beat = asyncio.get_running_loop(), None, "", float("-inf")
        while True:
            view = await self._look()
            reset = generation is not None and view.generation != generation
            if reset or since > len(view.trials):
                since, reset = 0, True
            generation = view.generation
            signature = _signature(self._summary)
            end = min(since + _MOST_TRIALS, self._summary["n_trials"])
            if end > since or reset or signature != sent:
                yield self._event(view, since, end, reset, signature)
                since, sent, beat = end, signature, loop.time()
                if end < self._summary["n_trials"]:
                    continue
            elif loop.time() - beat > _BEAT_SECONDS:
                yield b": still here\n\n"
                beat = loop.time()
            else:
                yield b""
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> StudyView:
        loop = asyncio.get_running_loop()
        async with self._lock:
            if self._view is None or loop.time() - self._looked > _LOOK_SECONDS / 2:
                view = await asyncio.to_thread(self._library.study, self._run_id, self._study)
                if self._view is None or len(view.trials) != self._summary["n_trials"] or view.searching:
                    self._summary = await asyncio.to_thread(study_summary, view)
                else:
                    self._summary |= {"state": view.state}
                self._view, self._looked = view, loop.time()
                self._encoded.clear()
        return self._view

    def _event(self, view: StudyView, since: int, end: int, reset: bool, signature: str) -> bytes:
        key = (since, end, int(reset), signature)
        if key not in self._encoded:
            data = {
                "reset": reset,
                "since": since,
                "trials": [trial_row(view, number) for number in range(since, end)],
                "front": [trial.number for trial in view.front],
                "hypervolumes": view.hypervolumes[since:end],
                "best_so_far": view.best_so_far[since:end],
                "summary": self._summary,
            }
            self._encoded[key] = b"event: progress\nid: %d\ndata: %s\n\n" % (end, orjson.dumps(data))
        return self._encoded[key]


def _signature(summary: dict[str, Any]) -> str:
    """Changes when something changed that people look at; the age of a study does so all the time."""
    workers = summary["workers"]
    shown = [summary[name] for name in ("state", "n_trials", "n_asked", "generation", "error")]
    return str([*shown, workers["alive"], workers["busy"], workers["restarted"]])
