"""Reading a file that another process appends to: only what is new, line by line."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

_REMEMBERED = 256  # bytes before the offset that have to be as they were, or the file was written anew


@dataclass
class Tail:
    """A cursor in a file of lines.

    offset: bytes read so far, always behind a whole line. generation: how often the file was replaced, cut or
    rewritten since, after which it is read from its beginning.
    """

    path: Path
    offset: int = 0
    generation: int = 0
    _inode: int = field(default=-1, repr=False)
    _last: bytes = field(default=b"", repr=False)
    _looked: tuple[int, int, int] | None = field(default=None, repr=False)

    def read(self) -> tuple[bool, list[bytes]]:
        """Whether the file starts over, and the whole lines that were appended; what is no file has none.

        A last line without its end is left for the next time; a file that is as it was, whatever its length, is not
        read again. Raises OSError for a file that may not be read.
        """
        try:
            if not self.path.is_file():  # opening a pipe would wait for who writes it
                raise FileNotFoundError
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                looked = (status.st_ino, status.st_size, status.st_mtime_ns)
                if looked == self._looked:
                    return False, []
                again = self._starts_over(file.fileno(), status)
                if again:
                    self.generation += 1
                    self.offset, self._last = 0, b""
                self._inode = status.st_ino
                file.seek(self.offset)
                data = file.read(max(0, status.st_size - self.offset))
                self._looked = looked
        except FileNotFoundError:
            return False, []
        end = data.rfind(b"\n") + 1
        self.offset += end
        self._last = (self._last + data[:end])[-_REMEMBERED:]
        return again, data[:end].splitlines()

    def _starts_over(self, file: int, status: os.stat_result) -> bool:
        if not self.offset:
            return False
        if status.st_ino != self._inode or status.st_size < self.offset:
            return True
        return os.pread(file, len(self._last), self.offset - len(self._last)) != self._last
