"""A subnet as a graph of torch.export, from which the formats that hold a graph are made."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from supernet.subnet import Subnet


class Normalised(nn.Module):
    """A network behind the normalisation of its data: uint8 images of its own size → logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [batch, C, H, W] → logits [batch, classes]."""
        return self.network((images.float() / 255 - self.mean) / self.std)


def traced(
    subnet: Subnet, mean: tuple[float, ...], std: tuple[float, ...], with_preprocessing: bool
) -> ExportedProgram:
    """The graph for batches of any size: of normalised float32 images or, with preprocessing, of uint8 ones."""
    plan = subnet.plan
    network = Normalised(subnet, mean, std) if with_preprocessing else subnet
    # a batch of two: what is 1 in the example, torch takes for a constant
    shape = (2, plan.in_channels, plan.resolution, plan.resolution)
    images = torch.zeros(shape, dtype=torch.uint8 if with_preprocessing else torch.float32)
    program = export(network.eval(), (images,), dynamic_shapes=({0: Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine, and would travel with the model
    return program
