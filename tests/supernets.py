"""Supernets whose every weight and statistic is random: defaults such as gamma 1 and mean 0 would hide mistakes."""

from __future__ import annotations

import torch
from torch import Tensor

from nas.run import Run
from nas.training import load_trained
from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet.data import ImageData, Split
from supernet.evaluate import recalibrate
from supernet.layers import ElasticBatchNorm2d, ElasticConv2d
from supernet.model import Supernet
from supernet.subnet import Subnet


def randomised(space: NetworkSpace, seed: int = 0) -> Supernet:
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the weights that a new supernet draws itself
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


def random_data(space: NetworkSpace) -> ImageData:
    """Noise for a space: 40 images, which are every split at once."""
    generator = torch.Generator().manual_seed(0)
    shape = (40, space.in_channels, space.image_size, space.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    split = Split(images, torch.arange(40) % space.num_classes)
    classes = tuple(map(str, range(space.num_classes)))
    mean, std = (0.4,) * space.in_channels, (0.3,) * space.in_channels
    return ImageData(split, split, split, split, mean, std, classes, False, 0)


def as_scored(run: Run, arch: Arch) -> Subnet:
    """The subnet that a search scores and an export ships."""
    supernet, _, data = load_trained(run)
    subnet = supernet.export(arch)
    recalibrate(subnet, data.calibration.images, data.mean, data.std)
    return subnet
