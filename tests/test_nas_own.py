"""What docs/your-own.md shows runs: its data, both its spaces, and fine-tuning what came out of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nas.export import export_subnet
from nas.run import Run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "your-own.md").read_text()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the files of the page."""
    for name, text in re.findall(r"```py\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    (tmp_path / "mine.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_space_file_is_trained(nas, here):
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32), dtype=np.uint8)
    np.savez("set.npz", images=images, labels=np.arange(60) % 3)
    code, _, err = nas("train", "--space", "mine.yaml", "--data", "npz:set.npz", "--epochs", 1, "-o", "run")
    assert code == 0, err
    assert Run.open("run").space.resolutions == (24, 32)


def test_the_pages_functions_are_trained_on_and_the_model_is_fine_tuned(nas, here):
    own = ["--space", "my_space.py:make", "--data", "my_data.py:make", "--epochs", 1]
    code, _, err = nas("train", *own, "-o", "run")
    assert code == 0, err
    run = Run.open("run")
    export_subnet(run, run.space.smallest(), "models/mine")
    done = subprocess.run(
        [sys.executable, "fine_tune.py"], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.stdout.startswith("loss 0.")
