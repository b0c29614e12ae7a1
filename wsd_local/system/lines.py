"""Lines of a stream as they arrive, until it ends or a stop is requested.

Contract: a line ends with LF, CR or CRLF. Waiting for one can be stopped at any time.
"""

from __future__ import annotations

import codecs
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator

from wsd_local.errors import UsageError
from wsd_local.system.inputs import LARGEST


def lines(descriptor: int, is_stopped: Callable[[], bool]) -> Iterator[bytes]:
    """Lines of a stream without their ends, as soon as they are there.

    Raises:
        UsageError: a line has no end within `LARGEST` bytes, or the stream is in an encoding of wide characters.
        OSError: the stream cannot be read.
    """
    found: queue.Queue[bytes | Exception | None] = queue.Queue(1)

    def read() -> None:
        try:
            for line in _split(descriptor):
                found.put(line)
            found.put(None)
        except (OSError, UsageError) as error:
            found.put(error)

    threading.Thread(target=read, daemon=True).start()
    while not is_stopped():
        try:
            line = found.get(timeout=0.05)
        except queue.Empty:
            continue
        if isinstance(line, Exception):
            raise line
        if line is None:
            return
        yield line


def _split(descriptor: int) -> Iterator[bytes]:
    """Lines of a stream as they come, whatever ends them.

    Raises:
        UsageError: a line has no end within `LARGEST` bytes, or the stream is in an encoding of wide characters.
    """
    rest, after_return = bytearray(), False
    begun = False
    while data := os.read(descriptor, 1 << 16):  # Python's own buffer would be locked when it exits
        if not begun and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UsageError("standard input is UTF-16, which --input - does not read: send UTF-8, or name a file")
        begun = True
        if after_return:
            data = data.removeprefix(b"\n")
        after_return = data.endswith(b"\r")
        *lines, last = re.split(rb"\r\n|\r|\n", data)
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > LARGEST:
            raise UsageError(f"standard input has a line of more than {LARGEST >> 20} MiB: send shorter ones")
    if rest:
        yield bytes(rest)
