"""Programs of this package in processes of their own: for work that cannot be stopped from inside, or may crash.

Contract: when `run` returns or raises, the process has ended. It is ended through the function that `stoppable` is
given, never by Ctrl-C: only this process decides.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from wsd_local.errors import CancelledError

Progress = Callable[[str, float], None]
"""Called with what is being done and how much of it, 0 to 1."""
Stoppable = Callable[[Callable[[], None]], None]
"""Called with a function that ends the work at once, from any thread."""

_LONGEST_CAUSE = 300


def nothing(*_: object) -> None:
    """Tells nobody."""


def run(arguments: list[str], heard: Callable[[str], None], stoppable: Stoppable) -> tuple[int, list[str]]:
    """Run a module with arguments, as `python -m` does: its exit code and the lines that it said last.

    `heard` is called with each line of its standard output and standard error.

    Raises:
        CancelledError: it was stopped.
    """
    environment = {name: value for name, value in os.environ.items() if name != "NO_LOCAL_GGUF"}
    environment |= {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:replace", "GGML_NO_BACKTRACE": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
    stopped = False
    child = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def stop() -> None:
        nonlocal stopped
        stopped = True
        child.kill()

    said: deque[str] = deque(maxlen=1000)
    try:
        stoppable(stop)
        assert child.stdout is not None
        for line in _lines(child.stdout):
            said.append(line)
            heard(line)
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    if stopped:
        raise CancelledError("stopped")
    return code, list(said)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come; a progress bar's carriage return ends one too."""
    left = b""
    while block := os.read(stream.fileno(), 1 << 16):
        *lines, left = re.split(rb"[\r\n]", left + block)
        yield from (line.decode(errors="replace") for line in lines if line.strip())
    if left.strip():
        yield left.decode(errors="replace")


def cause(code: int, said: list[str], pattern: re.Pattern[str]) -> str:
    """The most telling line of what was said: the last that `pattern` finds and all behind it, or the last at all."""
    if code == -9:
        return "the process was killed, probably for want of memory"
    for index in range(len(said) - 1, -1, -1):
        if found := pattern.search(said[index]):
            first = next(group.strip() for group in found.groups() if group)
            return " ".join([first, *said[index + 1 :]])[:_LONGEST_CAUSE]
    return said[-1].strip() if said else f"the process ended with exit code {code} and said nothing"
