"""llama.cpp's log lines: each thread collects its own, and none silences the others for good."""

from __future__ import annotations

import ctypes
import logging
import threading

import pytest

from wsd_local.llama.logs import _forward, captured

WARNING = 3


def write(line: str) -> None:
    _forward(WARNING, line.encode(), ctypes.c_void_p(0))


def test_what_is_captured_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wsd_local.llama"):
        with captured() as outer:
            write("one")
            with captured() as inner:
                write("two")
        write("three")
    assert (outer, inner) == (["one"], ["two"])
    assert caplog.messages == ["three"]


def test_captures_that_overlap_in_threads_leave_the_log_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """The first to begin is the first to end."""
    begun, ended = threading.Event(), threading.Event()
    found: list[str] = []

    def second() -> None:
        with captured() as lines:
            begun.set()
            ended.wait()
            write("of the second")
        found.extend(lines)

    thread = threading.Thread(target=second)
    with caplog.at_level(logging.INFO, "wsd_local.llama"):
        with captured() as lines:
            thread.start()
            begun.wait()
            write("of the first")
        ended.set()
        thread.join()
        write("of nobody")
    assert (lines, found) == (["of the first"], ["of the second"])
    assert caplog.messages == ["of nobody"]
