"""The second question about the same text, by another process: first text and whole time beside the first question's.

    python tests/bench/second_question.py [--draft FILE --base FILE] [--tokens 1000] [--repeat 3] [--threads N]

Each turn is three processes: a question about a text with an empty prompt cache, another question that finds the text
there, and this second question without a cache. The reply is compared, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

SENTENCE = "Item {number}: on day {day} of the month the {what} was moved from shelf {number} to room {room}."
THINGS = ("lamp", "green box", "old map", "ladder", "clock", "copper wire", "blue chair", "letter of March")
QUESTIONS = ("Which things were moved to room 3?", "What happened to the ladder?")
SHOWN = ("first question", "second, kept", "second, cold")


def notes(count: int) -> str:
    """A text of so many sentences, none of which is repeated."""
    return "\n".join(
        SENTENCE.format(number=n, day=n % 28 + 1, what=THINGS[n % len(THINGS)], room=n * 7 % 11) for n in range(count)
    )


def ask(options: list[str], text: Path, question: str, cache: str) -> tuple[dict[str, Any], float]:
    """The reply of a process of its own, and its seconds in all."""
    command = [sys.executable, "-m", "wsd_local", "run", "--file", str(text), "--json", "--prompt-cache", cache]
    begun = time.perf_counter()
    done = subprocess.run([*command, *options], input=question.encode(), capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return json.loads(done.stdout), time.perf_counter() - begun


def turn(options: list[str], text: Path, folder: Path) -> list[tuple[dict[str, Any], float]]:
    """The three processes."""
    shutil.rmtree(folder, ignore_errors=True)
    first = ask(options, text, QUESTIONS[0], str(folder))
    kept = ask(options, text, QUESTIONS[1], str(folder))
    return [first, kept, ask(options, text, QUESTIONS[1], "off")]


def sized(options: list[str], text: Path, tokens: int) -> int:
    """Write a text of about so many draft tokens; returns the exact number with its question."""
    text.write_text(notes(10))
    few = ask([*options, "--max-tokens", "1"], text, QUESTIONS[0], "off")[0]["timings"]["draft_prompt_tokens"]
    text.write_text(notes(20))
    more = ask([*options, "--max-tokens", "1"], text, QUESTIONS[0], "off")[0]["timings"]["draft_prompt_tokens"]
    count = 10 + round((tokens - few) / ((more - few) / 10))
    text.write_text(notes(count))
    found = ask([*options, "--max-tokens", "1"], text, QUESTIONS[0], "off")[0]["timings"]["draft_prompt_tokens"]
    return int(found)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft")
    parser.add_argument("--base")
    parser.add_argument("--tokens", type=int, default=1000, help="draft tokens of the text")
    parser.add_argument("--reply", type=int, default=48, help="longest reply in tokens")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    options = ["--max-tokens", str(given.reply)]
    for name in ("draft", "base", "threads"):
        if (value := getattr(given, name)) is not None:
            options += [f"--{name}", str(value)]
    with tempfile.TemporaryDirectory() as own:
        text, folder = Path(own) / "notes.txt", Path(own) / "kept"
        print(f"{sized(options, text, given.tokens)} draft tokens, {given.repeat} turns", flush=True)
        turns = [turn(options, text, folder) for _ in range(given.repeat)]
        size = sum(path.stat().st_size for path in folder.glob("*.state"))
    print(f"{'':16} first text s   whole process s   reused draft, base")
    first = [[reply["timings"]["first_text_s"] for reply, _ in one] for one in turns]
    for place, name in enumerate(SHOWN):
        texts, wholes = [one[place] for one in first], [one[place][1] for one in turns]
        cached = turns[-1][place][0]["cached"]
        print(f"{name:16} {median(texts):12.3f}   {median(wholes):15.2f}   {cached['draft']}, {cached['base']}")
    for name, to in (("first question", 0), ("second, cold", 2)):
        ratios = sorted(one[1] / one[to] for one in first)
        print(f"second, kept / {name}: {median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    same = sum(one[1][0]["text"] == one[2][0]["text"] for one in turns)
    print(f"{size / 1e6:.0f} MB kept; {same} of {len(turns)} second replies equal without the cache")


if __name__ == "__main__":
    main()
