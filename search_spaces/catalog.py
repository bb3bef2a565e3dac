"""The named spaces. A new one is a function here and one line in `SPACES`; the contract tests pick it up."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.network import NetworkSpace, Stage


def digits(in_channels: int = 1, image_size: int = 8, num_classes: int = 10) -> NetworkSpace:
    """Small enough to train and search in a minute on two cores; one pool, for images of 8x8."""
    stages = (
        Stage(depths=(1, 2), widths=(16, 24, 32), kernels=(3, 5)),
        Stage(depths=(1, 2), widths=(32, 48, 64), kernels=(3, 5)),
    )
    return NetworkSpace("digits", stages, 1, in_channels, image_size, num_classes)


def resnet20_pooling(in_channels: int = 3, image_size: int = 32, num_classes: int = 10) -> NetworkSpace:
    """ResNet-20 with its two downsamplings before any two of its nine blocks: 36 architectures.

    The space of Balanced Mixture of SuperNets (Javan et al. 2023): channels and weights stay with the layer.
    """
    stages = tuple(Stage(depths=(3,), widths=(width,)) for width in (16, 32, 64))
    return NetworkSpace("resnet20_pooling", stages, 2, in_channels, image_size, num_classes)


def resnet_cifar(in_channels: int = 3, image_size: int = 32, num_classes: int = 10) -> NetworkSpace:
    """The joint space: depth, width, kernel size and pooling positions, around ResNet-20's widths.

    At 32x32 from 1.7M to 1.3G MACs (0.3G at the reference pooling); ResNet-20's 41M lie well inside. Its widths are the
    largest on offer, which keeps the largest subnet, trained in every step, affordable without an accelerator.
    """
    stages = tuple(Stage(depths=(1, 2, 3, 4), widths=w, kernels=(3, 5, 7)) for w in _RESNET_CIFAR_WIDTHS)
    return NetworkSpace("resnet_cifar", stages, 2, in_channels, image_size, num_classes)


_RESNET_CIFAR_WIDTHS = ((8, 12, 16), (16, 24, 32), (32, 48, 64))

SPACES: dict[str, Callable[..., NetworkSpace]] = {
    "digits": digits,
    "resnet20_pooling": resnet20_pooling,
    "resnet_cifar": resnet_cifar,
}


def get(name: str, **params: int) -> NetworkSpace:
    """The space `name` for these `in_channels`, `image_size`, `num_classes`; ValueError lists the valid names."""
    if name not in SPACES:
        raise ValueError(f"unknown space {name!r}; valid: {', '.join(SPACES)}")
    return SPACES[name](**params)
