"""Training the shared weights: the sandwich rule with in-place distillation (BigNAS, Yu et al. 2020).

Everything random in a step derives from the seed and the step number, except dropout, whose generator state is in the
checkpoint. So a run that was stopped and resumed reproduces the uninterrupted one, on a CPU bit for bit.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supernet import checkpoint
from supernet.data import ImageData, Split, fingerprint, steps_per_epoch, train_batches
from supernet.distill import soft_cross_entropy
from supernet.evaluate import count_correct, recalibrate
from supernet.model import Supernet
from supernet.recipe import TrainConfig
from supernet.sampling import SAMPLERS, StepSubnet, sandwich

LOG_EVERY = 10  # steps between metric records: reading a loss makes an accelerator wait
SAVE_SECONDS = 120.0  # between checkpoints inside an epoch
VALIDATE_IMAGES = 1000  # per epoch, for the progress display alone


class TrainingError(RuntimeError):
    """Training cannot go on or be resumed; the message says why and what to do."""


@dataclass
class Hooks:
    """What a caller may attach to a run.

    on_record: receives every metric record as it is written. should_stop: asked after every step; True ends the run
    with a checkpoint.
    """

    on_record: Callable[[dict[str, Any]], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False


class Trainer:
    """One training run, held in memory: supernet, optimizer and step counter.

    supernet: weights to train, moved to `device`. device: "auto", "cpu" or "cuda".
    """

    def __init__(self, supernet: Supernet, data: ImageData, config: TrainConfig, device: str = "auto") -> None:
        self.device = resolve_device(device)
        self.supernet = supernet.to(self.device).train()
        self.data, self.config = data.to(self.device), config
        self._fingerprint = fingerprint(data)
        self.step = 0
        self.steps_per_epoch = steps_per_epoch(len(data.train.labels), config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        self.optimizer = _optimizer(supernet, config)
        self.autocast = _autocast(self.device)
        torch.manual_seed(config.seed)  # dropout's generator

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over the first part of the run, then cosine to 0."""
        warm = int(self.config.warmup * self.total_steps)
        if step < warm:
            return self.config.lr * (step + 1) / warm
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.total_steps - warm)))

    def train_step(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One optimizer step on normalised images [batch, C, H, W] and labels [batch].

        The gradients of the step's subnets are summed. Returns 0-d tensors: the mean loss of each role, and the
        largest subnet's training `top1`. Raises TrainingError naming step and architectures on a loss that is not
        finite; the weights then are those before the step.
        """
        subnets = sandwich(
            self.supernet.space, SAMPLERS[self.config.sampler], self.config.seed, self.step, self.config.num_random
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        images = images.to(memory_format=torch.channels_last)
        losses: dict[str, list[Tensor]] = {}
        teacher = images.new_zeros(())
        for subnet in subnets:
            loss, logits = self._loss(subnet, images, labels, teacher)
            loss.backward()
            losses.setdefault(subnet.role, []).append(loss.detach())
            if subnet.role == "max":
                teacher = logits.detach()
        norm = nn.utils.clip_grad_norm_(self.supernet.parameters(), self.config.clip_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"the gradient is not finite at step {self.step} (lr {self.learning_rate(self.step):.3g}) in "
                f"{', '.join(s.arch.key for s in subnets)}; try a lower lr than {self.config.lr}"
            )
        self.optimizer.step()
        self.step += 1
        means = {f"loss_{role}": torch.stack(values).mean() for role, values in losses.items()}
        return means | {"top1": (teacher.argmax(1) == labels).float().mean()}

    def _loss(self, subnet: StepSubnet, images: Tensor, labels: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        largest = subnet.role == "max"
        with self.autocast():
            logits = self.supernet(images, subnet.arch, dropout=self.config.dropout if largest else 0.0)
        if largest:
            return F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing), logits
        return soft_cross_entropy(logits, teacher), logits

    def validate(self) -> dict[str, float]:
        """Top-1 of the largest and the smallest subnet on part of the search-validation split."""
        calibration = self.data.calibration.images[:VALIDATE_IMAGES]
        split = Split(self.data.validation.images[:VALIDATE_IMAGES], self.data.validation.labels[:VALIDATE_IMAGES])
        scores = {}
        for name, arch in (("max", self.supernet.space.largest()), ("min", self.supernet.space.smallest())):
            subnet = self.supernet.export(arch)
            with self.autocast():
                recalibrate(subnet, calibration, self.data.mean, self.data.std)
                scores[f"val_top1_{name}"] = count_correct(subnet, split, self.data.mean, self.data.std) / len(
                    split.labels
                )
        return scores

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one it resumes."""
        return {
            "space": self.supernet.space.to_dict(),
            "recipe": asdict(self.config),
            "data": self._fingerprint,
        }

    def save(self, path: Path) -> None:
        """Writes everything that `restore` needs, atomically; raises OSError when the disk is full."""
        weights = self.supernet.state_dict()
        momenta = {
            f"momentum.{name}": self.optimizer.state[p]["momentum_buffer"]
            for name, p in self.supernet.named_parameters()
            if self.optimizer.state.get(p, {}).get("momentum_buffer") is not None
        }
        tensors = {f"model.{name}": t for name, t in weights.items()} | momenta
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        state = self.identity() | {
            "step": self.step,
            "total_steps": self.total_steps,
            "weights_hash": checkpoint.weights_hash(weights),
        }
        checkpoint.save(path, tensors, state)

    def restore(self, path: Path) -> None:
        """Takes up the run saved at `path`.

        Raises TrainingError naming what differs when it is a run of another space, recipe or data set, and
        CheckpointError naming the file when it cannot be read.
        """
        tensors, state = checkpoint.load(path)
        if differs := _differences(state, self.identity()):
            raise TrainingError(f"cannot resume {path}: {'; '.join(differs)}")
        self.supernet.load_state_dict(checkpoint.select(tensors, "model"))
        params = dict(self.supernet.named_parameters())
        for name, momentum in checkpoint.select(tensors, "momentum").items():
            self.optimizer.state[params[name]]["momentum_buffer"] = momentum.to(self.device)
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step = int(state["step"])


def fit(trainer: Trainer, checkpoint_path: Path, metrics_path: Path, hooks: Hooks | None = None) -> bool:
    """Trains to the end; True when it got there, False when `hooks.should_stop` ended it with a checkpoint.

    metrics_path: JSON lines, one record every few steps and one an epoch; records after the trainer's current step
    (written before a crash) are removed first, so that a resumed run's file has no step twice.
    """
    hooks = hooks or Hooks()
    _truncate_records(metrics_path, trainer.step)
    last_save = time.monotonic()
    with open(metrics_path, "a", encoding="utf-8") as file:

        def record(values: Mapping[str, Any]) -> None:
            file.write(json.dumps(values) + "\n")
            file.flush()
            hooks.on_record(dict(values))

        while trainer.step < trainer.total_steps:
            epoch, start = divmod(trainer.step, trainer.steps_per_epoch)
            tick, ticked = time.monotonic(), trainer.step
            batches = train_batches(trainer.data, trainer.config.batch_size, trainer.config.seed, epoch, start)
            for _, images, labels in batches:
                metrics = trainer.train_step(images.to(trainer.device), labels.to(trainer.device))
                if trainer.step % LOG_EVERY == 0 or trainer.step == trainer.total_steps:
                    now = time.monotonic()
                    speed = (trainer.step - ticked) * trainer.config.batch_size / (now - tick)
                    tick, ticked = now, trainer.step
                    record(_step_record(trainer, epoch, metrics, speed))
                if hooks.should_stop() and trainer.step % trainer.steps_per_epoch:
                    trainer.save(checkpoint_path)
                    return False
                if time.monotonic() - last_save > SAVE_SECONDS:
                    trainer.save(checkpoint_path)
                    last_save = time.monotonic()
            record({"step": trainer.step, "epoch": epoch + 1, **trainer.validate()})
            trainer.save(checkpoint_path)
            last_save = time.monotonic()
            if hooks.should_stop() and trainer.step < trainer.total_steps:
                return False
    return True


def load_supernet(path: Path) -> tuple[Supernet, dict[str, Any]]:
    """The supernet of a checkpoint on the CPU, and the checkpoint's state (`step`, `total_steps`, `weights_hash`, …).

    Raises CheckpointError naming the file when it cannot be read.
    """
    from search_spaces.network import NetworkSpace

    tensors, state = checkpoint.load(path)
    supernet = Supernet(NetworkSpace.from_dict(state["space"]))
    supernet.load_state_dict(checkpoint.select(tensors, "model"))
    return supernet, state


def resolve_device(name: str) -> torch.device:
    """ "auto" takes CUDA where there is any. Raises ValueError for a device that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; valid: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; valid: auto, cpu")
    return torch.device(name)


def _step_record(trainer: Trainer, epoch: int, metrics: Mapping[str, Tensor], speed: float) -> dict[str, Any]:
    values = {name: round(float(value), 6) for name, value in metrics.items()}
    lr = trainer.learning_rate(trainer.step - 1)
    return {"step": trainer.step, "epoch": epoch + 1, "lr": lr, **values, "images_per_s": round(speed, 1)}


def _optimizer(supernet: Supernet, config: TrainConfig) -> torch.optim.SGD:
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, param in supernet.named_parameters():
        is_weight = param.ndim >= 2 and ("conv" in name or "fc" in name) and "transforms" not in name
        (decayed if is_weight else plain).append(param)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def _autocast(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """bf16 where the hardware computes in it, else full precision."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported()
    else:
        supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (lambda: torch.autocast(device.type, torch.bfloat16)) if supported else nullcontext


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    found = []
    for part in ("space", "recipe"):
        for name in sorted(set(saved[part]) | set(now[part])):
            old, new = saved[part].get(name), now[part].get(name)
            if old != new:
                found.append(f"{part} {name} was {old!r} and is now {new!r}")
    if saved["data"] != now["data"]:
        found.append("the images, labels or splits are not those it was trained on")
    return found


def _truncate_records(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, KeyError, TypeError):  # a line torn by a crash is no record
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    path.write_text("".join(kept), encoding="utf-8")
