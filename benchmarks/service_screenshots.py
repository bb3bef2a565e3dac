"""Pictures of every page of the service, light and dark, at 1280 pixels and on a phone, of example runs made here.

    python benchmarks/service_screenshots.py -o docs/images

The supernet of a small space is trained on handwritten digits for some epochs. The studies are real searches of its
space by the project's own loop, but their accuracies come from a formula over MACs and depth: hundreds of trials in
seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HOST = "node-1"  # instead of this machine's name
PAGES = {
    "runs": "/",
    "search": "/search/digits/predictor-1",
    "architecture": "/search/digits/predictor-1?trial={best}",
    "new": "/new?run=digits",
    "compare": "/compare?study=digits/predictor-1&study=digits/random-1&study=digits/evolution-1",
    "space": "/space/digits",
    "training": "/training/digits",
}
SPACE = """\
name: digits_wide
num_pools: 2
stages:
  - {depths: [1, 2, 3], widths: [8, 12, 16], kernels: [3, 5]}
  - {depths: [1, 2, 3], widths: [16, 24, 32], kernels: [3, 5]}
  - {depths: [1, 2], widths: [32, 48], kernels: [3, 5]}
"""
TALLEST = 1480  # pixels: what matters comes first on every page
STILL = "* { caret-color: transparent !important; }"
CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--root", type=Path, help="keep the example runs here, and use them again")
    parser.add_argument("--pages", nargs="*", default=list(PAGES), choices=list(PAGES))
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    root = options.root or Path(tempfile.mkdtemp(prefix="nas-runs-"))
    try:
        best = make_runs(root, options.epochs)
        with serving(root) as address:
            for file in photograph(address, options.pages, options.out, best):
                print(f"{file}  {file.stat().st_size // 1000} kB")
    finally:
        if options.root is None:
            shutil.rmtree(root)


def make_runs(root: Path, epochs: int) -> int:
    """A trained run with five studies; the number of a trial on the front of the first."""
    from nas.run import Run
    from nas.searching import context_of, directions
    from nas.study import Study, load_study, search
    from search_spaces.arch import Arch
    from search_spaces.cost import macs

    folder = root / "digits"
    if not folder.exists():
        space = root / "space.yaml"
        root.mkdir(exist_ok=True)
        space.write_text(SPACE)
        command = [
            sys.executable,
            "-m",
            "nas.cli",
            "train",
            "--space",
            str(space),
            "--data",
            "digits",
            "-o",
            str(folder),
        ]
        subprocess.run([*command, "--epochs", str(epochs), "--batch-size", "64"], check=True)
    run = Run.open(folder)
    context = context_of(run.checkpoint_state())
    smallest, largest = macs(run.space, run.space.smallest()), macs(run.space, run.space.largest())

    def accuracy(arch: Arch) -> dict[str, float]:
        size = np.log(macs(run.space, arch) / smallest) / np.log(largest / smallest)
        luck = np.random.default_rng(zlib.crc32(arch.key.encode())).normal(0, 0.006)
        return {"top1": float(np.clip(0.62 + 0.33 * size**0.6 - 0.02 * abs(arch.depth[0] - 2) + luck, 0, 1))}

    socket.gethostname = lambda: HOST
    studies = {
        "predictor-1": ("predictor", 300, {"macs": 2e6}), "evolution-1": ("evolution", 300, {"macs": 2e6}),
        "random-1": ("random", 300, {"macs": 2e6}), "tiny-accurate": ("evolution", 160, {"top1": (0.8, None)}),
    }  # fmt: skip
    made: dict[str, Study] = {}
    for name, (strategy, n_trials, limits) in studies.items():
        storage = run.study(name)
        if not storage.exists():
            storage.parent.mkdir(exist_ok=True)
            search(
                run.space, accuracy, n_trials=n_trials, strategy=strategy, limits=limits, seed=1, storage=storage,
                objectives=directions(["top1", "macs"]), study_name=name, context=context,
            )  # fmt: skip
        made[name] = load_study(storage, name)
    front = made["predictor-1"].front()
    return sorted(front, key=lambda trial: trial.metrics["macs"])[len(front) // 2].number


@contextlib.contextmanager
def serving(root: Path) -> Iterator[str]:
    """The address of a service over `root`, a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "nas.cli", "serve", str(root), "--port", str(port)]
    with open(root / "service.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/healthz", timeout=1)
                break
            if process.poll() is not None:
                raise RuntimeError((root / "service.log").read_text())
            time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def photograph(address: str, pages: list[str], out: Path, best: int) -> Iterator[Path]:
    """Every page in both colour schemes and both sizes."""
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
        for size, (width, height) in {"": (1280, 860), "-phone": (390, 844)}.items():
            for scheme in ("light", "dark"):
                context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
                page = context.new_page()
                page.on("console", lambda m: print("console:", m.text) if m.type == "error" else None)
                for name in pages:
                    page.goto(address + PAGES[name].format(best=best))
                    page.wait_for_load_state("networkidle")
                    page.wait_for_timeout(1500)
                    file = out / f"service-{name}-{scheme}{size}.png"
                    tall = page.evaluate("document.documentElement.scrollHeight") if name != "architecture" else height
                    clip = {"x": 0, "y": 0, "width": width, "height": min(tall, TALLEST)}
                    page.screenshot(path=file, full_page=True, clip=clip, style=STILL)
                    yield file
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
