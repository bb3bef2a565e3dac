"""The optimizer and its learning rate, for a supernet and for a network trained alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from supernet.recipe import TrainConfig

NamedParameters = Iterable[tuple[str, nn.Parameter]]
Tensors = tuple[Tensor, ...] | list[Tensor]


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Linear warm-up over the first `config.warmup` of the run, then cosine to 0."""
    warm = int(config.warmup * total_steps)
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total_steps - warm)))


def make_optimizer(parameters: NamedParameters, config: TrainConfig) -> Optimizer:
    """The optimizer `config.optimizer`; weights of convolutions and linear layers decay, nothing else does.

    parameters: with their names in the module, which tell a kernel from a batch norm's vector or a kernel transform.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, param in parameters:
        (decayed if _is_weight(name, param) else plain).append(param)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return OPTIMIZERS[config.optimizer](groups, config)


def make_average(model: nn.Module, config: TrainConfig) -> AveragedModel | None:
    """The exponential moving average of the weights that the recipe wants, or None; `module` is what is averaged.

    After n updates it keeps min(ema, (1 + n) / (10 + n)) of itself at the next, as TensorFlow's averages do: with 0.999
    throughout, a third of it would still be initial noise after a thousand steps.
    """
    if not config.ema:
        return None

    def update(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        n = int(updates)
        kept = min(config.ema, (1 + n) / (10 + n))
        get_ema_multi_avg_fn(kept)(averaged, current, updates)

    return AveragedModel(model, multi_avg_fn=update)


def set_learning_rate(optimizer: Optimizer, value: float) -> None:
    """Gives every parameter group the learning rate `value`."""
    for group in optimizer.param_groups:
        group["lr"] = value


def bf16_autocast(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Autocast to bf16 where the hardware gains by it, else full precision.

    On a CPU that takes matrix units (AMX): with AVX-512's bf16 instructions alone a ResNet-20 trains at 0.8 times the
    speed of fp32 (benchmarks/README.md), and without either ten times slower.
    """
    supported = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_amx_tile_supported()
    return (lambda: torch.autocast(device.type, torch.bfloat16)) if supported else nullcontext


def _is_weight(name: str, param: nn.Parameter) -> bool:
    """Kernels and matrices: neither a vector, nor the per-level stack of vectors of an elastic batch norm."""
    return param.ndim >= 2 and name.endswith(".weight") and "bn" not in name.split(".")[-2]


def _sgd(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def _adamw(groups: list[dict[str, Any]], config: TrainConfig) -> Optimizer:
    return AdamW(groups, lr=config.lr, betas=(float(config.momentum), 0.999))


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], TrainConfig], Optimizer]] = {"sgd": _sgd, "adamw": _adamw}
