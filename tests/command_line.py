"""`wsd-local` as a person runs it: a process with arguments, streams and an exit code."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

EGG = "How do I boil an egg?"


LONG = ["--mode", "draft", "--ignore-eos", "--max-tokens", "1800"]
"""Settings of a reply that goes on for a while."""


def wsd(*arguments: str, stdin: bytes = b"", **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command to its end. One thread: tests run side by side."""
    if arguments[:1] == ("run",) and not {"--threads", "--help"} & {*arguments}:
        arguments = (*arguments, "--threads", "1")
    return subprocess.run(
        [sys.executable, "-m", "wsd_local", *arguments], input=stdin, capture_output=True, check=False, **settings
    )


def started(*arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
    """Start the command with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "wsd_local", *arguments, "--threads", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


def complains(done: subprocess.CompletedProcess[bytes], code: int, *words: str) -> None:
    """One line on standard error with these words, nothing on standard output, this code."""
    error = done.stderr.decode()
    assert done.returncode == code, error
    assert done.stdout == b""
    assert len(error.strip().splitlines()) == 1, error
    assert "Traceback" not in error
    for word in words:
        assert word in error
