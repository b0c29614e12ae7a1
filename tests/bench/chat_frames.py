"""How long the chat's screen stands still while a reply streams into a long conversation.

    python tests/bench/chat_frames.py [--messages 200] [--rate 30] [--seconds 10] [--json]

A scripted reply of Markdown comes at that many tokens a second; a frame gap is the time between two turns of the
screen's event loop. No model runs: what is measured is the screen alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tui"))

from wsd_chat.app import ChatApp
from wsd_chat.model_jobs import Emitted, Ended, Wanted

from wsd_local.events import Switched, Text
from wsd_local.runtime.worker import Task
from wsd_local.store import Store

REPLY = (
    "## Boiling an egg\n\nTake a **fresh** egg, and *cold* water:\n\n1. Lay the egg in hot water.\n2. Wait for eight "
    "minutes.\n3. Cool it under cold water.\n\n```python\ndef boil(minutes):\n    return minutes * 60\n```\n\n"
    "| size | minutes |\n|---|---|\n| small | 7 |\n| large | 9 |\n\nA paragraph goes on for a while, as paragraphs do, "
    "and says again what was said before, in other words, until there is nothing left to be said of eggs.\n\n"
)


def filled(path: Path, messages: int) -> int:
    """A chat of that many messages."""
    with Store(path) as store:
        chat, parent = store.chats.create(title="a long chat"), None
        for number in range(messages // 2):
            parent = store.messages.add(chat, parent, "user", f"question {number}")
            parent = store.messages.add(chat, parent, "assistant", REPLY)
    return chat


async def measure(messages: int, rate: float, seconds: float) -> dict[str, float]:
    """Gaps in milliseconds."""
    gaps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chats.db"
        chat = filled(path, messages)
        with Store(path) as store:
            app = ChatApp(Wanted("demo", None, None, {}), store)
            app.pairs.load = lambda wanted: None  # type: ignore[method-assign]
            async with app.run_test(size=(120, 40)) as pilot:
                await app.chats.open(chat)
                await pilot.pause()
                app.models.submit = lambda work: Task()  # type: ignore[method-assign]
                app.replies.ask("and how do I boil another one?")
                while app.replies.turn is None or app.replies.turn.task is None or app.replies.turn.key is None:
                    await pilot.pause()
                key, words = app.replies.turn.key, (REPLY * 20).split(" ")
                begun = last = time.perf_counter()
                sent = 0
                while (now := time.perf_counter()) - begun < seconds:
                    gaps.append((now - last) * 1000)
                    last = now
                    while sent < (now - begun) * rate and sent < len(words):
                        app.models.publish(Emitted(key, Text(words[sent] + " ", "draft" if sent < 7 else "base")))
                        if sent == 6:
                            app.models.publish(Emitted(key, Switched("threshold", 6, 7, 0.91)))
                        sent += 1
                    await asyncio.sleep(0.001)
                app.models.publish(Ended(key))
                await pilot.pause()
    ordered = sorted(gaps)
    return {
        "messages": messages,
        "tokens": sent,
        "median_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[int(0.99 * len(ordered))], 1),
        "longest_ms": round(ordered[-1], 1),
    }


def main() -> None:
    """Measure an empty chat and a long one, side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--rate", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = [asyncio.run(measure(count, options.rate, options.seconds)) for count in (0, options.messages)]
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{'messages':>9} {'tokens':>7} {'median ms':>10} {'p99 ms':>8} {'longest ms':>11}")
    for row in rows:
        print(
            f"{row['messages']:>9} {row['tokens']:>7} {row['median_ms']:>10} {row['p99_ms']:>8} {row['longest_ms']:>11}"
        )


if __name__ == "__main__":
    main()
