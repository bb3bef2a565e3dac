"""Runs an exported folder in a process that cannot import this project: what its user will have."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_SCRIPT = """
import sys, importlib.util
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"nas", "workers", "supernet", "search_spaces"}:
            raise ImportError(f"{name} is out of reach: an exported model stands alone")
sys.meta_path.insert(0, Refuse())
folder, images, answer = sys.argv[1:]
import torch
from safetensors.torch import load_file, save_file
spec = importlib.util.spec_from_file_location("model", folder + "/model.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
model = module.load(folder)
with torch.no_grad():
    logits = [model(module.preprocess(batch)) for batch in load_file(images)["images"].split(250)]
save_file({"logits": torch.cat(logits)}, answer)
"""


class StandaloneError(RuntimeError):
    """The exported model did not run on its own; the message holds what its process printed."""


def predict_isolated(folder: Path, images: Tensor) -> Tensor:
    """Logits [n, classes] of the exported model for uint8 images [n, C, H, W], from a fresh isolated process.

    Raises StandaloneError with that process's last line when it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        question, answer = Path(scratch) / "images.safetensors", Path(scratch) / "logits.safetensors"
        save_file({"images": images.contiguous()}, question)
        command = [sys.executable, "-I", "-B", "-c", _SCRIPT, str(folder.resolve()), str(question), str(answer)]
        # in a session of its own: a Ctrl-C in the terminal is for the command, which decides what it ends
        done = subprocess.run(command, capture_output=True, text=True, cwd=scratch, check=False, start_new_session=True)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise StandaloneError(f"{folder} does not run on its own: {last}")
        return load_file(answer)["logits"].to(torch.float32)
