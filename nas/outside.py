"""Models from outside that a training starts from or learns from: their places, and what they have seen."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from nas.data_options import DataOptions

log = logging.getLogger(__name__)


def absolute(path: str | Path) -> str:
    """So that a run can be continued from any folder. Raises ValueError for an empty path."""
    if not str(path):
        raise ValueError(f"init_from is {path!r}; leave it out to start from random weights")
    return str(Path(path).expanduser().resolve())


def absolute_teacher(spec: str) -> str:
    """`spec` of `TrainConfig.teacher` with its folder or file as an absolute path."""
    if not spec.startswith("torchvision:"):
        return absolute(spec)
    name, colon, file = spec.removeprefix("torchvision:").partition(":")
    return f"torchvision:{name}{colon}{absolute(file) if file else ''}"


def warn_of_splits(model: str | Path | None, data: DataOptions, seed: int) -> None:
    """Warns where an exported `model` was trained on data of this name, split by another seed.

    Part of what searches are then scored on, it was trained on. Not known of a model without a certificate.
    """
    if model is None:
        return
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        trained = json.loads((Path(model) / "certificate.json").read_text(encoding="utf-8"))["seed"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if isinstance(config, dict) and config.get("data") == data.name and trained != seed:
        log.warning(
            "%s was trained on %s split by seed %s; split by seed %s, some of the images that searches are scored on "
            "are images it was trained on, and scores are too high; if it is the same data, train with --seed %s",
            model, data.name, trained, seed, trained,
        )  # fmt: skip
