"""Training one architecture alone, with the recipe that its supernet was trained with: what a shared weight's score is
held against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.plan import Plan
from supernet.data import ImageData, steps_per_epoch, train_batches
from supernet.optim import bf16_autocast, learning_rate, make_optimizer, set_learning_rate
from supernet.recipe import TrainConfig
from supernet.subnet import Subnet, resized
from supernet.train import TrainingError, resolve_device

LOG_EVERY = 10  # steps between records: reading a loss makes an accelerator wait


def train_alone(
    plan: Plan,
    data: ImageData,
    config: TrainConfig,
    epochs: int,
    seed: int,
    device: str = "auto",
    on_record: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Subnet:
    """A `Subnet` of `plan` trained from scratch on `data.train`, in training mode on `device`.

    Optimizer, learning rate over the run, batch size, augmentation, label smoothing, gradient clipping and autocast
    are those of `config`; its epochs and seed are not. What the recipe does to the shared weights (dropout and
    drop-connect of the largest subnet, distillation, sampling, averaging) and mixup are left out.
    seed: decides initial weights and batches; equal arguments give equal weights on a CPU, bit for bit, and the
    process's own random state is left as it was. on_record: `step` and `loss`, every few steps.
    Raises TrainingError naming the step when the gradient is not finite; ValueError for fewer than one epoch, or a
    device that this machine does not have.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; valid: at least 1")
    place = resolve_device(device)
    subnet = initialised(plan, seed).to(place).train()
    data = replace(data, train=data.train.to(place))
    optimizer, autocast = make_optimizer(subnet.named_parameters(), config), bf16_autocast(place)
    total = epochs * steps_per_epoch(len(data.train), config.batch_size)
    step = 0
    for epoch in range(epochs):
        for _, images, labels in train_batches(data, config.batch_size, seed, epoch):
            set_learning_rate(optimizer, learning_rate(config, step, total))
            optimizer.zero_grad(set_to_none=True)
            with autocast():
                logits = subnet(resized(images, plan.resolution).to(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
            loss.backward()
            if not torch.isfinite(nn.utils.clip_grad_norm_(subnet.parameters(), config.clip_norm)):
                raise TrainingError(
                    f"the gradient of the network trained alone is not finite at step {step} of {total} "
                    f"(lr {learning_rate(config, step, total):.3g}); the recipe's lr is {config.lr}"
                )
            optimizer.step()
            step += 1
            if step % LOG_EVERY == 0 or step == total:
                on_record({"step": step, "loss": round(float(loss.detach()), 6)})
    return subnet


def initialised(plan: Plan, seed: int) -> Subnet:
    """An untrained `Subnet` on the CPU, its weights drawn as a supernet's are: He's normal distribution over the
    outputs for convolutions, and a residual branch that starts at 0 (BigNAS, Yu et al. 2020).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        subnet = Subnet(plan)
        for block in subnet.plain_blocks():
            for layer in block.block.layers:
                module = block.get_submodule(layer.name)
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
                elif layer.ends_residual:
                    nn.init.zeros_(module.weight)  # type: ignore[arg-type]
    return subnet
