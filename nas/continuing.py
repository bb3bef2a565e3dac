"""What a training that goes on may be told: its own settings again, and where its data set and teacher lie now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from nas.outside import absolute, absolute_teacher
from nas.run import Run, RunError
from nas.spaces import SpaceSource, resolve
from search_spaces.compare import differences


def continued(
    run: Run,
    space: str | SpaceSource | None,
    data: str | None,
    options: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> Run:
    """The run with its data set and its teacher at the places that are given, both of which may have moved; `run`
    itself where neither has. That they are what they were is not looked at here, and nothing is written.

    options: `image_size`, `skip_corrupt` and `init_from`. None, as every value that is None, was not given.
    Raises RunError naming every other setting that differs from the run's, TypeError for one that there is not.
    """
    begun = asdict(run.recipe)
    if unknown := recipe.keys() - begun.keys():
        raise TypeError(f"unknown setting {min(unknown)!r}; valid: {', '.join(begun)}")
    given = {name: value for name, value in {**options, **recipe}.items() if value is not None}
    if "init_from" in given:
        given["init_from"] = absolute(given["init_from"])
    if given.get("teacher"):
        given["teacher"] = absolute_teacher(given["teacher"])
    moved = run.data if data is None else replace(run.data, spec=data)
    teacher = given.pop("teacher") if begun["teacher"] and given.get("teacher") else begun["teacher"]
    started = asdict(run.data) | begun | {"init_from": run.init_from["folder"] if run.init_from else None}
    differs = [f"{name} was {started[name]!r} and is now {v!r}" for name, v in given.items() if started[name] != v]
    if moved.name != run.data.name:
        differs.insert(0, f"data was {run.data.spec!r} and is now {moved.spec!r}")
    if space is not None:
        network = resolve(space).build(run.space.in_channels, run.space.image_size, run.space.num_classes)
        found = differences(run.space, network)
        if network.name != run.space.name:
            found = [("space", repr(run.space.name), repr(network.name))]
        differs += [f"{name} was {before} and is now {now}" for name, before, now in found]
    if differs:
        raise RunError(f"cannot resume {run}: {'; '.join(differs)}")
    if (moved, teacher) == (run.data, begun["teacher"]):
        return run
    return run.with_description(data=asdict(moved), recipe=begun | {"teacher": teacher})
