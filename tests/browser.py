"""A browser for tests of the page: Chromium, driven by Playwright, that reaches nothing but the server of the test.

Without Playwright or a Chromium the tests are skipped. Debian's Chromium is taken if it is there
(`apt-get install chromium`), else the one that `playwright install chromium` fetches.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from serving import ScriptedService, Step, finished

from wsd_local.events import Checked, Switched, Text
from wsd_local.runtime.reply import Switch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS = 20_000
"""How long something that must appear may take on a busy machine."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="expected: Playwright is not installed")
    found = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        except api.Error:
            pytest.skip("expected: there is no Chromium")
        yield browser
        browser.close()


class Window:
    """A page of the server in the browser. `requests` are the addresses that it asked for, `errors` what went wrong."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.context.set_default_timeout(WAIT_MS)
        self.url, self.requests, self.errors = url, list[str](), list[str]()
        self.page: Page = self.context.new_page()
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("popup", lambda popup: self.errors.append(f"popup: {popup.url}"))

    def _refuse(self, dialog: Any) -> None:
        self.errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str = "/") -> Window:
        """Go to the page, and wait until it has begun."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector("html[data-ready]")
        return self

    def ask(self, text: str) -> None:
        """Send a question by the keyboard; returns when its reply is kept."""
        before = self.page.locator(".reply").count()
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")
        self.page.locator(".reply:not(.writing) > footer .tools").nth(before).wait_for()
        self.page.locator("#send:not(.stops)").wait_for()

    @property
    def reply(self) -> str:
        """The text of the last reply, with the mark's label."""
        return str(self.page.locator(".reply .text").last.inner_text())

    @property
    def elsewhere(self) -> list[str]:
        """Requests that left the server of the test."""
        return [one for one in self.requests if not one.startswith((self.url, "blob:" + self.url))]


Open = Callable[..., Window]
"""Opens the page of a service, see `window` in `tests/server/conftest.py`."""

OPENING: list[Step] = [
    Text("Great ", "draft"),
    Checked(0, (0.5, 0.9), (None, 0.7)),
    Switched("threshold", 1, 2, 0.91),
    Text("answer.", "base", 0.8),
]
ANSWER = finished("Great answer.", kept="Great ", switch=Switch(1, "threshold", 0.91, 6, 0.8))


def opening(*steps: Step) -> ScriptedService:
    """A service whose every reply is the opening and these steps."""
    return ScriptedService([*OPENING, *(steps or (ANSWER,))])


def written(text: str) -> ScriptedService:
    """A service whose base writes a text in pieces."""
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    return ScriptedService([*(Text(piece, "base") for piece in pieces), finished(text)])
