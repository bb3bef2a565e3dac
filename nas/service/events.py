"""Progress as differences: server-sent events of a study, each encoded once, whoever many follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson

from nas.service.looks import Look, Looks
from nas.service.state import trial_row
from nas.service.study_view import StudyView

_LOOK_SECONDS = 0.5  # between two looks at a journal that someone watches
_MOST_TRIALS = 500  # in one event; a client that comes late gets several
_BEAT_SECONDS = 15.0  # after which a line is sent all the same, so that proxies keep the connection


class Hub:
    """The streams of all who follow a study."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
        self._closing = False

    def close(self) -> None:
        """Ends every stream within a second, so that a service can end; may be called in a signal handler."""
        self._closing = True

    async def follow(self, run_id: str, study: str, since: int) -> AsyncIterator[bytes]:
        """Server-sent events of a study: `progress` with the trials from `since` on and a summary, then what is new.

        The id of an event is the number of trials before and in it, from which a client that lost its connection goes
        on. Where the study starts over, an event has `reset`, and all trials follow.
        """
        try:
            async for event in _follow(self._looks.of(run_id, study), since):
                if self._closing:
                    break
                if event:
                    yield event
        except LookupError:  # it was taken away
            return


async def _follow(look: Look, since: int) -> AsyncIterator[bytes]:
    """Events; empty ones where there is nothing to say."""
    loop, generation, sent, beat = asyncio.get_running_loop(), None, "", float("-inf")
    while True:
        view = await look.refresh()
        reset = generation is not None and view.generation != generation
        if reset or since > len(view.trials):
            since, reset = 0, True
        generation = view.generation
        signature = _signature(look.summary)
        end = min(since + _MOST_TRIALS, look.summary["n_trials"])
        if end > since or reset or signature != sent:
            yield _event(look, view, since, end, reset)
            since, sent, beat = end, signature, loop.time()
            if end < look.summary["n_trials"]:
                continue
        elif loop.time() - beat > _BEAT_SECONDS:
            yield b": still here\n\n"
            beat = loop.time()
        else:
            yield b""
        await asyncio.sleep(_LOOK_SECONDS)


def _event(look: Look, view: StudyView, since: int, end: int, reset: bool) -> bytes:
    def encode() -> bytes:
        data = {
            "reset": reset,
            "since": since,
            "trials": [trial_row(view, number) for number in range(since, end)],
            "front": [trial.number for trial in view.front],
            "hypervolumes": view.hypervolumes[since:end],
            "best_so_far": view.best_so_far[since:end],
            "summary": look.summary,
        }
        return b"event: progress\nid: %d\ndata: %s\n\n" % (end, orjson.dumps(data))

    return look.once(("event", since, end, reset), encode)


def _signature(summary: dict[str, Any]) -> str:
    """Changes when something changed that people look at; the age of a study does so all the time."""
    workers = summary["workers"]
    shown = [summary[name] for name in ("state", "n_trials", "n_asked", "generation", "error")]
    return str([*shown, workers["alive"], workers["busy"], workers["restarted"]])
