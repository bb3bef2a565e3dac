"""How long networks take on this device: warmed up, interleaved, repeated until the figure is sharp or time is up.

Machines are noisy. So everything is measured in turns, round after round, and what slows the machine for a while slows
all alike; a call during which another process had the processor is left out, and counted.
"""

from __future__ import annotations

import io
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

Call = Callable[[], object]
Shape = tuple[int, int, int, int]
Sample = tuple[float, float]  # wall and processor milliseconds of the calling thread

_IN_A_ROW = 3  # timed calls of one network in a round, after one that is not
_LEAST_ROUNDS = 5
_DISTURBED = 1.05  # wall time over processor time, relative to the least of all calls
_LEAST_KEPT = 0.25  # of the calls: where most are disturbed, the least disturbed ones count
_NARROW = 0.02  # half of the median's 95 % interval, relative to it


class RuntimeUnavailableError(ValueError):
    """This machine lacks the runtime, or the device; the message says what to install or what is valid."""


@dataclass(frozen=True)
class Setting:
    """What a latency is measured with. Raises ValueError naming what is not valid.

    runtime: a key of `RUNTIMES`. device: "cpu" or "cuda". threads: that one inference may use on a CPU.
    batch_size: images in one inference.
    """

    runtime: str = "torch"
    device: str = "cpu"
    threads: int = 1
    batch_size: int = 1

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise ValueError(f"unknown runtime {self.runtime!r}; valid: {', '.join(RUNTIMES)}")
        if self.device not in ("cpu", "cuda"):
            raise ValueError(f"unknown device {self.device!r}; valid: cpu, cuda")
        for name in ("threads", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; valid: an integer of at least 1")

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.device == "cpu" else ""
        return f"{self.runtime} on {self.device}{threads}, batch {self.batch_size}"


@dataclass(frozen=True)
class Timing:
    """Milliseconds for one inference.

    n: calls that count, `outliers` left out. interval_ms: half of the median's 95 % interval.
    """

    median_ms: float
    p90_ms: float
    interval_ms: float
    n: int
    outliers: int

    @property
    def narrow(self) -> bool:
        """Whether measuring ended because the figure is sharp, and not because time was up."""
        return self.interval_ms <= _NARROW * self.median_ms

    def scaled(self, factor: float) -> Timing:
        """Of a machine that many times as slow."""
        times = {name: factor * getattr(self, name) for name in ("median_ms", "p90_ms", "interval_ms")}
        return replace(self, **times)


def measure(calls: Sequence[Call], seconds: float, on_round: Callable[[], None] = lambda: None) -> list[Timing]:
    """Times each call, in turns, until all figures are narrow, or for `seconds` and five rounds at least.

    on_round: called after each round.
    """
    samples: list[list[Sample]] = [[] for _ in calls]
    end, rounds = time.monotonic() + seconds, 0
    while rounds < _LEAST_ROUNDS or (time.monotonic() < end and not all(timing(s).narrow for s in samples)):
        for call, taken in zip(calls, samples):
            call()  # what ran before has emptied the caches
            taken += [_sample(call) for _ in range(_IN_A_ROW)]
        rounds += 1
        on_round()
    return [timing(taken) for taken in samples]


def _sample(call: Call) -> Sample:
    processor, wall = time.thread_time(), time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - processor)


def timing(samples: Sequence[Sample]) -> Timing:
    """What samples of (wall, processor) milliseconds come to.

    A call that waited while another process had the processor has more wall time, beside its processor time, than one
    that did not.
    """
    wall, processor = np.array(samples).T
    waited = wall / np.maximum(processor, 1e-6)
    kept = wall[waited <= max(_DISTURBED * waited.min(), np.quantile(waited, _LEAST_KEPT))]
    low, median, high, p90 = np.quantile(kept, (0.25, 0.5, 0.75, 0.9))
    # the interval of a notched box plot (McGill et al. 1978)
    interval = 1.57 * (high - low) / math.sqrt(len(kept))
    return Timing(float(median), float(p90), float(interval), len(kept), len(wall) - len(kept))


@contextmanager
def prepared(setting: Setting, nets: Sequence[tuple[nn.Module, Shape]]) -> Iterator[list[Call]]:
    """One inference of each network in eval mode, on random inputs of these shapes, ready to be timed.

    Raises RuntimeUnavailableError where the runtime or the device is not there.
    """
    require(setting)
    threads = torch.get_num_threads()
    torch.set_num_threads(setting.threads)
    try:
        yield [RUNTIMES[setting.runtime](net.eval(), shape, setting) for net, shape in nets]
    finally:
        torch.set_num_threads(threads)


def require(setting: Setting) -> None:
    """Raises RuntimeUnavailableError where the runtime or the device is not on this machine."""
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailableError("this machine has no GPU that torch can use; valid devices: cpu")
    if setting.runtime == "onnxruntime":
        try:
            import onnx  # noqa: F401
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"the runtime onnxruntime needs a package that is not installed ({error.name}): "
                "pip install 'nas-service[onnx]'"
            ) from None
        provider = _PROVIDERS[setting.device]
        if provider not in onnxruntime.get_available_providers():
            raise RuntimeUnavailableError(f"this onnxruntime has no {provider}; install onnxruntime-gpu for a GPU")


def identity(setting: Setting) -> dict[str, Any]:
    """What makes two measurements comparable: the setting, the device by name, the runtime's version."""
    package = "onnxruntime-gpu" if setting.runtime == "onnxruntime" and setting.device == "cuda" else setting.runtime
    try:
        release = version(package)
    except PackageNotFoundError:
        release = "unknown"
    return {**asdict(setting), "device_name": device_name(setting.device), "runtime_version": release}


def device_name(device: str) -> str:
    """The name of the processor, or of the GPU."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _torch(net: nn.Module, shape: Shape, setting: Setting) -> Call:
    net, images = net.to(setting.device), torch.randn(shape, device=setting.device)
    on_gpu = setting.device == "cuda"

    @torch.no_grad()
    def call() -> object:
        output = net(images)
        if on_gpu:
            torch.cuda.synchronize()
        return output

    return call


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def _onnxruntime(net: nn.Module, shape: Shape, setting: Setting) -> Call:
    import onnxruntime

    images, file = torch.randn(shape), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The exporter by tracing takes 0.1 s where that of `nas export` takes 6, and gives the same operators.
        torch.onnx.export(
            net.cpu(), (images,), cast(Any, file), dynamo=False, input_names=["input"], output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = setting.threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=[_PROVIDERS[setting.device]])
    inputs = {"input": images.numpy()}
    return lambda: session.run(None, inputs)[0]


RUNTIMES: dict[str, Callable[[nn.Module, Shape, Setting], Call]] = {"torch": _torch, "onnxruntime": _onnxruntime}
