"""`nas.load`: an exported model as a torch module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from supernet.callables import run_file

if TYPE_CHECKING:
    from torch import nn

MODEL_FILES = ("model.py", "model.safetensors", "config.json")


class LoadError(ValueError):
    """A folder that is no exported model, or a damaged one; the message names it."""


def load(folder: str | Path) -> nn.Module:
    """The model that `nas export` wrote to `folder`: a plain torch module in eval mode, with its trained weights.

    It maps normalised images [batch, C, H, W] to logits; `load(folder).preprocess(images)` makes such of uint8 images.
    Its classifier is `head.fc`. The folder's `model.py` is run for this, as importing it would: load folders whose
    origin you trust. Nothing is unpickled.
    Raises LoadError naming what is missing, or what is wrong with the files.
    """
    require_model(folder := Path(folder))
    try:
        module = run_file((folder / "model.py").resolve())
        model: nn.Module = module.load(folder)
        model.preprocess = module.preprocess
    except Exception as error:  # the file is the user's, and may raise anything
        reason = (str(error) or "no message").splitlines()[0].rstrip(":")  # torch goes on to name every tensor
        raise LoadError(f"the model in {folder} cannot be loaded: {type(error).__name__}: {reason}") from error
    return model


def require_model(folder: Path) -> None:
    """Raises LoadError unless `folder` has the files of an exported model."""
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder}; give one that `nas export` wrote")
    if missing := [name for name in MODEL_FILES if not (folder / name).is_file()]:
        raise LoadError(f"{folder} is no exported model: it lacks {', '.join(missing)}")
