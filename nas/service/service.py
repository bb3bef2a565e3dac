"""`Service`: what the pages and the API share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nas.service.jobs import Jobs
from nas.service.looks import Looks
from nas.service.state import Library


@dataclass(frozen=True)
class Service:
    """The runs under a root, and what was started from here.

    library: reads. jobs: starts and stops. Both may be used from any thread. looks: at studies that someone watches; of
    the event loop alone.
    """

    library: Library
    jobs: Jobs
    looks: Looks

    @classmethod
    def open(cls, root: str | Path, address: str | None = None) -> Service:
        """address: of a Ray jobs server, such as http://head:8265, on which searches run; None runs them here."""
        library = Library(root)
        return cls(library, Jobs(library, address), Looks(library))
