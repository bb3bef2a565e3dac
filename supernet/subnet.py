"""`Subnet`: one architecture as ordinary torch modules. What is scored, measured and shipped is always a `Subnet`.

Each kind of block has one forward function, written over named operations. The elastic supernet runs the very same
functions, so the two can differ in the weights they use but not in the network they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.plan import Block, Layer, Plan

Ops = Mapping[str, Callable[[Tensor], Tensor]]


ACTS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "h_swish": F.hardswish}


def _stem(ops: Ops, block: Block, x: Tensor) -> Tensor:
    return ACTS[block.act](ops["bn"](ops["conv"](x)))


def _imagenet_stem(ops: Ops, block: Block, x: Tensor) -> Tensor:
    return F.max_pool2d(_stem(ops, block, x), 3, stride=2, padding=1)


def _mobile_stem(ops: Ops, block: Block, x: Tensor) -> Tensor:
    x = _stem(ops, block, x)
    out = F.relu(ops["bn1"](ops["depthwise_conv"](x)))
    return x + ops["bn2"](ops["project_conv"](out))


def _basic(ops: Ops, block: Block, x: Tensor) -> Tensor:
    x = _pooled(block, x)
    out = F.relu(ops["bn1"](ops["conv1"](x)))
    out = ops["bn2"](ops["conv2"](out))
    return F.relu(out + _shortcut(ops, block, x))


def _bottleneck(ops: Ops, block: Block, x: Tensor) -> Tensor:
    x = _pooled(block, x)
    out = F.relu(ops["bn1"](ops["conv1"](x)))
    out = F.relu(ops["bn2"](ops["conv2"](out)))
    out = ops["bn3"](ops["conv3"](out))
    return F.relu(out + _shortcut(ops, block, x))


def _mbconv(ops: Ops, block: Block, x: Tensor) -> Tensor:
    x, act = _pooled(block, x), ACTS[block.act]
    out = act(ops["bn1"](ops["expand_conv"](x)))
    out = act(ops["bn2"](ops["depthwise_conv"](out)))
    if block.se:
        squeezed = F.relu(ops["se_conv1"](out.mean((2, 3), keepdim=True)))
        out = out * F.hardsigmoid(ops["se_conv2"](squeezed))
    out = ops["bn3"](ops["project_conv"](out))
    return x + out if block.residual else out


def _head(ops: Ops, block: Block, x: Tensor) -> Tensor:
    return ops["fc"](x.mean((2, 3)))


def _mobile_head(ops: Ops, block: Block, x: Tensor) -> Tensor:
    act = ACTS[block.act]
    x = act(ops["final_bn"](ops["final_conv"](x))).mean((2, 3), keepdim=True)
    return ops["fc"](act(ops["feature_conv"](x)).flatten(1))


FORWARDS: dict[str, Callable[[Ops, Block, Tensor], Tensor]] = {
    "stem": _stem,
    "imagenet_stem": _imagenet_stem,
    "mobile_stem": _mobile_stem,
    "basic": _basic,
    "bottleneck": _bottleneck,
    "mbconv": _mbconv,
    "head": _head,
    "mobile_head": _mobile_head,
}


def regularized(ops: Ops, block: Block, dropout: float, drop_connect: float, training: bool) -> Ops:
    """The operations of a block with dropout before its classifier, and with its residual branch left out at times.

    dropout: probability, per feature. drop_connect: probability, per image (stochastic depth, Huang et al. 2016).
    """
    changed = dict(ops)
    if dropout and "fc" in ops:
        changed["fc"] = lambda features: ops["fc"](F.dropout(features, dropout, training))
    if drop_connect:
        for name in [layer.name for layer in block.layers if layer.ends_residual]:
            changed[name] = partial(_dropped, ops[name], drop_connect, training)
    return changed


def _dropped(branch: Callable[[Tensor], Tensor], rate: float, training: bool, x: Tensor) -> Tensor:
    from torchvision.ops import stochastic_depth  # here: torchvision doubles what each search worker takes to import

    return stochastic_depth(branch(x), rate, "row", training)


def drop_connect_rates(rate: float, blocks: int) -> list[float]:
    """What each of the body's blocks is left out with: growing linearly from 0 to `rate` at the last."""
    return [rate * i / (blocks - 1) for i in range(blocks)]


def _pooled(block: Block, x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) if block.pool else x


def _shortcut(ops: Ops, block: Block, x: Tensor) -> Tensor:
    if block.stride > 1:  # averaged rather than skipped over, so that no pixel is lost (BigNAS)
        x = F.avg_pool2d(x, block.stride, ceil_mode=True)
    return ops["shortcut_bn"](ops["shortcut_conv"](x)) if block.project else x


def resized(images: Tensor, resolution: int) -> Tensor:
    """Float images [batch, C, H, W] → [batch, C, resolution, resolution], untouched where they have that size.

    Bicubic as in BigNAS, and antialiased: a smaller image then is one that was smaller from the start, as a user's
    will be, and not one that skips pixels. Elastic forward, evaluation and the exported `preprocess` all do this.
    """
    if images.shape[-2:] == (resolution, resolution):
        return images
    return F.interpolate(images, (resolution, resolution), mode="bicubic", antialias=True)


class PlainBlock(nn.Module):
    """A block of the plan, its layers as children under their plan names."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block
        for layer in block.layers:
            self.add_module(layer.name, plain_layer(layer))

    def forward(self, x: Tensor, dropout: float = 0.0, drop_connect: float = 0.0) -> Tensor:
        """[batch, in_channels, in_size, in_size] → [batch, out_channels, out_size, out_size] (head: logits)."""
        ops: Ops = self._modules  # type: ignore[assignment]
        if dropout or drop_connect:
            ops = regularized(ops, self.block, dropout, drop_connect, self.training)
        return FORWARDS[self.block.kind](ops, self.block, x)


class Subnet(nn.Module):
    """The network of a plan: images [batch, in_channels, resolution, resolution] → logits [batch, num_classes].

    Its state dict has the names that an exported `model.py` uses: `stem.conv.weight`, `blocks.0.conv1.weight`, …,
    `head.fc.bias`.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.stem = PlainBlock(plan.blocks[0])
        self.blocks = nn.Sequential(*(PlainBlock(block) for block in plan.blocks[1:-1]))
        self.head = PlainBlock(plan.blocks[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Normalised float images → logits."""
        return self.head(self.blocks(self.stem(x)))

    def plain_blocks(self) -> list[PlainBlock]:
        """Stem, blocks and head, one for each block of the plan."""
        return [self.stem, *self.blocks, self.head]


def plain_layer(layer: Layer) -> nn.Module:
    """The torch module of one layer, its weights not initialised to anything in particular."""
    if layer.op == "linear":
        return nn.Linear(layer.in_channels, layer.out_channels)
    if layer.op == "norm":
        return nn.BatchNorm2d(layer.out_channels)
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel,
        layer.stride,
        padding=layer.kernel // 2,
        groups=layer.groups,
        bias=layer.bias,
    )


def count_params(model: nn.Module) -> int:
    """Trainable parameters, counted on the module itself: the independent check of the plan's figure."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds for one image, counted by torch's own FLOP counter on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    was_training = model.training
    params = {name: p.to("meta") for name, p in (*model.named_parameters(), *model.named_buffers())}
    counter = FlopCounterMode(display=False)
    model.eval()
    with counter, torch.no_grad():
        torch.func.functional_call(model, params, (torch.empty(1, *image_shape, device="meta"),))
    model.train(was_training)
    return counter.get_total_flops() // 2
