"""How well latencies of subnets are predicted that the device profile has not seen.

    python benchmarks/latency_model.py [--spaces resnet_cifar mobilenet_v3] [--runtimes torch onnxruntime]
        [--held-out 60] [--seconds 240] [--threads 1] [--seed 0] [-o DIR]

For each space and runtime: a profile with the settings of `nas profile`, but for further subnets, drawn at random, that
are measured in the same turns and left out of it. Prints for both the sum over blocks and the corrected model
Spearman's rank correlation (0.98 or more is the aim), the median error (6 % or less) and the 90th percentile. Then the
left-out subnets are measured alone, twice: how they agree with each other and with the prediction is what the machine's
drift from minute to minute leaves of it. -o: keeps the profiles there.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from nas.latency_model import Errors
from nas.profiles import Profile
from nas.profiling import measure_archs, measure_space
from search_spaces.arch import Arch
from search_spaces.catalog import SPACES
from workers.latency import RUNTIMES, Setting, Timing, identity


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spaces", nargs="+", default=["resnet_cifar", "mobilenet_v3"], choices=list(SPACES))
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=list(RUNTIMES))
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=240, help="of measuring each profile")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    print(f"load {os.getloadavg()[0]:.1f}, {describe()}; {args.held_out} held-out subnets, seed {args.seed}")
    for name in args.spaces:
        for runtime in args.runtimes:
            space, setting = SPACES[name](), Setting(runtime, threads=args.threads)
            both = measure_space(space, setting, 400, 120 + args.held_out, args.seconds, args.seed)
            profile = Profile.of(
                f"{name}-{runtime}", space, identity(setting), replace(both, archs=both.archs[: -args.held_out])
            )
            if args.out:
                profile.write(args.out / f"{profile.name}.json")
            report(profile, setting, both.archs[-args.held_out :], args.seconds / 4)


def report(profile: Profile, setting: Setting, held_out: list[tuple[Arch, Timing]], seconds: float) -> None:
    archs, truth = [arch for arch, _ in held_out], milliseconds([timing for _, timing in held_out])
    print(f"\n{profile.space.name}, {profile.device_text}: {truth.min():.3g} to {truth.max():.3g} ms")
    predicted = profile.model.predict(archs)
    print_errors("blocks added up", Errors.of(profile.model.added(archs), truth))
    print_errors("corrected", Errors.of(predicted, truth))
    print(f"  above the prediction and its margin: {np.mean(truth > predicted * (1 + profile.errors.margin)):.1%}")
    first, second = (milliseconds(measure_archs(profile.space, setting, archs, seconds)) for _ in range(2))
    print_errors("minutes later", Errors.of(predicted, first))
    print_errors("machine itself", Errors.of(second, first))
    print(
        f"  drift {profile.drift:.1%}; minutes later above all of it: {np.mean(first > profile.bound(archs)):.1%}",
        flush=True,
    )


def milliseconds(timings: list[Timing]) -> np.ndarray:
    return np.array([timing.median_ms for timing in timings])


def print_errors(name: str, errors: Errors) -> None:
    e: dict[str, Any] = asdict(errors)
    print(
        f"  {name:16} median {e['median']:.1%}, 90 % {e['p90']:.1%}, Spearman {e['spearman']:.4f}, "
        f"margin {e['margin']:.1%} (n {e['n']})"
    )


if __name__ == "__main__":
    main()
