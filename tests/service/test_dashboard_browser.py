"""The page in a real browser: it draws, it refreshes itself, it loads nothing from elsewhere."""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

import store.bars
import store.outcomes
import store.predictions
from store.database import Engine
from tests.service.conftest import BARS, CLOSE, ETH, Clock, walk

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="needs chromium and chromedriver (Debian: chromium, chromium-driver)",
)
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    """The service behind a real socket."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own that keeps what its console said."""
    options = Options()
    options.binary_location = BROWSER or ""
    for argument in (*QUIET, "--window-size=1280,600", f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options, Service(DRIVER))
    yield made
    made.quit()


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The condition's value, once it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.1)
    return value


def complaints(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def drawn(browser: webdriver.Chrome) -> int:
    """How many prediction markers the chart shows."""
    script = (
        "const chart = document.querySelector('.chart');"
        "return chart.data ? chart.data.filter((t) => ['predicted', 'not known yet'].includes(t.name))"
        ".reduce((n, t) => n + t.x.length, 0) : -1"
    )
    return int(browser.execute_script(script))


def text(browser: webdriver.Chrome, selector: str) -> str:
    """What an element says, read in one go: the page swaps its elements at any moment."""
    return str(browser.execute_script("return document.querySelector(arguments[0]).innerText", selector))


def test_the_page_draws_refreshes_itself_and_loads_nothing_from_elsewhere(
    address: str, browser: webdriver.Chrome, engine: Engine, champion: int, clock: Clock
) -> None:
    predictors: dict[int, Any] = {}
    store.predictions.answer(engine, ETH, clock.now, predictors)
    browser.get(address)
    until(lambda: drawn(browser) == 1)
    assert "ETHUSDT" in text(browser, "h2")
    assert "1 Jul 2024, 00:00 UTC" in text(browser, ".signal")

    # what a reload would lose
    browser.execute_script(
        "window.loadedOnce = true; document.querySelector('.chart').kept = true; scrollTo(0, 200)"
    )
    where = browser.execute_script("return scrollY")
    clock.now = CLOSE + timedelta(hours=1, minutes=5)
    store.bars.add(engine, ETH, walk(BARS + 1, CLOSE + timedelta(hours=1), seed=8).tail(1), clock.now)
    store.outcomes.score(engine, clock.now)
    store.predictions.answer(engine, ETH, clock.now, predictors)
    until(lambda: "1 Jul 2024, 01:00 UTC" in text(browser, ".signal"))
    until(lambda: drawn(browser) == 2)
    kept = "return [window.loadedOnce, document.querySelector('.chart').kept, scrollY]"
    assert browser.execute_script(kept) == [True, True, where]

    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert any(name.split("?")[0].endswith("/static/plotly.min.js") for name in loaded)
    assert [name for name in loaded if not name.startswith((address, "data:", "blob:"))] == []
    assert complaints(browser) == []


def test_the_page_says_when_the_service_is_gone_and_recovers(
    app: FastAPI, browser: webdriver.Chrome, champion: int
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"

    def serve() -> tuple[uvicorn.Server, threading.Thread]:
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        until(lambda: server.started)
        return server, thread

    def connection() -> str:
        return text(browser, "#connection")

    server, thread = serve()
    browser.get(address)
    assert connection() == ""
    server.should_exit = True
    thread.join()
    until(lambda: "not fresh" in connection())
    assert "ETHUSDT" in text(browser, "h2")
    server, thread = serve()
    until(lambda: connection() == "")
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window(address: str, browser: webdriver.Chrome, champion: int, width: int) -> None:
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(address)
    until(lambda: drawn(browser) >= 0)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_documentation_of_the_routes_works_without_the_internet(
    address: str, browser: webdriver.Chrome
) -> None:
    browser.get(address + "docs")
    until(lambda: browser.find_elements(By.CLASS_NAME, "opblock"))
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in loaded if not name.startswith((address, "data:", "blob:"))] == []
    assert complaints(browser) == []
