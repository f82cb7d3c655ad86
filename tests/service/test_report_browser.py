"""The report in a real browser: it draws without a network, asks for nothing, fits a phone and paper."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from service.dashboard import report
from tests.service.backtests import document, frame, old_document
from tests.service.test_dashboard_browser import BROWSER, DRIVER, QUIET, complaints, until

pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)",
)
A4_WIDTH = 688  # pixels between margins of 14 mm
DRAWN = "return [...document.querySelectorAll('.chart')].map((chart) => chart.querySelector('.main-svg') !== null)"
# a line that is drawn has a path with something in it
LINES = "return [...document.querySelectorAll('.scatterlayer .js-line')].filter((line) => line.getAttribute('d')).length"
# what is cut off: text whose box reaches beyond its chart
CUT = (
    "return [...document.querySelectorAll('.chart')].flatMap((chart) => { const box = chart.getBoundingClientRect();"
    "return [...chart.querySelectorAll('text')].filter((text) => text.textContent && text.getBoundingClientRect().width)"
    ".filter((text) => { const at = text.getBoundingClientRect(); return at.left < box.left - 1 || at.right > box.right + 1"
    " || at.top < box.top - 1 || at.bottom > box.bottom + 1; }).map((text) => chart.id + ': ' + text.textContent) })"
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A browser without a network that keeps what it asked for and what its console said."""
    options = Options()
    options.binary_location = BROWSER or ""
    for argument in (*QUIET, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options, Service(DRIVER))
    made.execute_cdp_cmd("Network.enable", {})
    blocked = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    made.execute_cdp_cmd("Network.emulateNetworkConditions", blocked)
    made.get("about:blank")
    made.get_log("performance")  # its own first page
    yield made
    made.quit()


def opened(browser: webdriver.Chrome, folder: Path, text: str, width: int = 1280) -> str:
    """Opens a page from its file, as somebody does who was sent it; gives its address."""
    file = folder / "report.html"
    file.write_text(text)
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(file.as_uri())
    until(lambda: all(browser.execute_script(DRAWN)))
    return file.as_uri()


def asked_for(browser: webdriver.Chrome) -> list[str]:
    """The address of everything that the page asked for, but for what stands in the page itself."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent: list[str] = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    return [address for address in sent if not address.startswith(("data:", "blob:"))]


@pytest.mark.parametrize("width", [390, 1280, 1600])
def test_the_report_draws_without_a_network_and_fits(
    browser: webdriver.Chrome, tmp_path: Path, width: int
) -> None:
    address = opened(browser, tmp_path, report.html(document(), frame()), width)
    assert browser.execute_script(DRAWN) == [True] * 6
    assert browser.execute_script(LINES) >= 4 + 1 + 2 + 1 + 8 + 1
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script(CUT) == []
    assert asked_for(browser) == [address]
    assert complaints(browser) == []


def test_nothing_can_be_asked_for(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path, report.html(document(), frame(200)))
    script = "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('refused'))"
    assert browser.execute_async_script(script) == "refused"
    assert any("Content Security Policy" in said for said in complaints(browser))


def test_what_a_document_says_is_never_run(browser: webdriver.Chrome, tmp_path: Path) -> None:
    evil = "</script><script>window.ran = true</script><img src=x onerror='window.ran = true'><b>bold</b>"
    found: dict[str, Any] = document()
    found["verdict"]["text"] = found["market"]["symbol"] = evil
    for refit in found["refits"]:
        refit["reason"] = evil
        for layer in refit["health"]:
            layer["layer"] = evil
    opened(browser, tmp_path, report.html(found, frame()))
    assert browser.execute_script("return window.ran === undefined") is True
    assert "<b>bold</b>" in browser.execute_script(
        "return document.querySelector('#health-chart').textContent"
    )


def test_charts_follow_the_dark(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path, report.html(document(), frame(400)))
    line = "return getComputedStyle(document.querySelector('#gain-chart .js-line')).stroke"
    light = browser.execute_script(line)
    dark = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": dark})
    until(lambda: browser.execute_script(line) != light)
    # paper is light again
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    until(lambda: browser.execute_script(line) == light)
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    until(lambda: browser.execute_script(line) != light)


def test_the_report_prints(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path, report.html(document(), frame(400)))
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 5
    assert complaints(browser) == []


def test_every_table_fits_a_page_of_paper(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path, report.html(document(), frame(400)), A4_WIDTH)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script("return document.documentElement.scrollWidth") <= A4_WIDTH


def test_charts_follow_the_window(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path, report.html(document(), frame(400)), 1280)
    widths = (
        "return [...document.querySelectorAll('.chart')].every((chart) =>"
        " Math.abs(chart.querySelector('.main-svg').getBoundingClientRect().width - chart.offsetWidth) < 1)"
    )
    for width in (390, 1600):
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        until(lambda: browser.execute_script(widths))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_an_old_backtest_draws_what_it_has(browser: webdriver.Chrome, tmp_path: Path) -> None:
    short = frame(200).select("as_of", "base_rate", "p_up", "low", "high", "close", "log_return", "up")
    opened(browser, tmp_path, report.html(old_document(), short), 390)
    assert browser.execute_script(DRAWN) == [True] * 3
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert complaints(browser) == []
