"""Starting a supernet from an exported model: the inverse of `Supernet.export`.

The model's weights go into the slices of the shared weights that its architecture uses. What the model's channels
could read beyond them, more inputs and a wider kernel, starts at 0, so that every larger subnet, pooled where the model
is, computes at first what the model does (Net2Net, Chen et al. 2016); everything else stays as it was drawn. Batch
norms get the model's vectors at every level, not only at the one where its architecture has the block: a start that
fits another scale badly is better than none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from search_spaces.compare import differences
from search_spaces.network import NetworkSpace
from search_spaces.plan import Layer
from supernet.exported import ExportedError, read_exported
from supernet.layers import ElasticBatchNorm2d, ElasticConv2d
from supernet.mixture import SharedWeights, members_of
from supernet.model import Supernet
from supernet.subnet import Subnet

_FREE = ("name", "num_classes", "image_size", "resolutions")  # what no weight but the classifier's depends on


def initialise(weights: SharedWeights, folder: Path, classes: tuple[str, ...]) -> dict[str, Any]:
    """Writes the model exported to `folder` into new shared weights, into every member of a mixture.

    classes: those of the data set. The classifier is taken over where the model has the same, and else left as drawn.
    Returns what a run records: `folder`, the `arch`, the SHA-256 of the model's `weights`, and `classifier`, "kept" or
    "redrawn".
    Raises ExportedError when the folder is no exported model, or naming what differs when it is one of another space,
    or what is no finite number.
    """
    from supernet.checkpoint import weights_hash

    model = read_exported(folder)
    if differs := _differences(model.space, weights.space):
        raise ExportedError(f"{folder} is a model of another space: {'; '.join(differs)}")
    if bad := [name for name, t in model.subnet.state_dict().items() if not torch.isfinite(t).all()]:
        raise ExportedError(f"{folder} has weights that are no finite numbers: {bad[0]}")
    kept = list(classes) == model.config.get("label_names")
    for supernet in members_of(weights):
        _write(supernet, model.subnet, kept)
    return {
        "folder": str(folder),
        "arch": model.arch.to_dict(),
        "weights": weights_hash(model.subnet.state_dict()),
        "classifier": "kept" if kept else "redrawn",
    }


@torch.no_grad()
def _write(supernet: Supernet, subnet: Subnet, classifier: bool) -> None:
    for plain in subnet.plain_blocks():
        elastic = supernet.elastic(plain.block)
        for layer in plain.block.layers:
            if layer.op != "linear" or classifier:
                _write_layer(elastic.get_submodule(layer.name), plain.get_submodule(layer.name), layer)


def _write_layer(elastic: Any, plain: Any, layer: Layer) -> None:
    """elastic, plain: the same layer among the shared weights and in the model."""
    out, inputs = slice(layer.out_channels), slice(layer.in_channels // layer.groups)
    if isinstance(elastic, ElasticBatchNorm2d):
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(elastic, name)[:, out] = getattr(plain, name)
        return
    elastic.weight[out] = 0
    if isinstance(elastic, ElasticConv2d):
        edge = (elastic.weight.shape[-1] - layer.kernel) // 2
        centre = slice(edge, edge + layer.kernel)
        elastic.weight[out, inputs, centre, centre] = plain.weight
    else:
        elastic.weight[out, inputs] = plain.weight
    if elastic.bias is not None:
        elastic.bias[out] = plain.bias


def _differences(theirs: NetworkSpace, ours: NetworkSpace) -> list[str]:
    """Fields of which weights depend, as `stages[1].widths is (16, 24) in the model and (16, 32) here`."""
    found = differences(theirs, ours)
    return [f"{name} is {a} in the model and {b} here" for name, a, b in found if name not in _FREE]
