"""Browsers that watch one live study: whether each shows every evaluation, how late, and what the service spends.

    python benchmarks/service_browsers.py [--browsers 2] [--sessions 48] [--trials 1000] [--minutes 3]

Browsers are contexts of one headless Chromium (CHROMIUM, or `chromium`), each with the page of the search open, in
which an observer writes down when the number of evaluations changes. Sessions do the same with the service over HTTP
and the socket, but draw nothing (page_sessions.py): fifty pages of Chromium take more than two cores by themselves. The
clock is this machine's for all.
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
from page_sessions import PageSession, sessions
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
    parser.add_argument("--browsers", type=int, default=2)
    parser.add_argument("--sessions", type=int, default=48)
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
        url = f"http://127.0.0.1:{port}/search/run/live"
        with serving(root, port=port), sessions(url, options.sessions, "Evaluations") as opened:
            pages = []
            for _ in range(options.browsers):
                pages.append(browser.new_context().new_page())
                pages[-1].goto(url, timeout=120_000)
                pages[-1].locator(".tile", has_text="Evaluations").first.evaluate(OBSERVER)
            follow(service_of(port), pages, opened, store, trials[options.trials :], 1 / options.per_second)
        store.close()
        browser.close()


def follow(
    pid: int, pages: list[Page], opened: list[PageSession], store: JournalStore, new: list[Trial], pause: float
) -> None:
    before, used, started, written = resident(pid), processor(pid), time.time(), {}
    loaded, most = sum(session.loads for session in opened), before
    for trial in new:
        store.append(trial)
        written[trial.number] = time.time()
        time.sleep(pause)
        most = max(most, resident(pid))
    time.sleep(5)
    share = (processor(pid) - used) / (time.time() - started)
    seen = [page.evaluate("window.seen") for page in pages]  # None where a page was loaded again
    tell("browsers", [one or [] for one in seen], written, f"{seen.count(None)} reloaded")
    reloads = sum(session.loads for session in opened) - loaded
    lost = sum(session.lost for session in opened)
    tell("sessions", [one.seen for one in opened], written, f"{lost} connections lost, {reloads} reloaded")
    print(f"the service took {share:.0%} of a core and {before:.0f} to {most:.0f} MB; load {os.getloadavg()[0]:.1f}")


def tell(who: str, seen: list[list[tuple[int, float]]], written: dict[int, float], trouble: str) -> None:
    """Prints what of `written`, by number when it was, each of them saw, and how late."""
    if not seen:
        return
    delays = []
    for one in seen:
        for number, at in written.items():
            delays += [when - at for count, when in one if count > number][:1]
    print(f"{len(seen)} {who}, {len(written)} trials: shown {len(delays)} of {len(seen) * len(written)}, {trouble}")
    if delays:
        middle, late = np.median(delays), np.quantile(delays, 0.99)
        print(f"  after the store: median {middle:.2f} s, 99 % {late:.2f} s, most {max(delays):.2f} s")


if __name__ == "__main__":
    main()
