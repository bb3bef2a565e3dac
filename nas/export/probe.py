"""The process that a written model is checked in: a script of its own, which uses the standard library alone.

    python -I -B probe.py SETTINGS.json

SETTINGS.json is what `nas.export.isolated.ask` writes: `source`, that of the format's `opened`; `refused` modules; the
`folder` of the model; `images`, a file of uint8 pixels [n, C, H, W], with `shape` and `labels`; for how many of them to
give `logits`; `threads` and `runs` of the latency. It writes `logits.bin`, float32, and `answer.json` to `out`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

BATCH = 250  # images at once: what bounds the memory
WARM_UP, SECONDS = 5, 1.0


class Without:
    """Other finders of modules, but for some modules: it is as if those were not installed.

    A finder before the others would have to raise for them, which those who only ask whether a module is there (torch
    does) do not expect.
    """

    def __init__(self, names: Sequence[str], finders: Sequence[Any]) -> None:
        self.names, self.finders = frozenset(names), finders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The first finder's answer that is one."""
        if name.partition(".")[0] in self.names:
            return None
        return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)

    def find_distributions(self, context: Any) -> Iterator[Any]:
        """What is installed, for `importlib.metadata`."""
        for finder in self.finders:
            if hasattr(finder, "find_distributions"):
                yield from finder.find_distributions(context)


def main(file: str) -> None:
    """Answers the settings in `file`."""
    with open(file, encoding="utf-8") as opened_file:
        settings = json.load(opened_file)
    if loaded := sorted(set(settings["refused"]) & set(sys.modules)):
        sys.exit(f"{', '.join(loaded)} must not be loaded before the model")
    sys.meta_path[:] = [Without(settings["refused"], list(sys.meta_path))]
    scope: dict[str, Any] = {}
    exec("from __future__ import annotations\n" + settings["source"], scope)

    prepare, predict, versions = scope["opened"](settings["folder"], None)
    correct, logits = count(prepare, predict, settings)
    with open(f"{settings['out']}/logits.bin", "wb") as logits_file:
        logits.tofile(logits_file)

    prepare, predict, _ = scope["opened"](settings["folder"], settings["threads"])
    with open(settings["images"], "rb") as images:
        pixels = bytearray(images.read(math.prod(settings["shape"][1:])))
    calls = timed(predict, prepare(pixels, [1, *settings["shape"][1:]]), settings["runs"])
    with open(f"{settings['out']}/answer.json", "w", encoding="utf-8") as answer:
        json.dump({"correct": correct, "calls": calls, "versions": versions}, answer)


def count(
    prepare: Callable[[bytearray, list[int]], Any], predict: Callable[[Any], Any], settings: dict[str, Any]
) -> tuple[int, array[float]]:
    """How many images have their highest logit at their label, and the logits of the first ones."""
    (n, *size), labels = settings["shape"], settings["labels"]
    correct, logits = 0, array("f")
    with open(settings["images"], "rb") as images:
        for start in range(0, n, BATCH):
            end = min(start + BATCH, n)
            pixels = bytearray(images.read((end - start) * math.prod(size)))
            rows = predict(prepare(pixels, [end - start, *size])).tolist()
            if not all(math.isfinite(logit) for row in rows for logit in row):
                sys.exit("its logits are not finite")
            correct += sum(row.index(max(row)) == label for row, label in zip(rows, labels[start:end], strict=True))
            for row in rows[: max(0, settings["logits"] - start)]:
                logits.extend(row)
    return correct, logits


def timed(predict: Callable[[Any], Any], image: Any, runs: int) -> list[tuple[float, float]]:
    """Wall and processor milliseconds of single calls after a warm-up: so many, fewer where they take over a second.

    Both, since a call that waited while another process had the processor tells nothing of the model.
    """
    for _ in range(WARM_UP if runs else 0):
        predict(image)
    calls: list[tuple[float, float]] = []
    end = time.perf_counter() + SECONDS
    while len(calls) < runs and (not calls or time.perf_counter() < end):
        processor, wall = time.thread_time(), time.perf_counter()
        predict(image)
        calls.append((1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - processor)))
    return calls


if __name__ == "__main__":
    main(sys.argv[1])
