"""The format that is always there: `model.py`, a plain module, with its weights in `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

from nas.export.formats.base import Exportable, Format, Opened
from nas.export.source import model_source


def write(folder: Path, model: Exportable) -> None:
    """Writes `model.py` and `model.safetensors`."""
    from safetensors.torch import save_file

    # the counters of batches seen have no use in a model that is not trained on, but plain modules expect them
    weights = {name: t.contiguous() for name, t in model.subnet.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    source = model_source(model.subnet.plan, model.key, model.data)
    (folder / "model.py").write_text(source, encoding="utf-8")


def opened(folder: str, threads: int | None) -> Opened:
    """As its user does: by `load` and `preprocess` of `model.py`."""
    import importlib.util
    from importlib.metadata import version

    import torch

    if threads:
        torch.set_num_threads(threads)
    spec = importlib.util.spec_from_file_location("model", f"{folder}/model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def prepare(pixels: bytearray, shape: list[int]) -> torch.Tensor:
        return module.preprocess(torch.frombuffer(pixels, dtype=torch.uint8).view(shape))

    predict = torch.inference_mode()(module.load(folder))
    return prepare, predict, {"torch": torch.__version__, "safetensors": version("safetensors")}


SAFETENSORS = Format(
    file="model.safetensors",
    write=write,
    opened=opened,
    runtime="torch",
    refused=("onnx", "onnxruntime", "onnxscript", "torchvision"),
    atol=1e-5,  # the same operations in the same library: what differs is how threads and batches split the sums
    resizes=True,
)
