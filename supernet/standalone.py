"""Training one architecture alone, with the recipe that its supernet was trained with: what a shared weight's score is
held against.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.plan import Plan
from supernet.batches import steps_per_epoch, train_batches
from supernet.data import ImageData
from supernet.distill import DISTILLATIONS, label_loss
from supernet.mixup import mixup
from supernet.optim import bf16_autocast, learning_rate, make_average, make_optimizer, set_learning_rate
from supernet.recipe import TrainConfig
from supernet.subnet import Subnet, drop_connect_rates, resized
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
    *,
    largest: bool = False,
    teacher: nn.Module | None = None,
    start: Subnet | None = None,
    on_epoch: Callable[[Subnet], None] = lambda subnet: None,
) -> Subnet:
    """A `Subnet` of `plan` trained on `data.train`, from scratch or from `start`; in training mode on `device`.

    All of the recipe that is about one network holds: optimizer, learning rate over the run, batch size, augmentation,
    mixup, label smoothing, gradient clipping, averaged weights, autocast and an outside teacher; its epochs and seed
    do not. largest: whether `plan` is the space's largest network, for which dropout and drop-connect are kept where
    the recipe regularises the biggest alone and trains it as such. teacher: as the trainer of the supernet had it.
    seed: decides initial weights and batches; equal arguments give equal weights on a CPU, bit for bit, and the
    process's own random state is left as it was. on_record: `step` and `loss`, every few steps.
    start: of this plan, left as it is. on_epoch: gets the network after each epoch, to read and not to change.
    Raises TrainingError naming the step when the gradient is not finite; ValueError for fewer than one epoch, or a
    device that this machine does not have.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; valid: at least 1")
    place = resolve_device(device)
    if config.regularize_biggest_only and not (largest and config.trains_largest):
        config = replace(config, dropout=0.0, drop_connect=0.0)
    data = replace(data, train=data.train.to(place))
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        torch.manual_seed(seed)
        subnet = initialised(plan, seed) if start is None else copy.deepcopy(start)
        learner = _Alone(subnet.to(place).train(), config, teacher.to(place).eval() if teacher else None)
        total = epochs * steps_per_epoch(len(data.train), config.batch_size)
        step = 0
        for epoch in range(epochs):
            for _, images, labels in train_batches(data, config.batch_size, seed, epoch):
                loss = learner.step(images, labels, seed, step, total)
                step += 1
                if step % LOG_EVERY == 0 or step == total:
                    on_record({"step": step, "loss": round(float(loss), 6)})
            on_epoch(learner.ready)
    return learner.ready


class _Alone:
    """One network, its optimizer and the average of its weights."""

    def __init__(self, subnet: Subnet, config: TrainConfig, teacher: nn.Module | None) -> None:
        self.subnet, self.config, self.teacher = subnet, config, teacher
        self.optimizer = make_optimizer(subnet.named_parameters(), config)
        self.average = make_average(subnet, config)
        self.autocast = bf16_autocast(next(subnet.parameters()).device)

    @property
    def ready(self) -> Subnet:
        return cast(Subnet, self.average.module) if self.average else self.subnet

    def step(self, images: Tensor, labels: Tensor, seed: int, step: int, total: int) -> Tensor:
        """One optimizer step on normalised images; the loss, 0-d."""
        config, lr = self.config, learning_rate(self.config, step, total)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(*mixup(images, labels, self.subnet.plan.num_classes, config.mixup, seed, step))
        loss.backward()
        if not torch.isfinite(nn.utils.clip_grad_norm_(self.subnet.parameters(), config.clip_norm)):
            raise TrainingError(
                f"the gradient of the network trained alone is not finite at step {step} of {total} (lr {lr:.3g}); "
                f"the recipe's lr is {config.lr}: another seed may do, or a supernet trained with a lower one"
            )
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.subnet)
        return loss.detach()

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        config = self.config
        images = images.to(memory_format=torch.channels_last)
        with self.autocast():
            logits = self._forward(images)
        if self.teacher is None or config.loss == "none":
            return label_loss(logits, targets, config.label_smoothing)
        with torch.no_grad(), self.autocast():
            taught = self.teacher(images)
        return DISTILLATIONS[config.loss](logits, taught, targets, config.label_smoothing)

    def _forward(self, images: Tensor) -> Tensor:
        """What the subnet computes, with dropout and drop-connect as the supernet's forward has them."""
        *body, head = self.subnet.plain_blocks()
        x = resized(images, self.subnet.plan.resolution)
        for block, rate in zip(body, drop_connect_rates(self.config.drop_connect, len(body))):
            x = block(x, drop_connect=rate)
        return head(x, dropout=self.config.dropout)


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
