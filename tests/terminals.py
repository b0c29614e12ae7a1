"""A program on a terminal of its own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

ROWS, COLUMNS = 40, 100
HANGS_S = 120.0
"""After so long a program that does not write what is waited for is taken to hang."""


class OnTerminal:
    """A Python program whose standard streams are a new terminal. `said` is what it has written so far."""

    def __init__(self, arguments: Sequence[str], **settings: Any) -> None:
        import fcntl
        import struct
        import termios

        self.terminal, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.inner = inner
        environment = {**os.environ, "TERM": "xterm-256color", **settings.pop("env", {})}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=inner,
            stdout=settings.pop("stdout", inner),
            stderr=inner,
            env=environment,
            start_new_session=True,
            **settings,
        )
        self._said = bytearray()
        self._more = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def said(self) -> str:
        """Everything that was written."""
        with self._more:
            return bytes(self._said).decode(errors="replace")

    def types(self, text: str) -> None:
        """Press keys."""
        os.write(self.terminal, text.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the program has written this, or has ended."""
        with self._more:
            self._more.wait_for(lambda: text.encode() in self._said or self._ended, timeout=HANGS_S)
        assert text in self.said, self.said[-2000:]

    def end(self) -> int:
        """Wait for its end; the exit code."""
        try:
            code = self.process.wait(HANGS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        os.close(self.inner)
        self._reader.join()
        os.close(self.terminal)
        return code

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.terminal, 1 << 16)
            except OSError:  # Linux: the other end is closed
                data = b""
            with self._more:
                self._said += data
                self._ended = not data
                self._more.notify_all()
            if not data:
                return


def shown(*arguments: str, **settings: Any) -> str:
    """What `wsd-local` writes to a terminal, if it ends well."""
    running = OnTerminal(["-m", "wsd_local", *arguments], **settings)
    code = running.end()
    assert code == 0, running.said
    return running.said
