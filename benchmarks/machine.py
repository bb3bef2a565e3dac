"""What a figure was measured on."""

from __future__ import annotations

import os
import platform

import torch
import torchvision

from workers.latency import device_name


def describe() -> str:
    """Processor, accelerator, threads and versions, in a line."""
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    bf16 = "" if torch.cpu._is_amx_tile_supported() else " without AMX"
    return (
        f"{os.cpu_count()} cores {device_name('cpu')}{bf16}{accelerator}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    )
