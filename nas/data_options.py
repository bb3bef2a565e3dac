"""`DataOptions`: which images a run is on, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supernet.callables import absolute, is_function


@dataclass(frozen=True)
class DataOptions:
    """How a run's images are read; the reader itself is `supernet.datasets.load`.

    spec: such as `cifar10:DIR`; a place in it becomes absolute. image_size: pixels, or None for the data set's own.
    skip_corrupt: leave out images that cannot be read rather than stop.
    """

    spec: str
    image_size: int | None = None
    skip_corrupt: bool = False

    def __post_init__(self) -> None:
        size = self.image_size
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 4096):
            raise ValueError(f"image size is {size!r}; valid: 1 to 4096 pixels")
        if not isinstance(self.skip_corrupt, bool):
            raise ValueError(f"skip_corrupt is {self.skip_corrupt!r}; valid: true or false")
        name, _, place = self.spec.partition(":")
        if is_function(self.spec):
            object.__setattr__(self, "spec", absolute(self.spec))
        elif place:  # absolute, so that the run can be used from any folder
            object.__setattr__(self, "spec", f"{name}:{Path(place).expanduser().resolve()}")

    @property
    def name(self) -> str:
        """The kind of data set, without its place; of a function its name, with its file's."""
        if is_function(self.spec):
            return self.spec.rpartition("/")[2]
        return self.spec.partition(":")[0]

    @property
    def place(self) -> Path | None:
        """The file or folder that the images come from, where the spec names one."""
        if is_function(self.spec):
            file = self.spec.rpartition(":")[0]
            return Path(file) if file.endswith(".py") else None
        place = self.spec.partition(":")[2]
        return Path(place) if place else None
