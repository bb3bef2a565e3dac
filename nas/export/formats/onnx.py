"""`model.onnx`: the graph and the weights in one file for ONNX Runtime and whatever else reads ONNX."""

from __future__ import annotations

from pathlib import Path

from nas.export.formats.base import Exportable, Format, Opened


def write(folder: Path, model: Exportable) -> None:
    """Writes `model.onnx`: `input` [batch, C, H, W] → `logits` [batch, classes]."""
    import torch

    torch.onnx.export(
        model.program,
        f=folder / "model.onnx",
        input_names=["input"],
        output_names=["logits"],
        dynamo=True,
        external_data=False,  # one file
        verbose=False,
    )


def opened(folder: str, threads: int | None) -> Opened:
    """As its user does; float inputs are normalised by what `config.json` says."""
    import json

    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: one a core
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
    takes_pixels = session.get_inputs()[0].type == "tensor(uint8)"
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        trained = json.load(file)["pretrained_cfg"]
    mean, std = (np.array(trained[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))

    def prepare(pixels: bytearray, shape: list[int]) -> np.ndarray:
        images = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
        return images if takes_pixels else (images.astype(np.float32) / np.float32(255) - mean) / std

    def predict(images: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"input": images})[0]

    return prepare, predict, {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__}


ONNX = Format(
    file="model.onnx",
    write=write,
    opened=opened,
    runtime="onnxruntime",
    refused=("onnx", "onnxscript", "safetensors", "torch", "torchvision"),
    atol=1e-5,
    # It folds batch norms into the weights and has convolutions of its own, so it rounds along another path: trained
    # networks of the digits come to 2e-7 of the largest logit, random MobileNets to 2e-5, as far as torch's own fp32 is
    # from fp64 there.
    rtol=1e-4,
    needs=("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
)
