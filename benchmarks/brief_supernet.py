"""A supernet that is trained for a minute: single paths under a limit, so that its subnets differ as real ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from search_spaces import catalog
from search_spaces.plan import plan
from supernet.data import ImageData, normalize
from supernet.model import Supernet

MOST_MACS = 40e6
_BATCH = 128


def trained(data: ImageData, steps: int, seed: int, keep: Path | None = None) -> Supernet:
    """`resnet_cifar` after `steps` of a uniform single path (SPOS) among its subnets of at most 40M MACs.

    keep: file that the weights are read from where it exists, and written to where it does not.
    """
    space = catalog.get("resnet_cifar")
    torch.manual_seed(seed)
    supernet = Supernet(space)
    if keep is not None and keep.exists():
        supernet.load_state_dict(load_file(keep))
        return supernet.eval()
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.SGD(supernet.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        while plan(space, arch := space.sample(rng)).macs > MOST_MACS:
            pass
        rows = torch.from_numpy(rng.integers(len(data.train.labels), size=_BATCH))
        images = normalize(data.train.images[rows], data.mean, data.std)
        images = images.flip(3) if rng.random() < 0.5 else images
        loss = F.cross_entropy(supernet(images.to(memory_format=torch.channels_last), arch), data.train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(supernet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    if keep is not None:
        save_file(supernet.state_dict(), keep)
    return supernet.eval()
