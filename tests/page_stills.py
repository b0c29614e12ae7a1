"""Pictures of the page, with the embedded pair and Chromium.

python tests/page_stills.py docs/pictures      # makes those of the README and the guide
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from browser import Window, chromium
from serving import listening

from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.settings import LoadSettings
from wsd_local.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser

QUESTIONS = ("How do I boil an egg?", "What is the capital of France?")


@contextmanager
def served() -> Iterator[str]:
    """The page over a store that holds three older chats."""
    with TemporaryDirectory() as folder:
        os.environ |= {"WSD_LOCAL_DATA": folder, "WSD_LOCAL_CACHE": folder, "WSD_LOCAL_CONFIG": f"{folder}/config.toml"}
        desk = Desk(["demo"], loading=LoadSettings(threads=1, parallel=4))
        desk.start()
        with Store(":memory:") as store, listening(create_app(desk, store=store)) as url:
            for title in ("Capital of Peru", "Haiku about rain", "Mutex for beginners"):
                store.chats.create(title=title)
            yield url
        desk.close()


def asked(browser: Browser, url: str, scheme: str, size: tuple[int, int], chart: bool) -> Window:
    """A window in which the questions are answered."""
    size_ = {"width": size[0], "height": size[1]}
    window = Window(browser, url, viewport=size_, color_scheme=scheme, device_scale_factor=1).open()
    if window.page.is_visible("#why") != chart:
        window.page.click("#why-toggle")
    for question in QUESTIONS:
        window.ask(question)
    if chart:
        window.page.locator("#why-text", has_text="took over").wait_for()
    window.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return window


def pictures(folder: Path) -> None:
    """The chat with its chart, and three replies side by side."""
    with served() as url, chromium() as browser:
        window = asked(browser, url, "light", (1280, 640), chart=True)
        window.page.screenshot(path=folder / "page.png")
        window.page.click("#compare-open")
        window.page.locator(".column footer", has_text="tokens").nth(2).wait_for()
        window.page.locator("#compare").screenshot(path=folder / "page-compare.png")
        window.context.close()


def every_size(folder: Path) -> None:
    """The page in three sizes and both schemes, to be looked at."""
    with served() as url, chromium() as browser:
        for scheme in ("light", "dark"):
            for size in ((1280, 800), (768, 1024), (360, 740)):
                window = asked(browser, url, scheme, size, chart=size[0] > 400)
                window.page.screenshot(path=folder / f"{size[0]}-{scheme}.png")
                window.context.close()


if __name__ == "__main__":
    (every_size if "--all" in sys.argv else pictures)(Path(sys.argv[1]))
