"""Browsers that watch one live study: whether each shows every evaluation, how late, and what the service spends.

    python benchmarks/service_browsers.py [--browsers 50] [--trials 1000] [--minutes 3] [--per-second 0.5]

Contexts of one headless Chromium (CHROMIUM, or `chromium`), each with the page of the search open. An observer in the
page writes down when the number of evaluations changes; the clock is this machine's for all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe
from playwright.sync_api import Page, sync_playwright
from service_scale import live_study, processor, resident, service_of
from services import free_port, serving

from nas.store import JournalStore
from nas.trial import Trial

OBSERVER = """
tile => {
  window.seen = []
  const look = () => {
    const count = parseInt(tile.querySelector('.value').innerText.replaceAll(',', ''))
    if (!window.seen.length || window.seen.at(-1)[0] != count) window.seen.push([count, Date.now() / 1000])
  }
  look()
  new MutationObserver(look).observe(tile, {childList: true, characterData: true, subtree: true})
}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browsers", type=int, default=50)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--per-second", type=float, default=0.5, help="trials that the live study grows by")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {describe()}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        root = Path(folder)
        _, store, trials = live_study(root, options.trials, int(options.minutes * 60 * options.per_second))
        port = free_port()
        binary = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox"])
        with serving(root, port=port):
            pages = []
            for _ in range(options.browsers):
                pages.append(browser.new_context().new_page())
                pages[-1].goto(f"http://127.0.0.1:{port}/search/run/live", timeout=120_000)
                pages[-1].locator(".tile", has_text="Evaluations").first.evaluate(OBSERVER)
            follow(service_of(port), pages, store, trials[options.trials :], 1 / options.per_second)
        store.close()
        browser.close()


def follow(pid: int, pages: list[Page], store: JournalStore, new: list[Trial], pause: float) -> None:
    before, used, started, written = resident(pid), processor(pid), time.time(), {}
    for trial in new:
        store.append(trial)
        written[trial.number] = time.time()
        time.sleep(pause)
    time.sleep(5)
    share = (processor(pid) - used) / (time.time() - started)
    delays = []
    reloaded = 0
    for page in pages:
        seen = page.evaluate("window.seen")
        if seen is None:  # what it saw went with the page
            reloaded += 1
            continue
        for number, at in written.items():
            delays += [when - at for count, when in seen if count > number][:1]
    print(
        f"{len(pages)} browsers, {len(new)} trials: shown {len(delays)} of {len(pages) * len(new)}, {reloaded} reloaded"
    )
    print(
        f"from the store to the page: median {np.median(delays):.2f} s, 99 % {np.quantile(delays, 0.99):.2f} s, most "
        f"{max(delays):.2f} s; the service took {share:.0%} of a core and {before:.0f} to {resident(pid):.0f} MB"
    )


if __name__ == "__main__":
    main()
