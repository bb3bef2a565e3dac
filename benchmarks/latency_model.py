"""How well latencies of subnets are predicted that the device profile has not seen.

    python benchmarks/latency_model.py [--spaces resnet_cifar mobilenet_v3] [--runtimes torch onnxruntime]
        [--held-out 60] [--seconds 240] [--threads 1] [--seed 0] [-o DIR]

For each space and runtime: a profile with the settings of `nas profile`, and after it other subnets, drawn at random,
measured in the same way. Prints for both the sum over blocks and the corrected model Spearman's rank correlation (0.98
or more is the aim), the median error (6 % or less) and the 90th percentile, and how the machine agrees with itself,
the same subnets measured twice. -o: keeps the profiles there.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from nas.latency_model import Errors
from nas.profiles import Profile
from nas.profiling import measure_archs, profile_space
from search_spaces.arch import Arch
from search_spaces.catalog import SPACES
from search_spaces.network import NetworkSpace
from workers.latency import RUNTIMES, Setting


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
    print(f"load {os.getloadavg()[0]:.1f}, {describe()}; {args.held_out} held-out subnets, seed {args.seed}")
    for name in args.spaces:
        for runtime in args.runtimes:
            space, setting = SPACES[name](), Setting(runtime, threads=args.threads)
            profile = profile_space(space, setting, f"{name}-{runtime}", seconds=args.seconds, seed=args.seed)
            if args.out:
                profile.write(args.out / f"{profile.name}.json")
            report(profile, setting, unseen(space, profile, args.held_out, args.seed), args.seconds / 4)


def unseen(space: NetworkSpace, profile: Profile, n: int, seed: int) -> list[Arch]:
    """Random subnets that the profile did not measure."""
    rng = np.random.default_rng([seed, 1])
    known = {space.arch_from_dict(subnet["arch"]).key for subnet in profile.subnets}
    found: dict[str, Arch] = {}
    while len(found) < n:
        arch = space.sample(rng)
        if arch.key not in known:
            found[arch.key] = arch
    return list(found.values())


def report(profile: Profile, setting: Setting, archs: list[Arch], seconds: float) -> None:
    first, second = (
        np.array([timing.median_ms for timing in measure_archs(profile.space, setting, archs, seconds)])
        for _ in range(2)
    )
    print(f"\n{profile.space.name}, {profile.device_text}: {first.min():.3g} to {first.max():.3g} ms")
    print_errors("blocks added up", Errors.of(profile.model.added(archs), first))
    print_errors("corrected", Errors.of(profile.model.predict(archs), first))
    print_errors("as its file says", profile.errors)
    print_errors("measured again", Errors.of(second, first))
    over = np.mean(first > profile.bound(archs))
    print(f"  above the prediction and its margin: {over:.1%}", flush=True)


def print_errors(name: str, errors: Errors) -> None:
    e: dict[str, Any] = asdict(errors)
    print(
        f"  {name:16} median {e['median']:.1%}, 90 % {e['p90']:.1%}, Spearman {e['spearman']:.4f}, "
        f"margin {e['margin']:.1%} (n {e['n']})"
    )


if __name__ == "__main__":
    main()
