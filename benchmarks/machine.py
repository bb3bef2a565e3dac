"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch
import torchvision


def describe() -> str:
    """Processor, accelerator, threads and versions, in a line."""
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    bf16 = "" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else " without bf16"
    return (
        f"{os.cpu_count()} cores {_processor()}{bf16}{accelerator}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()
