"""A real browser for the tests of pages: the Chromium that is there, without a window."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WAIT = 120_000  # milliseconds: a busy machine is slow


def found() -> str | None:
    """The path of a Chromium; None without one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def launched() -> Iterator[Any]:
    """A browser for a fixture; the test is skipped where there is none, or nothing to drive it."""
    path = found()
    if path is None:
        pytest.skip(
            "there is no Chromium here; on Debian and Ubuntu `apt-get install chromium` brings one"
        )
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        # As root, as in a container, Chromium has no sandbox; it sees this machine's pages alone.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, url: str, *, width: int = 1366, dark: bool = False) -> Any:
    """A page in a context of its own, which keeps what its scripts complain of in `complaints`."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "console",
        lambda said: page.complaints.append(said.text) if said.type == "error" else None,
    )
    page.goto(url)
    return page


def overflow(page: Any) -> int:
    """By how many pixels a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))
