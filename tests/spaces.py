"""Every space that the contract tests run on: the catalog, and shapes that the catalog has not."""

from __future__ import annotations

from search_spaces import catalog
from search_spaces.network import NetworkSpace, Stage
from search_spaces.space import ChoiceSpace

NETWORKS: dict[str, NetworkSpace] = {name: catalog.get(name) for name in catalog.SPACES} | {
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

CHOICES = {
    "choices": ChoiceSpace({"stem": ("conv3", "conv5"), "depth": (1, 2, 3), "se": (True, False), "act": (None, "h/s")}),
    "one_choice": ChoiceSpace({"only": (1,)}),
}

ALL = NETWORKS | CHOICES
