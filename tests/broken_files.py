"""What happens to files: torn, on a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """A new file: rewriting one in place makes ext4 wait for the disk."""
    path.unlink()
    path.with_name(path.name + ".writer").unlink(missing_ok=True)
    path.write_bytes(data)


def no_space(real: Callable[[int, bytes], int], room: int) -> Callable[[int, bytes], int]:
    """`os.write` on a disk with room for so many bytes: it writes those, and without any fails, naming no file."""

    def write_some(file: int, data: bytes) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data[:room])

    return write_some
