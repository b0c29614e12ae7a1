"""The chat's screens without models and without anything that changes from run to run: for pictures and snapshots.

python tests/stills.py docs/pictures      # makes the README's pictures, with the embedded pair
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from wsd_chat.app import ChatApp
from wsd_chat.entries import Entry
from wsd_chat.model_jobs import Wanted
from wsd_chat.widgets.composer import Composer

from wsd_local.core.decoding import Phase
from wsd_local.core.written import ReplyToken
from wsd_local.runtime.reply import ReplyProgress, Timings
from wsd_local.store import Store

QUESTION = "What is the capital of France?"
ANSWER = "Great question! I am happy to share this with you. The capital of France is **Paris**.\n\n1. one\n2. two\n"
REPORT: dict[str, Any] = {
    "finish_reason": "stop",
    "draft": {"model": "a draft", "kept_tokens": 7, "drafted_tokens": 9},
    "base": {"model": "a base", "tokens": 20},
    "switch": {"index": 6, "reason": "threshold", "confidence": 0.911, "window": 6, "threshold": 0.8},
    "timings": {"total_s": 1.5},
    "discarded": " tell you",
}
WORDS = ("Great", " question", "!", " I", " am", " happy", " to", " share", " this")
PROBS = (0.03, 0.85, 0.99, 1.0, 1.0, 0.98, 0.67)
TOKENS = [
    ReplyToken(index, word, "draft" if index < 7 else "base", PROBS[index] if index < 7 else None, None)
    for index, word in enumerate(WORDS)
]


class Still(ChatApp):
    """The chat without models, on a chat that is always the same."""

    def __init__(self, theme: str = "textual-dark") -> None:
        super().__init__(Wanted("demo", None, None, {}), Store(":memory:"))
        self._wanted_theme = theme
        self.pairs.load = self._load_nothing  # type: ignore[method-assign]

    def _load_nothing(self, wanted: Wanted) -> None:
        self.status.pair, self.status.phase = "demo", "ready"

    async def prepare(self, pilot: Pilot[Any]) -> None:
        """Show one question and its answer, and a status line whose figures are made up."""
        self.theme = self._wanted_theme
        self.query_one(Composer).cursor_blink = False
        reply = Entry(2, 1, "assistant", ANSWER, drafted=29, label="0.91", report=REPORT)
        await self.transcript.show([Entry(1, None, "user", QUESTION), reply])
        timings = Timings(first_text_s=0.02, draft_tokens_per_s=250.0, base_tokens_per_s=120.0)
        self.status.progress = ReplyProgress(Phase.DONE, 9, 20, 39, 2048, timings)
        await settled(pilot)


async def settled(pilot: Pilot[Any]) -> None:
    """Until the screen has looked the same for ten steps."""
    same, before = 0, None
    while same < 10:
        await pilot.pause(0.02)
        now = pilot.app.screen._compositor.render_strips()
        same, before = (same + 1 if now == before else 0), now


def picture(app: ChatApp) -> str:
    """The screen as SVG that loads no fonts from elsewhere."""
    return re.sub(r""",\s*url\("https?:[^)]*\) format\([^)]*\)""", "", app.export_screenshot(title="wsd-chat"))


async def pictures(folder: Path) -> None:
    """Ask the embedded pair, and save the chat and the switch view as SVG."""
    with Store(":memory:") as store:
        app = ChatApp(Wanted("demo", None, None, {"threads": 1}), store)
        async with app.run_test(size=(110, 30)) as pilot:
            while app.models.pair is None or app.status.phase != "ready":
                await pilot.pause(0.05)
            for question in ("How do I boil an egg?", QUESTION):
                app.query_one(Composer).put(question)
                await pilot.press("enter")
                while app.replies.busy or app.models.busy:
                    await pilot.pause(0.05)
            await pilot.pause(0.2)
            (folder / "chat.svg").write_text(picture(app), encoding="utf-8")
            await pilot.press("f2")
            await pilot.pause(0.5)
            (folder / "switch.svg").write_text(picture(app), encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(pictures(Path(sys.argv[1])))
