"""How evenly the classes of a data set share its images."""

from __future__ import annotations

import torch

from supernet.data import ImageData
from supernet.folders import few

RARE = 10  # training images; or a tenth of an equal share, where that is more


def summary(data: ImageData) -> str:
    """For example `1152 training images of 10 classes, 111 ('8') to 118 ('3'); 143 calibration, …`."""
    counts = torch.bincount(data.train.labels.cpu(), minlength=data.num_classes)
    least, most = int(counts.argmin()), int(counts.argmax())
    spread = f"{counts[least]} ({data.classes[least]!r}) to {counts[most]} ({data.classes[most]!r})"
    return (
        f"{len(data.train)} training images of {data.num_classes} classes, "
        f"{spread if counts[least] < counts[most] else f'{counts[most]} each'}; {len(data.calibration)} calibration, "
        f"{len(data.validation)} search-validation and {len(data.test)} test images"
    )


def concerns(data: ImageData) -> list[str]:
    """What the counts of the classes make doubtful, one sentence each; empty for a balanced data set.

    Training, calibration and search-validation have images of every class (``supernet.data.prepare``).
    """
    train, test = (torch.bincount(s.labels.cpu(), minlength=data.num_classes) for s in (data.train, data.test))
    bound = max(RARE, len(data.train) // data.num_classes // 10)
    rare = [f"{name!r} ({count})" for name, count in zip(data.classes, train.tolist()) if count < bound]
    absent = [repr(name) for name, count in zip(data.classes, test.tolist()) if not count]
    found = []
    if rare:
        found.append(
            f"few of the {len(data.train)} training images are of {few(rare)}: top-1 says little about such classes"
        )
    if absent:
        found.append(f"no test image is of {few(absent)}: the test accuracy says nothing about such classes")
    return found
