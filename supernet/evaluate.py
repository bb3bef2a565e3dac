"""Scoring a subnet: recalibrate its batch norms, then count correct answers. Always in fp32, on a private copy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet import evaluators
from supernet.data import ImageData, Split, normalize
from supernet.mixture import SharedWeights, make_supernet
from supernet.subnet import Subnet, resized

Channels = tuple[float, ...]  # one number a channel, in the scale of 0 to 1

BATCH = 250  # images at once: small enough for a CPU's caches, large enough for stable batch statistics


@torch.no_grad()
def recalibrate(subnet: Subnet, images: Tensor, mean: Channels, std: Channels) -> None:
    """Sets the batch norms' statistics to the cumulative average over `images`, and leaves `subnet` in eval mode.

    images: uint8 [n, C, H, W], seen without labels or augmentation, at the subnet's resolution. A supernet's own
    statistics mix all subnets, so a slice of it answers at chance until this is done (BigNAS A.8; Once-for-All uses
    2,000 training images).
    """
    norms = [m for m in subnet.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None asks torch for the cumulative average
    subnet.eval()
    for norm in norms:
        norm.train()
    for batch in _inputs(subnet, calibration_batches(images), mean, std):
        subnet(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    subnet.eval()


@torch.no_grad()
def predict(subnet: Subnet, images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Logits [n, classes] on the CPU for uint8 images [n, C, H, W]; `subnet` should be in eval mode.

    Images of another size than the subnet's resolution are resized as in the supernet's forward.
    """
    return torch.cat([subnet(batch).float().cpu() for batch in _inputs(subnet, images.split(BATCH), mean, std)])


def calibration_batches(images: Tensor) -> tuple[Tensor, ...]:
    """As few batches of up to `BATCH` images as there can be, equal but for one image.

    Each has the same say in a norm's statistics: a remainder of few images, or of one, would decide half of them.
    """
    return images.tensor_split(max(1, math.ceil(len(images) / BATCH)))


class NotFiniteError(ValueError):
    """A network computes no finite numbers."""

    def __init__(self, message: str = "the network's logits are not finite") -> None:
        super().__init__(message)


def count_correct(subnet: Subnet, split: Split, mean: Channels, std: Channels) -> int:
    """Images of `split` whose highest logit is the label's. Raises NotFiniteError when a logit is not finite."""
    logits = predict(subnet, split.images, mean, std)
    if not torch.isfinite(logits).all():
        raise NotFiniteError
    return int((logits.argmax(1) == split.labels.cpu()).sum())


class SupernetEvaluator:
    """Scores architectures of one supernet: export, recalibrate, top-1 (0 to 1) on the search-validation split.

    Runs on `threads` CPU threads whatever the process is set to, so that a score does not depend on who computes it.
    """

    def __init__(
        self,
        supernet: SharedWeights,
        calibration: Tensor,
        validation: Split,
        mean: Channels,
        std: Channels,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        self.supernet = supernet.to(device).eval()
        self.calibration, self.validation = calibration, validation
        self.mean, self.std, self.threads = mean, std, threads

    def evaluate(self, archs: Sequence[Arch]) -> list[dict[str, float]]:
        """`{"top1": …}` for each architecture."""
        with exactly(self.threads):
            return [self._score(arch) for arch in archs]

    def _score(self, arch: Arch) -> dict[str, float]:
        subnet = self.supernet.export(arch)
        recalibrate(subnet, self.calibration, self.mean, self.std)
        correct = count_correct(subnet, self.validation, self.mean, self.std)
        return {"top1": correct / len(self.validation.labels)}


def shared_arrays(weights: Mapping[str, Tensor], data: ImageData) -> dict[str, np.ndarray]:
    """What evaluators in other processes need, as arrays that an object store can share without copying.

    weights: the supernet's state dict. Only the calibration and search-validation splits are in it.
    """
    arrays = {f"weights.{name}": t.detach().cpu().numpy() for name, t in weights.items()}
    return arrays | {
        "calibration": data.calibration.images.numpy(),
        "validation": data.validation.images.numpy(),
        "labels": data.validation.labels.numpy(),
    }


def evaluator_from_arrays(
    space: Mapping[str, Any],
    mean: Channels,
    std: Channels,
    device: str,
    shared: Mapping[str, np.ndarray],
    members: int = 1,
    evaluator: str = "fast",
    **options: Any,
) -> Any:
    """The evaluator over `shared_arrays`, whose memory it uses in place and never writes to.

    space: `NetworkSpace.to_dict()`. device: "cpu" or "cuda". members: weight sets of the supernet.
    evaluator: a name in `supernet.evaluators.EVALUATORS`; options: what it takes beside what all take.
    """
    tensors = {name: readonly(array) for name, array in shared.items()}
    weights = {n.removeprefix("weights."): t for n, t in tensors.items() if n.startswith("weights.")}
    with torch.device("meta"):
        supernet = make_supernet(NetworkSpace.from_dict(space), members)
    supernet.load_state_dict(weights, assign=True)
    split = Split(tensors["validation"], tensors["labels"])
    return evaluators.get(evaluator)(supernet, tensors["calibration"], split, mean, std, device, **options)


def readonly(array: np.ndarray) -> Tensor:
    """A tensor over memory that may be write-protected; torch warns of that once, and nothing here writes."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _inputs(subnet: Subnet, batches: Iterable[Tensor], mean: Channels, std: Channels) -> Iterator[Tensor]:
    """Batches as the subnet takes them: normalised, at its resolution, on its device."""
    device = _device(subnet)
    for batch in batches:
        yield resized(normalize(batch, mean, std, device=device), subnet.plan.resolution)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


@contextmanager
def exactly(threads: int) -> Iterator[None]:
    """A fixed number of CPU threads; on a GPU fp32 that is no TF32, and the same kernels each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(before)
