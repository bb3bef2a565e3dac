"""Supernets whose every weight and statistic is random: defaults such as gamma 1 and mean 0 would hide mistakes."""

from __future__ import annotations

import torch
from torch import Tensor

from search_spaces.network import NetworkSpace
from supernet.layers import ElasticBatchNorm2d, ElasticConv2d
from supernet.model import Supernet


def randomised(space: NetworkSpace, seed: int = 0) -> Supernet:
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))

    supernet = Supernet(space)
    with torch.no_grad():
        for module in supernet.modules():
            if isinstance(module, ElasticBatchNorm2d):
                draw(module.weight, 0.5, 1.5)
                draw(module.bias, -0.5, 0.5)
                draw(module.running_mean, -0.5, 0.5)
                draw(module.running_var, 0.5, 2.0)
            elif isinstance(module, ElasticConv2d):
                for transform in module.transforms.values():
                    transform += 0.1 * torch.randn(transform.shape, generator=generator)
                if module.bias is not None:
                    draw(module.bias, -0.5, 0.5)
    return supernet


def images(space: NetworkSpace, batch: int = 4, seed: int = 0) -> Tensor:
    shape = (batch, space.in_channels, space.image_size, space.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
