"""`wsd-local` as a person runs it: arguments and streams in, streams and an exit code out.

`wsd` calls the command line within the test's own process, which spares the half second of an interpreter's start;
`wsd_process` and `started` start a process, for tests of what only a process has: signals, pipes that close, limits,
variables that a library reads when it is imported.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

EGG = "How do I boil an egg?"
LONG = ["--mode", "draft", "--ignore-eos", "--max-tokens", "1800"]
"""Settings of a reply that goes on for a while."""

Done = subprocess.CompletedProcess[bytes]


def _one_thread(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """One thread for replies: tests run side by side."""
    if arguments[:1] == ("run",) and arguments[1:2] != ("merge",) and not {"--threads", "--help"} & {*arguments}:
        return (*arguments, "--threads", "1")
    return arguments


def wsd(*arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Done:
    """Run the command to its end within this process. Its streams are files, never a terminal."""
    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread only
        return wsd_process(*arguments, stdin=stdin, env=env, cwd=cwd)
    from wsd_local.cli import main

    arguments = _one_thread(arguments)
    before = Path.cwd()
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(stdin)
        files[0].seek(0)
        stack.enter_context(patch.dict(os.environ, env or {}, clear=env is not None))
        stack.enter_context(patch.object(sys, "argv", ["wsd-local", *arguments]))
        stack.enter_context(_streams(files))
        stack.callback(os.chdir, before)
        os.chdir(cwd or before)
        code: int | str | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        assert isinstance(code, int), code
        sys.stdout.flush()
        sys.stderr.flush()
        return subprocess.CompletedProcess(["wsd-local", *arguments], code, *(_content(file) for file in files[1:]))


@contextmanager
def _streams(files: Sequence[IO[bytes]]) -> Iterator[None]:
    """The three standard streams as Python opens them for a process without a terminal."""
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = io.TextIOWrapper(files[0], encoding="utf-8")
    sys.stdout = io.TextIOWrapper(files[1], encoding="utf-8")
    sys.stderr = io.TextIOWrapper(files[2], encoding="utf-8", errors="backslashreplace", line_buffering=True)
    mine = sys.stdin, sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before
        for stream in mine:
            stream.detach()


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def wsd_process(*arguments: str, stdin: bytes = b"", **settings: Any) -> Done:
    """Run the command to its end in a process of its own."""
    command = [sys.executable, "-m", "wsd_local", *_one_thread(arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, **settings)


def started(*arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
    """Start the command with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "wsd_local", *arguments, "--threads", "1"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **settings,
    )


def complains(done: Done, code: int, *words: str) -> None:
    """One line on standard error with these words, nothing on standard output, this code."""
    error = done.stderr.decode()
    assert done.returncode == code, error
    assert done.stdout == b""
    assert len(error.strip().splitlines()) == 1, error
    assert "Traceback" not in error
    for word in words:
        assert word in error
