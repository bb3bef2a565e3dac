"""`Trainer`: one optimizer step after another on the shared weights.

Which subnets a step trains, how they are drawn, how the choices open up and what the loss is are parts named by the
recipe. Everything random in a step derives from the seed and the step number, except dropout and drop-connect, whose
generator state is in the checkpoint. So a run that was stopped and resumed reproduces the uninterrupted one, on a CPU
bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.arch import Arch
from search_spaces.network import NetworkSpace
from supernet import checkpoint, snapshot
from supernet.batches import steps_per_epoch
from supernet.channels import sort_channels
from supernet.data import ImageData, Split, fingerprint
from supernet.distill import DISTILLATIONS, label_loss
from supernet.distributed import ALONE, Ranks, step_seed, synchronize
from supernet.evaluate import NotFiniteError, count_correct, recalibrate
from supernet.layers import require_trainable
from supernet.mixture import Routing, SharedWeights, make_supernet, members_of
from supernet.mixup import mixup
from supernet.optim import bf16_autocast, learning_rate, make_average, make_optimizer, set_learning_rate
from supernet.probe import Probe
from supernet.recipe import TrainConfig
from supernet.samplers import SAMPLERS, Probes, Sampler
from supernet.shrink import SCHEDULES, Phase
from supernet.snapshot import TrainingError
from supernet.spikes import SpikeDetector
from supernet.steps import STEP_PLANS, StepContext, StepSubnet, largest_on, step_rng

VALIDATE_IMAGES = 1000  # per epoch, for the progress display alone
MOST_ROLLBACKS = 3


class SpikeError(TrainingError):
    """The loss of a step is not finite, or has jumped towards chance."""


class Trainer:
    """One training run, held in memory: supernet, optimizer and step counter.

    supernet: weights to train, moved to `device`. device: "auto", "cpu" or "cuda". teacher: teaches every subnet
    instead of the largest one, on the same images; in eval mode, logits [batch, num_classes]. ranks: the processes
    that train together; `rows` are those of each global batch that this one takes.
    Raises ValueError for a batch that cannot be dealt equally to the ranks, or not to all subnets of a step.
    """

    def __init__(
        self,
        supernet: SharedWeights,
        data: ImageData,
        config: TrainConfig,
        device: str = "auto",
        teacher: nn.Module | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.device = resolve_device(device)
        self.supernet = supernet.to(self.device).train()
        self.data, self.config = data.to(self.device), config
        self.teacher = teacher.to(self.device).eval() if teacher else None
        self._fingerprint = fingerprint(data)
        self.step = 0
        self.rollbacks = 0
        self.rolled_back_to = -1  # the step of the last rollback's state
        self.steps_per_epoch = steps_per_epoch(len(data.train.labels), config.images_per_step)
        self.total_steps = config.epochs * self.steps_per_epoch
        self.plan = STEP_PLANS[config.step_plan]
        self.ranks = ranks
        batch, parts = min(config.images_per_step, len(data.train.labels)), config.num_random if self.plan.parts else 1
        if batch < parts:
            raise ValueError(
                f"num_random is {parts}: step plan {config.step_plan!r} cannot deal {batch} training images to so many "
                f"subnets; valid: 1 to {batch}"
            )
        if ranks.size == 1:  # else a norm has the values of all ranks
            require_trainable(supernet.space, batch // parts)
        self.rows = ranks.rows(batch, parts)
        synchronize(supernet, ranks)
        space = supernet.space
        self.schedule = SCHEDULES[config.schedule](space, self.total_steps, self.steps_per_epoch, self.learning_rate)
        self.sampler = self.sampler_of(self.schedule.phase(0).space)
        self.routing = Routing(supernet, config, self.total_steps)
        self.optimizer = make_optimizer(supernet.named_parameters(), config)
        self.average = make_average(supernet, config)
        self.spikes = SpikeDetector(math.log(space.num_classes))
        self.autocast = bf16_autocast(self.device)
        self.probe = Probe(self.data, config.seed, self.autocast, ranks)
        torch.manual_seed(config.seed)  # dropout's generator

    @property
    def ready(self) -> SharedWeights:
        """The weights to validate and search: the averaged ones where the recipe has an average."""
        return cast(SharedWeights, self.average.module) if self.average else self.supernet

    def learning_rate(self, step: int) -> float:
        """The recipe's schedule, halved by every rollback."""
        return learning_rate(self.config, step, self.total_steps) * 0.5**self.rollbacks

    # One step

    def train_step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One optimizer step on normalised images [images_per_step, C, H, W] and labels [images_per_step].

        In distributed training they are this rank's `rows` of the batch; what is returned is of the whole batch.
        The gradients of the step's subnets are summed. Returns 0-d tensors: the mean loss of each role, and the first
        subnet's training `top1`. Raises SpikeError naming step and architectures on a loss that is not finite or has
        jumped towards chance; the weights then are those before the step.
        """
        if self.ranks.size > 1:
            torch.manual_seed(step_seed(self.config.seed, self.step, self.ranks.rank))
        images = images.to(memory_format=torch.channels_last)
        subnets = self.routing.begin_step(self.step, self._subnets(images, labels))
        set_learning_rate(self.optimizer, self.learning_rate(self.step))
        self.optimizer.zero_grad(set_to_none=True)
        losses, on_labels, top1 = self._backward(subnets, images, labels)
        grads = [p.grad for p in self.supernet.parameters() if p.grad is not None]
        self.ranks.average([*grads, *losses, on_labels, top1])
        norm = nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_norm)
        self._check(subnets, losses, on_labels, norm)
        self.optimizer.step()
        self.routing.end_step(subnets, lambda member, arch: self.probe.held_out_accuracy(member, arch, self.step))
        if self.average:
            self.average.update_parameters(self.supernet)
        self.step += 1
        means = {
            f"loss_{role}": torch.stack([loss for s, loss in zip(subnets, losses) if s.role == role]).mean()
            for role in dict.fromkeys(subnet.role for subnet in subnets)
        }
        return means | {"top1": top1}

    def _subnets(self, images: Tensor, labels: Tensor) -> list[StepSubnet]:
        """What this step trains, every loss scaled as the schedule wants."""
        if self.step in self.schedule.sort_steps():
            averages = members_of(self.ready) if self.average else [None] * len(self.routing.members)
            for member, average in zip(self.routing.members, averages):
                sort_channels(member, self.optimizer, average)
        phase = self.schedule.phase(self.step)
        context = self._context(phase, images, labels)
        subnets = [] if phase.largest_only else self.plan.subnets(context)
        if phase.largest_only or (phase.with_largest and not self.plan.teaches):
            # last, where it teaches nobody and its pooling decides on no other's member
            subnets += largest_on(context, parts=max((s.part for s in subnets), default=0) + 1)
        whole = self.supernet.space
        return [
            replace(s, arch=whole.canonical(s.arch), scale=s.scale * (1.0 if s.role == "max" else phase.beta))
            for s in subnets
        ]

    def _context(self, phase: Phase, images: Tensor, labels: Tensor) -> StepContext:
        """What this step's plan chooses from; before others than the largest are trained, none is probed."""
        config = self.config
        if phase.space != self.sampler.space:
            self.sampler = self.sampler_of(phase.space)
        probes = Probes(
            batch=lambda arch: self.probe.loss(self.supernet, arch, images, labels),
            held_out=lambda arch: self.probe.held_out_loss(self.supernet, arch),
        )
        if not phase.largest_only:
            self.sampler.begin_step(self.step, self.total_steps, probes)
        drawn: dict[int, Arch] = {}

        def draw(index: int) -> Arch:
            if index not in drawn:
                rng = step_rng(config.seed, self.step, index)
                blind = phase.largest_only and self.sampler.asks_probes
                drawn[index] = phase.space.sample(rng) if blind else self.sampler.draw(rng, probes)
            return drawn[index]

        shared = config.max_pooling == "shared" and phase.space.num_pools > 0
        return StepContext(
            phase.space, config.seed, self.step, config.num_random, shared, draw, self.sampler.matched_min
        )

    def _backward(
        self, subnets: list[StepSubnet], images: Tensor, labels: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Adds up the gradients. The unscaled loss of each subnet; the first one's loss on the labels, whatever it
        learns from, and its training top-1.
        """
        config, classes = self.config, self.supernet.space.num_classes
        mixed, targets = mixup(images, labels, classes, config.mixup, config.seed, self.step)
        parts = max(subnet.part for subnet in subnets) + 1
        # not `chunk`, which makes fewer parts of images too few to fill a batch
        views = list(zip(*(tensor.tensor_split(parts) for tensor in (mixed, targets, labels))))
        taught = self._outside_logits(mixed)
        taught_parts: Sequence[Tensor | None] = [None] * parts if taught is None else taught.tensor_split(parts)
        losses: list[Tensor] = []
        on_labels = top1 = images.new_zeros(())
        for subnet in subnets:
            x, y, true = views[subnet.part]
            loss, logits = self._loss(subnet, x, y, taught_parts[subnet.part])
            (loss * subnet.scale).backward()
            if not losses:
                on_labels = label_loss(logits.detach(), y, config.label_smoothing)
                top1 = (logits.argmax(1) == true).float().mean()
            if subnet.role == "max" and self.teacher is None:
                taught_parts = [logits.detach()] * parts
            losses.append(loss.detach())
        return losses, on_labels, top1

    def _loss(self, subnet: StepSubnet, x: Tensor, y: Tensor, taught: Tensor | None) -> tuple[Tensor, Tensor]:
        config, largest = self.config, subnet.role == "max"
        regularized = largest or not config.regularize_biggest_only
        with self.autocast():
            logits = self.routing.members[subnet.member](
                x,
                subnet.arch,
                dropout=config.dropout if regularized else 0.0,
                drop_connect=config.drop_connect if regularized else 0.0,
            )
        if taught is None:
            return label_loss(logits, y, config.label_smoothing), logits
        return DISTILLATIONS[config.loss](logits, taught, y, config.label_smoothing), logits

    def _check(self, subnets: list[StepSubnet], losses: list[Tensor], on_labels: Tensor, norm: Tensor) -> None:
        """Raises SpikeError unless losses and gradient are those of a training that goes well.

        A collapse shows in the loss on the labels alone: no value of a divergence from a teacher stands for guessing.
        """
        self.spikes.watch("max" if subnets[0].role == "max" else self.schedule.phase(self.step).name)
        finite = all(torch.isfinite(value) for value in (norm, on_labels, *losses))
        if self.spikes.is_spike(float(on_labels) if finite else math.nan):
            what = "is not finite" if not finite else f"has jumped to {self.spikes.fast:.3g}"
            raise SpikeError(
                f"the loss {what} at step {self.step} (lr {self.learning_rate(self.step):.3g}) in "
                f"{', '.join(s.arch.key for s in subnets)}"
            )

    @torch.no_grad()
    def _outside_logits(self, images: Tensor) -> Tensor | None:
        if self.teacher is None or self.config.loss == "none":
            return None
        with self.autocast():
            return self.teacher(images)

    def sampler_of(self, space: NetworkSpace) -> Sampler:
        """A fresh sampler of the recipe's kind, for the choices of a phase."""
        return SAMPLERS[self.config.sampler](space, self.config.seed)

    def validate(self) -> dict[str, float]:
        """Top-1 of the largest and the smallest subnet on part of the search-validation split.

        Raises SpikeError where one of them computes no finite numbers, or the largest guesses and did not before.
        """
        calibration = self.data.calibration.images[:VALIDATE_IMAGES]
        split = Split(self.data.validation.images[:VALIDATE_IMAGES], self.data.validation.labels[:VALIDATE_IMAGES])
        scores = {}
        for name, arch in (("max", self.supernet.space.largest()), ("min", self.supernet.space.smallest())):
            subnet = self.ready.export(arch)
            try:
                with self.autocast():
                    recalibrate(subnet, calibration, self.data.mean, self.data.std)
                    correct = count_correct(subnet, split, self.data.mean, self.data.std)
            except NotFiniteError as error:  # the epoch's last step broke what its own loss could not show yet
                raise SpikeError(f"{error} after step {self.step - 1}, validated in {arch.key}") from error
            scores[f"val_top1_{name}"] = correct / len(split.labels)
        top1, images = scores["val_top1_max"], len(split.labels)
        if self.spikes.is_lost(top1, guess=int(split.labels.bincount().max()) / images, images=images):
            raise SpikeError(
                f"the largest subnet's top-1 has fallen from {self.spikes.reached:.1%} to {top1:.1%}, that of guessing,"
                f" after step {self.step - 1}"
            )
        return scores

    # Its state

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one it resumes."""
        return {
            "space": self.supernet.space.to_dict(),
            "recipe": asdict(self.config),
            "data": self._fingerprint,
            "teacher": checkpoint.weights_hash(self.teacher.state_dict()) if self.teacher else None,
        }

    def require_agreement(self) -> None:
        """Raises RankError naming a rank that is not at the same step of the same run with the same weights."""
        if self.ranks.size > 1:
            weights = checkpoint.weights_hash(self.supernet.state_dict())
            self.ranks.require_agreement(**self.identity(), step=self.step, weights=weights)

    def save(self, path: Path) -> None:
        """Writes everything that `restore` needs, atomically; raises OSError when the disk is full."""
        snapshot.save(self, path)

    def restore(self, path: Path) -> None:
        """Takes up the run saved at `path`.

        Raises TrainingError naming what differs when it is a run of another space, recipe or data set, and
        CheckpointError naming the file when it cannot be read.
        """
        snapshot.restore(self, path)


def load_supernet(path: Path) -> tuple[SharedWeights, dict[str, Any]]:
    """The supernet of a checkpoint on the CPU, and the checkpoint's state (`step`, `total_steps`, `weights_hash`, …).

    Raises CheckpointError naming the file when it cannot be read.
    """
    tensors, state = checkpoint.load(path)
    supernet = make_supernet(NetworkSpace.from_dict(state["space"]), state["recipe"].get("members", 1))
    supernet.load_state_dict(checkpoint.select(tensors, "model"))
    return supernet, state


def require_device_name(name: str) -> None:
    """Raises ValueError for what names no device, on whatever machine."""
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; valid: auto, cpu, cuda")


def resolve_device(name: str) -> torch.device:
    """ "auto" takes CUDA where there is any. Raises ValueError for a device that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    require_device_name(name)
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; valid: auto, cpu")
    return torch.device(name)
