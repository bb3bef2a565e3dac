"""The pages: runs, training, search, new search, compare, space. They read views that all browsers share."""

from __future__ import annotations

from nas.service.pages import compare, new_search, runs, search, space, training
from nas.service.service import Service


def register(service: Service) -> None:
    """Puts every page of `service` into NiceGUI's app; those of a service before are replaced."""
    for page in (runs, training, search, new_search, compare, space):
        page.register(service)
