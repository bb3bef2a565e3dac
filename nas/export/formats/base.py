"""What a format of export is: how it is written, and how a process that has nothing of this project opens it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from supernet.data import ImageData
    from supernet.subnet import Subnet

Opened = tuple[Callable[[bytearray, list[int]], Any], Callable[[Any], Any], dict[str, str]]
"""How to use an opened model: uint8 pixels and their shape [n, C, H, W] to its input, input to logits, versions."""


@dataclass(frozen=True)
class Exportable:
    """A subnet that is to be written, in eval mode on the CPU, with the key of its architecture.

    with_preprocessing: graphs (ONNX, torch.export) take uint8 images [batch, C, H, W] of the network's own size and
    normalise them; without, they take what is normalised already, float32.
    """

    subnet: Subnet
    key: str
    data: ImageData
    with_preprocessing: bool = False

    @cached_property
    def program(self) -> ExportedProgram:
        """The network as torch.export has it, for batches of any size; traced once for all formats."""
        from nas.export.formats.graph import traced

        return traced(self.subnet, self.data.mean, self.data.std, self.with_preprocessing)


@dataclass(frozen=True)
class Format:
    """A kind of file that an architecture is exported to.

    file: its name in the folder. write: makes it there. opened: opens the file of a folder (a path, as text) on a
    number of CPU threads, or the runtime's own choice for None; its source runs in a process of its own, so it may use
    nothing of its module. refused: modules out of that process's reach, so that only the format's runtime is left.
    runtime: what runs it. atol, rtol: a logit may differ from the scored subnet's by atol + rtol x the largest |logit|.
    resizes: whether it takes images of any size. needs: modules to write it with, which come with the extra `extra`.
    """

    file: str
    write: Callable[[Path, Exportable], None]
    opened: Callable[[str, int | None], Opened]
    runtime: str
    refused: tuple[str, ...]
    atol: float
    rtol: float = 0.0
    resizes: bool = False
    needs: tuple[str, ...] = ()
    extra: str = ""
