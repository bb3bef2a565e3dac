"""How busy the machine of the service is: its GPUs where it has any, else its processors and memory."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUERY = "name,memory.used,memory.total,utilization.gpu"
_ASK_SECONDS = 2.0  # that a driver in trouble may take


@dataclass(frozen=True)
class Device:
    """memory_used, memory_total: bytes. busy: 0 to 1, of processors the load over their number."""

    name: str
    memory_used: float
    memory_total: float
    busy: float


def devices() -> list[Device]:
    """GPUs as `nvidia-smi` sees them; where it sees none, the processors with the machine's memory."""
    return gpus() or processors()


def gpus() -> list[Device]:
    """Empty where there is no `nvidia-smi`, or it fails."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(answer)


def parse_gpus(answer: str) -> list[Device]:
    """One device a line of `name, MiB used, MiB in all, percent`; lines with other contents are left out."""
    found = []
    for line in answer.splitlines():
        name, *numbers = (part.strip() for part in line.rsplit(",", 3))
        try:
            used, total, busy = map(float, numbers)
        except ValueError:
            continue
        found.append(Device(name, used * 2**20, total * 2**20, busy / 100))
    return found


def processors() -> list[Device]:
    """One device for all of them; empty on a system that does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        memory = {name: 1024.0 * int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        total, free = memory["MemTotal"], memory["MemAvailable"]
    except (OSError, ValueError, KeyError, IndexError):
        return []
    count = os.cpu_count() or 1
    return [Device(f"{count} processors", total - free, total, min(1.0, os.getloadavg()[0] / count))]
