"""Standard output and standard error: how text is written to them, also where one of them is closed.

Contract: commands write through this module only. On a terminal each text goes through `visible`, so that nothing that
a model, a file or a name holds can steer it; in a pipe or a file the answer is written unchanged, byte by byte.
Standard error is for people: text there always goes through `visible`. Writing to a closed standard output is an error
of one line; a closed standard error discards what is written to it, a closed standard input is empty.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from wsd_local.errors import UsageError, os_message, reason
from wsd_local.system.visible import visible

if TYPE_CHECKING:
    from rich.console import Console


class _Closed(io.TextIOBase):
    """A standard output that was closed before the program began."""

    def write(self, _text: str) -> int:
        raise UsageError("standard output is closed: there is nowhere to write to")


def prepare() -> None:
    """Make the three standard streams usable, whatever state they are in when the program begins."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file that is opened, such as a model, gets the number, and native output goes into it.
            os.open(os.devnull, os.O_RDWR)
    # The streams stay open until the process ends.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        sys.stdout = _Closed()
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # Lone surrogates, and what a terminal's encoding lacks, are written as escapes: in JSON it stays valid.
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """A reader that closes the pipe ends the command, and is no error (`| head -1`)."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # Windows reports EINVAL where others report EPIPE.
        has_left = isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL)
        if not has_left:
            raise
        _discard_output()
        raise SystemExit(0) from None


def describe(error: OSError) -> str:
    """`os_message` of an error, with the name of standard output if that takes no more."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
        return f"standard output: {reason(error)}"
    return os_message(error)


def _discard_output() -> None:
    """What is left of the output goes nowhere: Python flushes once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def control(codes: str) -> None:
    """Write the program's own control codes to standard error; what stands between them must be visible already."""
    sys.stderr.write(codes)
    sys.stderr.flush()


def require_output() -> None:
    """Raise `UsageError` if standard output is closed, before work is done for it."""
    if isinstance(sys.stdout, _Closed):
        raise UsageError("standard output is closed: there is nowhere to write to")


def write(text: str, *, before: str = "") -> None:
    """Write to standard output. `before`: what was written before it, of a text that comes in pieces."""
    sys.stdout.write(visible(text, before=before) if sys.stdout.isatty() else text)


def line(text: str) -> None:
    """Write one line to standard output; a reader may have left."""
    with reader_may_leave():
        sys.stdout.write((visible(text, keep_newlines=False) if sys.stdout.isatty() else text) + "\n")


def json_line(value: Any) -> None:
    """Write one line of JSON to standard output; on a terminal hidden characters are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    if sys.stdout.isatty():
        text = "".join(
            sign if sign == shown else json.dumps(sign)[1:-1] for sign, shown in zip(text, visible(text), strict=True)
        )
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Write one line to standard error, without the secrets of an address or the environment."""
    from wsd_local.system.network import without_secrets

    text = without_secrets(text)
    with contextlib.suppress(OSError):  # there is nowhere else to report it
        sys.stderr.write(visible(text, keep_newlines=False) + "\n")
        sys.stderr.flush()


def message(text: str) -> None:
    """Write one line to standard error, after the program's name."""
    note(f"wsd-local: {text}")


def confirmed(question: str) -> bool:
    """Ask a person at the terminal, on standard error; everything but yes is no."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{visible(question, keep_newlines=False)} [y/N]: ")
        sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def block(text: str) -> None:
    """Write lines to standard error, without the secrets of an address or the environment."""
    from wsd_local.system.network import without_secrets

    with contextlib.suppress(OSError):
        sys.stderr.write(visible(without_secrets(text)))


def console(*, stderr: bool = False) -> Console:
    """A console of Rich in which no text is markup, and every text is `visible`."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class VisibleConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # Rich would end the process with exit code 1

        def render_str(self, text: str, **options: Any) -> Text:
            # Rich drops some control characters without a sign.
            return super().render_str(visible(text), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(visible(text), style)

    return VisibleConsole(stderr=stderr, highlight=False, markup=False, emoji=False)


class VisibleFormatter(logging.Formatter):
    """Log lines for a terminal: native libraries put text from files into them."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return visible(super().format(record))
