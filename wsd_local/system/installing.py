"""`python …/installing.py ARGUMENTS`: `pip install ARGUMENTS`, with progress while llama.cpp is compiled.

Contract: run by the Makefile before anything is installed, so it imports the standard library alone. What pip prints
goes to `install.log` in the environment's folder; standard error gets what is fetched, how many of the compiler's steps
are done and about how long the rest takes. Where pip fails, its last lines and what to do are printed, and the exit
code is pip's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

STEP = re.compile(r"\[(\d+)/(\d+)\]")
FETCHED = re.compile(r"\s*Collecting ([\w.-]+)")
COMPILERS = ("c++", "g++", "clang++", "cl")
LEAST_STEPS = 20
"""Steps of a compilation that is worth a line; smaller ones are tests of the compiler."""
EVERY_S, EVERY_SHOWN_S = 15.0, 1.0
"""Between two lines: in a log, on a terminal."""
LAST = 15
"""Lines that are printed where pip fails."""


class Steps:
    """The steps of a compilation, as ninja counts them, and the time that is left by the share that is done."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: float | None = None
        self._first = 0
        self.done = self.total = 0

    def read(self, line: str) -> bool:
        """Take in a line that pip printed; whether it was a step."""
        found = STEP.search(line)
        if found is None or int(found[2]) < LEAST_STEPS:
            return False
        self.done, self.total = int(found[1]), int(found[2])
        if self._begun is None:
            self._begun, self._first = self._clock(), self.done
        return True

    def text(self) -> str:
        """What is done, and about how long the rest takes."""
        shown = f"compiling llama.cpp: {self.done} of {self.total} steps"
        made = self.done - self._first
        if self._begun is None or made < 3:
            return shown
        left = (self._clock() - self._begun) / made * (self.total - self.done)
        return f"{shown}, about {f'{left / 60:.0f} min' if left >= 90 else f'{left:.0f} s'} left"


def follow(
    lines: Iterable[str], show: Callable[[str], None], every_s: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Show what is fetched and compiled by the lines, at most once in `every_s` seconds."""
    steps, shown = Steps(clock), -every_s
    for line in lines:
        fetched = FETCHED.match(line)
        if (steps.read(line) or fetched) and clock() - shown >= every_s:
            shown = clock()
            show(f"fetching {fetched[1]}" if fetched else steps.text())


def advice(arguments: Iterable[str], find: Callable[[str], str | None] = shutil.which) -> str:
    """What to do where pip failed."""
    if "--only-binary" in arguments:
        return (
            "there is no ready-made llama.cpp for this platform and this Python, or its index cannot be reached; "
            "install a C++ compiler (Debian: apt install g++; macOS: xcode-select --install) and run make without WHEEL"
        )
    named = [name for name in (os.environ.get("CXX"), *COMPILERS) if name]
    if not any(find(name.split()[0]) for name in named):
        return (
            "llama.cpp is compiled, and there is no C++ compiler here; install one (Debian: apt install g++; macOS: "
            "xcode-select --install), or take a ready-made llama.cpp: make run WHEEL=1"
        )
    return "see docs/guide/install.md"


def main(arguments: list[str]) -> int:
    """Entry point."""
    log = Path(sys.prefix) / "install.log"
    is_terminal = sys.stderr.isatty()
    last: deque[str] = deque(maxlen=LAST)

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}" if is_terminal else f"{text}\n")
        sys.stderr.flush()

    command = [sys.executable, "-m", "pip", "install", "--verbose", *arguments]
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
        )
        assert child.stdout is not None

        def kept() -> Iterable[str]:
            for line in child.stdout or ():
                file.write(line)
                last.append(line)
                yield line

        try:
            follow(kept(), show, EVERY_SHOWN_S if is_terminal else EVERY_S)
            code = child.wait()
        finally:
            child.kill()
            if is_terminal:
                sys.stderr.write("\r\x1b[K")
    if code != 0:
        sys.stderr.write("".join(last))
        sys.stderr.write(f"\n{advice(arguments)}\n(all of it: {log})\n")
    return code


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
