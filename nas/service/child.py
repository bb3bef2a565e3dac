"""Runs a command and leaves its exit code in a file: `python -m nas.service.child CODE_FILE COMMAND…`.

The service that started it may be gone when it ends, and the next one is not its parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    """Passes SIGINT and SIGTERM on, waits, and writes the code; a command ended by signal N counts as 128 + N."""
    target = Path(sys.argv[1])
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        early.append(number) if process is None else process.send_signal(number)

    # Before the command starts: it would inherit that SIGINT is ignored, as in what a shell starts in the background.
    signal.signal(signal.SIGINT, pass_on)
    signal.signal(signal.SIGTERM, pass_on)
    process = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL)
    for number in early:
        process.send_signal(number)
    code = process.wait()
    code = 128 - code if code < 0 else code
    temporary = target.with_suffix(".code.tmp")
    temporary.write_text(str(code))
    os.replace(temporary, target)
    sys.exit(code)


if __name__ == "__main__":
    main()
