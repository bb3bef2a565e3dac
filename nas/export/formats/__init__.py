"""The formats that a model is exported to. A new one is a file here and one line in `FORMATS`; the tests pick it up."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from nas.export.formats.base import Exportable, Format
from nas.export.formats.onnx import ONNX
from nas.export.formats.pt2 import PT2
from nas.export.formats.safetensors import SAFETENSORS

__all__ = ["ALWAYS", "FORMATS", "Exportable", "Format", "checked_formats"]

FORMATS: dict[str, Format] = {
    "safetensors": SAFETENSORS,
    "onnx": ONNX,
    "pt2": PT2,
}

ALWAYS = "safetensors"  # written with every export


def checked_formats(names: Sequence[str]) -> list[str]:
    """The formats to write for these names, in the order of `FORMATS`; `ALWAYS` is one of them.

    Raises ValueError for an unknown name, listing the valid ones, and for one whose packages are not installed.
    """
    for name in names:
        if name not in FORMATS:
            raise ValueError(f"unknown format {name!r}; valid: {', '.join(FORMATS)}")
        chosen = FORMATS[name]
        if missing := [module for module in chosen.needs if find_spec(module) is None]:
            raise ValueError(
                f"the format {name} needs {', '.join(missing)}; install with: pip install 'nas-service[{chosen.extra}]'"
            )
    return [name for name in FORMATS if name in names or name == ALWAYS]
