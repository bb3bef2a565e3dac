"""Searches on runs of remote storage, and what they leave there."""

from __future__ import annotations

import pytest

from nas.run import Run
from nas.searching import search_run

JOURNAL = "studies/default.journal"
EVERYWHERE = pytest.mark.parametrize("url", ["memory", "file", "s3"], indirect=True)


def search(run, n_trials, **options):
    return search_run(run, n_trials=n_trials, num_workers=0, limits={"macs": 3e6}, **options)


def search_unpublished(url, n_trials, **options):
    """A search on this machine's mirror alone, as one that was killed before it could publish."""
    run = Run.open(url)
    run.checkpoint  # noqa: B018 - which takes it
    search(run.path, n_trials, **options)
    return run.path


def history(study):
    return [(t.number, t.arch.key, t.state, dict(t.metrics)) for t in study.trials]
