"""What the records of a study's journal mean, checked: nothing else in the service doubts what it gets from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.identity import Identity
from nas.problem import are_metrics
from nas.trial import Trial

CREATE_STUDY, DELETE_STUDY, STUDY_ATTR, CREATE_TRIAL = 0, 1, 2, 4  # Optuna's codes of records

_COMPLETE = 1  # Optuna's code of a trial's state


@dataclass(frozen=True)
class StoredArch:
    """An architecture as a journal has it: enough to list, compare and draw points; `Run.space` makes an `Arch`."""

    key: str
    genes: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(self.genes)


def identity(data: Mapping[str, Any], name: str) -> Identity:
    """Of the study `name`. Raises what says why it is none that a search writes; space and limits are not looked at."""
    found = Identity(**data)
    kinds = {"study_name": str, "strategy": str, "seed": int, "lookahead": int, "context": dict}
    if odd := [field for field, kind in kinds.items() if not isinstance(getattr(found, field), kind)]:
        raise ValueError(f"its {odd[0]} is {getattr(found, odd[0])!r}")
    if found.study_name != name:
        raise ValueError(f"it is of study {found.study_name!r}")
    return found


def n_asked(attrs: Mapping[str, Any], before: int | None) -> int | None:
    """How many trials the study is to have; `before` where the attributes do not say. Raises ValueError."""
    number = attrs.get("nas_n_trials", before)
    if number is not None and type(number) is not int:
        raise ValueError(f"it is to have {number!r} trials")
    return number


def trial(record: Mapping[str, Any], due: int, identity: Identity) -> Trial:
    """The trial of a record, which has to be number `due`. Raises what says why it is none that a search writes."""
    attrs, system = record["user_attrs"], record["system_attrs"]
    if attrs.get("number", due) != due:
        raise ValueError(f"trial {due} is missing or doubled")
    excesses = {n.removeprefix("constraints:"): v for n, v in system.items() if n.startswith("constraints:")}
    complete = record["state"] == _COMPLETE
    metrics, constraints = attrs["metrics"], {n: v for n, v in excesses.items() if n in identity.limits}
    if not are_metrics(metrics) or not are_metrics(constraints) or not are_metrics({"seconds": attrs["seconds"]}):
        raise ValueError(f"trial {due} has a metric that is no finite number")
    if complete and (missing := [name for name in identity.objectives if name not in metrics]):
        raise ValueError(f"trial {due} lacks the objective {missing[0]!r}")
    if not isinstance(attrs["arch"], dict) or not all(isinstance(attrs[name], str) for name in ("key", "worker")):
        raise ValueError(f"trial {due} has no architecture or no worker")
    return Trial(
        number=due,
        arch=StoredArch(attrs["key"], attrs["arch"]),
        state="complete" if complete else "failed",
        metrics=metrics,
        constraints=constraints,
        worker=attrs["worker"],
        seconds=attrs["seconds"],
        error=None if attrs["error"] is None else str(attrs["error"]),
    )
