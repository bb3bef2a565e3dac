"""Every space that the contract tests run on: the catalog, and shapes that the catalog has not."""

from __future__ import annotations

from search_spaces import catalog
from search_spaces.network import NetworkSpace, Stage
from search_spaces.space import ChoiceSpace

# Large spaces get small images and few classes here: their widths, and so every slice, stay what they are.
_SMALL = {
    "resnet50": {"image_size": 32, "num_classes": 10},
    "mobilenet_v3": {"image_size": 40, "num_classes": 10},
    "mobilenet_v3_pooling": {"image_size": 40, "num_classes": 10},
}

NETWORKS: dict[str, NetworkSpace] = {name: catalog.get(name, **_SMALL.get(name, {})) for name in catalog.SPACES} | {
    "every_block_strided_and_pooled": NetworkSpace(
        "mixed",
        (
            Stage((1, 2), (8, 16), stride=2),
            Stage((1,), (16, 24), (3, 5), (0.25, 0.5), "bottleneck"),
            Stage((1, 2), (24,), (3,), (2, 3.5), "mbconv", stride=2, act="h_swish", se=True),
        ),
        num_pools=1,
        in_channels=2,
        image_size=16,
        num_classes=3,
        resolutions=(11, 16),
        stem_width=8,
        head="mobile_head",
        head_widths=(16, 32),
    ),
    "odd_image_3_pools": NetworkSpace(
        "odd",
        (Stage((1, 3), (4, 6), (1, 3)), Stage((2,), (6,), (3, 7)), Stage((1, 2), (6,))),
        num_pools=3,
        image_size=13,
        in_channels=4,
        num_classes=3,
    ),
    "no_pool": NetworkSpace("no_pool", (Stage((1, 2), (4, 8), (3, 5)),), 0, 1, 5, 2),
}

# As they are searched, for what needs no weights; and one without a choice.
FULL_SIZE = {name: catalog.get(name) for name in catalog.SPACES} | {
    "single": NetworkSpace("single", (Stage((2,), (8,)),), 0)
}

CHOICES = {
    "choices": ChoiceSpace({"stem": ("conv3", "conv5"), "depth": (1, 2, 3), "se": (True, False), "act": (None, "h/s")}),
    "one_choice": ChoiceSpace({"only": (1,)}),
}

ALL = NETWORKS | CHOICES
POOLED = [name for name, space in NETWORKS.items() if space.num_pools]
