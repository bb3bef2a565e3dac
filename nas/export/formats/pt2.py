"""`model.pt2`: the graph and the weights in one file of torch.export, run without any Python code of the model."""

from __future__ import annotations

from pathlib import Path

from nas.export.formats.base import Exportable, Format, Opened


def write(folder: Path, model: Exportable) -> None:
    """Writes `model.pt2`."""
    import torch

    torch.export.save(model.program, folder / "model.pt2")


def opened(folder: str, threads: int | None) -> Opened:
    """As its user does; float inputs are normalised by what `config.json` says."""
    import json

    import torch

    if threads:
        torch.set_num_threads(threads)
    program = torch.export.load(f"{folder}/model.pt2")
    assert program.example_inputs is not None
    takes_pixels = program.example_inputs[0][0].dtype == torch.uint8
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        trained = json.load(file)["pretrained_cfg"]
    mean, std = (torch.tensor(trained[name]).view(1, -1, 1, 1) for name in ("mean", "std"))

    def prepare(pixels: bytearray, shape: list[int]) -> torch.Tensor:
        images = torch.frombuffer(pixels, dtype=torch.uint8).view(shape)
        return images if takes_pixels else (images.float() / 255 - mean) / std

    return prepare, torch.inference_mode()(program.module()), {"torch": torch.__version__}


PT2 = Format(
    file="model.pt2",
    write=write,
    opened=opened,
    runtime="torch.export",
    refused=("onnx", "onnxruntime", "onnxscript", "safetensors", "torchvision"),
    atol=1e-5,  # as for safetensors
)
