"""The named spaces. A new one is a function here and one line in `SPACES`; the contract tests pick it up."""

from __future__ import annotations

from collections.abc import Callable

from search_spaces.blocks import rounded
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


def wide_resnet(in_channels: int = 3, image_size: int = 32, num_classes: int = 10) -> NetworkSpace:
    """Wide residual networks (Zagoruyko & Komodakis 2016) from WRN-10-1 to WRN-16-8, pooled before any two blocks.

    Their blocks here put the norm after the convolution (He et al. 2016), as everywhere in this catalog.
    """
    stages = tuple(Stage((1, 2), widths=tuple(base * k for k in (1, 2, 4, 6, 8))) for base in (16, 32, 64))
    return NetworkSpace("wide_resnet", stages, 2, in_channels, image_size, num_classes, stem_width=16)


def resnet50(in_channels: int = 3, image_size: int = 224, num_classes: int = 1000) -> NetworkSpace:
    """Bottleneck networks around ResNet-50 (He et al. 2016), which it contains at expand 0.25.

    Choices of Once-for-All's ResNet-50 space (Cai et al. 2020): widths of 65, 80 and 100 %, expand 0.2 to 0.35.
    """
    shapes = (((2, 3, 4), 256, 1), ((2, 3, 4), 512, 2), ((4, 5, 6), 1024, 2), ((2, 3, 4), 2048, 2))
    stages = tuple(
        Stage(
            depths,
            widths=tuple(rounded(width * share) for share in (0.65, 0.8, 1.0)),
            expands=(0.2, 0.25, 0.35),
            block="bottleneck",
            stride=stride,
        )
        for depths, width, stride in shapes
    )
    return NetworkSpace(
        "resnet50", stages, 0, in_channels, image_size, num_classes,
        resolutions=_resolutions(image_size, 16), stem="imagenet_stem", stem_width=64,
    )  # fmt: skip


def mobilenet_v3(in_channels: int = 3, image_size: int = 224, num_classes: int = 1000) -> NetworkSpace:
    """Once-for-All's MobileNetV3 space at width 1.0 (Cai et al. 2020): 2·10^19 networks at each of 25 resolutions.

    At 224 pixels and 1000 classes parameters and MACs are those that the paper's code counts, of which there was
    nothing to adjust: squeeze-excite's convolutions count, activations and products do not.
    """
    return _mobilenet_v3("mobilenet_v3", True, in_channels, image_size, num_classes)


def mobilenet_v3_pooling(in_channels: int = 3, image_size: int = 224, num_classes: int = 1000) -> NetworkSpace:
    """`mobilenet_v3` with the four downsamplings of its stages before any four blocks instead, as max-pools."""
    return _mobilenet_v3("mobilenet_v3_pooling", False, in_channels, image_size, num_classes)


def _mobilenet_v3(name: str, strided: bool, in_channels: int, image_size: int, num_classes: int) -> NetworkSpace:
    rows = ((24, 2, "relu", False), (40, 2, "relu", True), (80, 2, "h_swish", False), (112, 1, "h_swish", True),
            (160, 2, "h_swish", True))  # fmt: skip
    stages = tuple(
        Stage((2, 3, 4), (width,), (3, 5, 7), (3, 4, 6), "mbconv", stride if strided else 1, act, se)
        for width, stride, act, se in rows
    )
    pools = 0 if strided else 4
    return NetworkSpace(
        name, stages, pools, in_channels, image_size, num_classes,
        # after the stem's stride every pool needs two pixels to work on
        resolutions=_resolutions(image_size, 4, least=1 << pools + 1),
        stem="mobile_stem", stem_width=16, head="mobile_head", head_widths=(960, 1280),
    )  # fmt: skip


def _resolutions(image_size: int, step: int, least: int = 1) -> tuple[int, ...]:
    """From 4/7 of the image size to all of it (128 to 224 pixels) in steps of `step`, or of 4 for smaller images."""
    step = step if image_size >= 128 else 4
    return tuple(
        r for r in reversed(range(image_size, 0, -step)) if r == image_size or r >= max(least, image_size * 4 / 7)
    )


SPACES: dict[str, Callable[..., NetworkSpace]] = {
    "digits": digits,
    "resnet20_pooling": resnet20_pooling,
    "resnet_cifar": resnet_cifar,
    "wide_resnet": wide_resnet,
    "resnet50": resnet50,
    "mobilenet_v3": mobilenet_v3,
    "mobilenet_v3_pooling": mobilenet_v3_pooling,
}


def get(name: str, **params: int) -> NetworkSpace:
    """The space `name` for these `in_channels`, `image_size`, `num_classes`; ValueError lists the valid names."""
    if name not in SPACES:
        raise ValueError(f"unknown space {name!r}; valid: {', '.join(SPACES)}")
    return SPACES[name](**params)
