"""The pages in a real browser, on a real service and a real small supernet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import devices
import pytest
import warm_python
from playwright import sync_api as playwright_api
from playwright.sync_api import expect
from services import TOKEN, serving
from studies import IDENTITY, SPACE, make_run, make_trials, write_study

from nas import pareto
from nas.run import Run
from nas.store import JournalStore, read_study

CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 120_000  # milliseconds; a machine that is busy with other tests is slow, not wrong


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        reason = "there is no Chromium: install it (Debian: chromium) to test the pages"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def root(trained_run, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("service") / "runs"
    shutil.copytree(trained_run, root / "digits")
    shutil.copytree(trained_run, root / "<b>bold")
    run = Run.open(root / "digits")
    write_study(run, "steps", make_trials(60), 60)
    write_study(run, "spent", make_trials(5), 9)
    with closing(JournalStore(run.study("spent"), replace(IDENTITY, study_name="spent"), SPACE)) as store:
        store.exhaust()
    devices.profile(SPACE).write(root / "slow.json")
    devices.profile(SPACE, threads=2).write(root / "fast.json")
    return root


@pytest.fixture(scope="module")
def service(root) -> Iterator[str]:
    with serving(root) as address:
        yield address
    assert "Traceback" not in (root / ".serve.log").read_text()


@pytest.fixture
def page(browser):
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    yield page
    context.close()
    assert page.problems == []


def evaluated(page) -> int:
    return int(page.locator(".tile", has_text="Evaluations").locator(".value").inner_text().replace(",", ""))


def test_start_watch_open_export_download_load(page, service, tmp_path):
    page.goto(f"{service}/new?run=digits")
    page.get_by_label("Study name").fill("a form 🚀")
    expect(page.get_by_text("not valid: use up to 100 letters").first).to_be_visible()
    page.get_by_label("Study name").fill("Form-α_検索")
    page.get_by_label("Evaluations").fill("12")
    page.get_by_label("Workers").fill("0")
    page.get_by_label("MACs, at most").fill("1")
    expect(page.get_by_text("nearest")).to_be_visible()
    start = page.get_by_role("button", name="Start search")
    expect(start).to_be_disabled()
    page.get_by_label("MACs, at most").fill("5M")
    expect(page.get_by_text("Ready to start")).to_be_visible()
    start.click()
    page.wait_for_url(f"**/search/digits/{quote('Form-α_検索')}")
    expect(page.locator(".chip").first).to_contain_text("finished")
    expect(page.locator(".tile", has_text="Evaluations").locator(".value")).to_have_text("12")

    point = page.locator('.chart.tall path[fill="var(--front)"]').last
    point.click(force=True)
    sheet = page.locator(".sheet")
    expect(sheet.locator(".title")).to_contain_text("Trial")
    number = int(sheet.locator(".title").inner_text().split()[1])
    expect(sheet.locator("svg[role=img]").first).to_be_visible()
    expect(sheet.locator(".command")).to_contain_text(f"--trial {number}")
    sheet.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as downloading:
        sheet.get_by_text("All files as a zip").click()
    expect(sheet.get_by_text("certificate.json")).to_be_visible()
    with zipfile.ZipFile(downloading.value.path()) as archive:
        archive.extractall(tmp_path)

    import torch

    import nas

    model = nas.load(next(tmp_path.glob("trial-*"))).eval()
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_a_search_for_two_devices_and_a_least_accuracy(page, service, root):
    page.goto(f"{service}/new?run=digits")
    page.get_by_label("Study name").fill("devices")
    page.get_by_label("Evaluations").fill("9")
    page.get_by_label("Workers").fill("0")
    page.get_by_label("Device profiles").click()
    for name in ("slow", "fast"):
        page.get_by_role("option", name=re.compile(f"^{name}: ")).click()
    page.keyboard.press("Escape")
    slow, fast = (page.get_by_label(f"latency on {name} in ms, at most") for name in ("slow", "fast"))
    expect(page.get_by_text(re.compile(r"reachable: \d\S* ms to \d\S* ms"))).to_have_count(2)
    verdict = page.locator("section", has=page.get_by_role("button", name="Start search")).locator(".note-box")
    fast.fill("lots")
    expect(verdict).to_have_text(
        "latency on fast in ms, at most: 'lots' is not a quantity; write for example 20M, 1.5G or 250000"
    )
    fast.fill("0.001")
    expect(verdict).to_contain_text("latency_ms_fast ≤ 0.001 (nearest reachable: ")
    fast.fill("100")
    slow.fill("200")
    least = page.get_by_label("top-1 accuracy, at least")
    least.fill("70")
    expect(verdict).to_have_text("top-1 accuracy, at least: 70 is not from 0 to 1, such as 0.7 for 70 %")
    expect(page.get_by_text("70 is not from 0 to 1", exact=False).first).to_be_visible()
    least.fill("0.05")
    page.get_by_label("Seed").fill("-1")
    expect(verdict).to_contain_text("Seed: Input should be greater than or equal to 0")
    page.get_by_label("Seed").fill("3")
    page.get_by_label("Objectives").click()
    page.get_by_role("option", name="latency on slow").click()
    page.keyboard.press("Escape")
    expect(verdict).to_contain_text("Ready to start")
    page.get_by_role("button", name="Start search").click()
    page.wait_for_url("**/search/digits/devices")
    expect(page.locator(".chip").first).to_contain_text("finished")
    identity = read_study(root / "digits" / "studies" / "devices.journal").identity
    assert identity.limits == {"latency_ms_slow": 200.0, "latency_ms_fast": 100.0, "top1": (0.05, None)}
    assert list(identity.objectives) == ["top1", "macs", "latency_ms_slow"]

    page.goto(f"{service}/new?run=digits&clone=devices")
    expect(page.get_by_label("latency on fast in ms, at most")).to_have_value("100")
    expect(page.get_by_label("top-1 accuracy, at least")).to_have_value("0.05")
    expect(page.get_by_label("Study name")).to_have_value("devices-2")


def test_the_front_is_walked_along_by_keys(page, service, root):
    study = read_study(root / "digits" / "studies" / "steps.journal")
    front = sorted(pareto.front(study.trials, study.identity.objectives), key=lambda trial: trial.metrics["macs"])
    page.goto(f"{service}/search/digits/steps")
    page.locator(".q-slider [tabindex='0']").focus()
    expect(page.get_by_text(f"#{front[0].number}: ")).to_be_visible()
    slider = page.get_by_role("slider", name="point of the Pareto front")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(rf"^#{front[0].number}: .*\(1 of {len(front)}\)"))
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", re.compile(rf"^#{front[1].number}: .*\(2 of {len(front)}\)"))
    expect(page.get_by_text(f"#{front[1].number}: ")).to_contain_text(f"(2 of {len(front)})")
    expect(page.locator('.chart.tall path[stroke="var(--text)"]')).to_have_count(1)
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    sheet = page.locator(".sheet")
    expect(sheet.locator(".title")).to_have_text(re.compile(r"Trial \d+"))
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)


def test_an_exhausted_study_says_so(page, service):
    page.goto(f"{service}/search/digits/spent")
    expect(page.locator(".chip").first).to_contain_text("exhausted")
    expect(page.get_by_text("all there are")).to_be_visible()
    expect(page.get_by_role("button", name="Clone with changes")).to_be_visible()
    expect(page.get_by_role("button", name="Resume")).to_be_hidden()
    page.goto(service)
    expect(page.get_by_text("5: all there are")).to_be_visible()


def test_a_page_that_is_drawn_anew_for_the_first_trials_shows_nothing_of_them_before(page, service, root):
    """Or who has read "finished" and goes elsewhere is brought back."""
    run, told = Run.open(root / "digits"), []
    write_study(run, "early", [], 3)
    page.on("console", lambda message: told.append(message.text))
    page.goto(f"{service}/search/digits/early")
    expect(page.get_by_text("No evaluations yet")).to_be_visible()
    page.evaluate(
        "new MutationObserver(() => console.log('chip:', document.querySelector('.chip').textContent))"
        ".observe(document.body, {childList: true, subtree: true, characterData: true})"
    )
    write_study(run, "early", make_trials(3), 3)
    expect(page.locator(".chip").first).to_contain_text("finished")
    assert evaluated(page) == 3
    assert not [text for text in told if "chip:" in text and "finished" in text]


def test_pages_outlive_what_they_show(page, service, root):
    shutil.copytree(root / "digits", root / "gone", ignore=shutil.ignore_patterns("*.writer"))
    page.goto(f"{service}/search/gone/steps")
    other = page.context.new_page()
    other.goto(f"{service}/training/gone")
    expect(other.get_by_text("Training loss")).to_be_visible()
    shutil.rmtree(root / "gone")
    page.wait_for_timeout(2500)  # two looks at what is not there any more
    expect(page.locator(".tile .value").first).to_have_text("60")
    expect(other.get_by_text("Training loss")).to_be_visible()
    page.locator(".q-slider [tabindex='0']").focus()
    page.keyboard.press("Enter")
    sheet = page.locator(".sheet")
    sheet.get_by_role("button", name="Export", exact=True).click()
    refused = re.compile("there is no run 'gone'|run 'gone' has no study")  # as the listing is some seconds old or not
    expect(page.get_by_text(refused).first).to_be_visible()


def test_names_are_text(page, service):
    page.goto(service)
    expect(page.get_by_text("<b>bold")).to_be_visible()
    page.get_by_label("filter").fill("bold")
    expect(page.locator(".cards .panel")).to_have_count(1)
    page.get_by_role("link", name="Space").click()
    expect(page.get_by_text("What can be chosen")).to_be_visible()
    page.goto(f"{service}/search/digits/%3Cscript%3E")
    expect(page.get_by_text("There is no such page")).to_be_visible()


def test_a_wrong_token_is_refused_and_the_right_one_accepted(page, tmp_path):
    make_run(tmp_path / "root" / "digits")
    with serving(tmp_path / "root", NAS_TOKEN=TOKEN) as address:
        page.goto(f"{address}/space/digits")
        assert "/login" in page.url
        page.locator("input[name=token]").fill("not-the-token-not-the-token")
        page.keyboard.press("Enter")
        expect(page.get_by_text("not the token")).to_be_visible()
        page.locator("input[name=token]").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url("**/space/digits")
        expect(page.get_by_text("What can be chosen")).to_be_visible()
        page.get_by_label("colours").click()
        expect(page.locator("body.body--dark")).to_have_count(1)
        page.reload()
        expect(page.locator("body.body--dark")).to_have_count(1)


def test_a_search_is_watched_while_its_driver_is_killed_and_resumed(page, service, root):
    command = [warm_python.python(), "-m", "nas.cli", "search", str(root / "digits"), "--study-name", "killed"]
    driver = subprocess.Popen([*command, "--n-trials", "60", "--num-workers", "0", "--strategy", "random"])
    try:
        journal = root / "digits" / "studies" / "killed.journal"
        while not journal.exists():
            assert driver.poll() is None
            time.sleep(0.1)
        page.goto(f"{service}/search/digits/killed")
        page.wait_for_function("parseInt(document.querySelector('.tile .value')?.textContent) > 4")
    finally:
        driver.kill()
        driver.wait()
    expect(page.locator(".chip").first).to_contain_text("interrupted")
    before = evaluated(page)
    assert 4 < before < 60
    page.get_by_role("button", name="Resume").click()
    page.get_by_label("Workers").fill("0")
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(page.locator(".chip").first).to_contain_text("finished")
    expect(page.locator(".tile .value").first).to_have_text("60")
    assert re.fullmatch(r"60 evaluated: .*", page.get_by_text("60 evaluated").inner_text())
