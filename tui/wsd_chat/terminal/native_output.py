"""Output of native code, kept off the screen.

Contract: Textual draws on file descriptor 2. Inside `own_screen(log)` the screen is drawn on a duplicate of it, and
what native code writes to descriptor 2 goes to the file `log`, as Python's log lines of `wsd_local` do.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsd_local.paths import make_private


@contextmanager
def own_screen(log: Path) -> Iterator[None]:
    """Keep native lines off the screen until the end of the block."""
    log.parent.mkdir(parents=True, exist_ok=True)
    screen, original = os.dup(2), sys.__stderr__
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("wsd_local")
    level, propagate = logger.level, logger.propagate
    with log.open("ab") as file:
        make_private(log)
        os.dup2(file.fileno(), 2)
    sys.__stderr__ = io.TextIOWrapper(os.fdopen(screen, "wb", closefd=False), encoding="utf-8", line_buffering=True)  # type: ignore[misc]
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        with suppress(OSError):  # the terminal may be gone
            sys.__stderr__.flush()
        sys.__stderr__ = original  # type: ignore[misc]
        os.dup2(screen, 2)
        os.close(screen)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        handler.close()
