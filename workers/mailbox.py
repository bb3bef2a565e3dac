"""What the driver and the workers of a training on Ray tell each other.

A module of its own, for the actor's process imports it: from `workers.ray_train` it would import torch, for seconds.
"""

from __future__ import annotations

from typing import Any


class Mailbox:
    """An actor between driver and workers: messages one way, the request to stop the other way."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._stop = False
        self._error: Exception | None = None
        self._joined = False

    def join(self) -> Exception | None:
        """A worker's first word; the answer is `error`."""
        self._joined = True
        return self._error

    def send(self, message: Any) -> None:
        """A worker's, for the driver."""
        self._messages.append(message)

    def take(self) -> list[Any]:
        """What was sent since the last time."""
        taken, self._messages = self._messages, []
        return taken

    def stop(self) -> bool:
        """Asks the workers to stop; whether any has started that can hear it."""
        self._stop = True
        return self._joined

    def asked_to_stop(self) -> bool:
        """Whether they were asked to."""
        return self._stop

    def fail(self, error: Exception) -> None:
        """A worker's error after which nothing is tried again; the first is kept."""
        self._error = self._error or error

    def error(self) -> Exception | None:
        """That error, or None."""
        return self._error
