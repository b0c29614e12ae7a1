"""Child processes: for work that cannot be stopped from inside, may crash, or handles untrusted files.

Contract: the only place that starts processes. A child of this package is isolated: it imports what this process would
import, never from the working folder or from PYTHON... variables; its working folder is the package's; it sees the
variables that Python, llama.cpp and drivers need and no secrets; it inherits no files, and ends with this process. When
`run`, `output` or `use` returns or raises, the child has ended, and with it all that a stopped one had started. It is
stopped through the function that `stoppable` is given, never by Ctrl-C: only this process decides. Programs of the
system are looked for in the absolute folders of PATH, never in the working folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from wsd_local.errors import CancelledError

StepProgress = Callable[[str, float], None]
"""Called with what is being done and how much of it, 0 to 1."""
Stoppable = Callable[[Callable[[], None]], None]
"""Called with a function that ends the work at once, from any thread."""
Waiting = Callable[[], bool]
"""Called now and then during a wait; returning False ends the work."""

_LONGEST_CAUSE = 300
_PACKAGES = ("llama_cpp", "numpy", "jinja2", "gguf", "llguidance")
_FOLDER = Path(__file__).resolve().parents[1]
_SEEN = re.compile(
    r"""PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|XDG_(CACHE|CONFIG|DATA)_HOME
    |SYSTEMROOT|SYSTEMDRIVE|WINDIR|COMSPEC|PATHEXT|USERNAME|USERPROFILE|APPDATA|LOCALAPPDATA|PROGRAMDATA
    |NUMBER_OF_PROCESSORS|PROCESSOR_(ARCHITECTURE|IDENTIFIER)|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_(FALLBACK_)?LIBRARY_PATH
    |HF_HOME|HF_HUB_CACHE|(GGML|LLAMA|CUDA|NVIDIA|HIP|ROCM|ROCR|HSA|GPU|VK|SYCL|ONEAPI|ZE|METAL|MTL)_.*
    |(OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|MALLOC)_.*""",
    re.VERBOSE,
)
"""Names of variables that the system, Python, llama.cpp and drivers need."""
_ALWAYS = {"GGML_NO_BACKTRACE": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)
_PLACES = re.compile(r"TMPDIR|TEMP|TMP|HOME|.*_(HOME|CACHE|PATH|DIR|FILE|CERT|CA_BUNDLE)")
"""Names of variables that hold paths, which may be relative to the working folder."""


def nothing(*_: object) -> None:
    """Does nothing."""


@dataclass(frozen=True, slots=True)
class Observer:
    """Follows the work of a child process: `progress` is called with each step, `stoppable` once, with its stop."""

    progress: StepProgress = nothing
    stoppable: Stoppable = nothing


UNOBSERVED = Observer()


def environment(needs: Collection[str] = ()) -> dict[str, str]:
    """The variables that a child sees: those of the system and of libraries, and `needs`; no others.

    Relative paths become absolute, because the child works in another folder.
    """
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        if name in needs or (_SEEN.fullmatch(name) and not _SECRET.search(name)):
            found[name] = _absolute(value) if _PLACES.fullmatch(name) else value
    return found


def _absolute(value: str) -> str:
    return os.pathsep.join(str(Path(part).absolute()) for part in value.split(os.pathsep) if part)


def start(
    arguments: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.STDOUT,
    needs: Collection[str] = (),
    also: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module with arguments, isolated; to be ended with `end`.

    Args:
        arguments: the module's name, and what it is given.
        stdin: `subprocess.PIPE` to talk with it; None: it is empty.
        stdout, stderr: as for `subprocess.Popen`.
        needs: names of variables that it sees beside the usual ones.
        also: variables with values of their own.

    Raises:
        OSError: no process can be started.
    """
    options = ["-I", "-u", "-X", "utf8", *(["-B"] if sys.dont_write_bytecode else [])]
    talk = "follow" if stdin is None else "talk"
    return subprocess.Popen(
        [sys.executable, *options, str(_FOLDER / "system" / "boot.py"), talk, os.pathsep.join(_folders()), *arguments],
        cwd=_FOLDER,
        env=environment(needs) | _ALWAYS | dict(also or {}),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def _folders() -> list[str]:
    """Where this process finds packages: folders made for them, and others that hold what we need; never its own."""
    here = _working_folder()
    specs = [importlib.util.find_spec(name) for name in _PACKAGES]
    found = [str(Path(spec.origin).parents[1]) for spec in specs if spec is not None and spec.origin]
    named = [entry for entry in sys.path if entry.endswith("-packages")]
    return [folder for folder in dict.fromkeys([*named, *found]) if folder != here and Path(folder).is_dir()]


def _working_folder() -> str | None:
    """The working folder, None if it exists no more."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a child and what it started, without waiting; from any thread. It may have ended already."""
    if child.poll() is not None:
        return
    if sys.platform == "win32":
        family = _family(child.pid)
        child.kill()
        for process in family:
            with suppress(OSError, LookupError):
                os.kill(process, signal.SIGTERM)
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    import psutil

    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill a child and what it started, and wait until it is gone. It may have ended already."""
    kill(child)
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with suppress(OSError):  # what was not written yet
                stream.close()


def wait(child: subprocess.Popen[bytes], patience: float, waiting: Waiting | None, stopped: str) -> int | None:
    """The exit code of a child; None if it has not ended after `patience` seconds.

    `waiting` is called now and then; where it returns False, the wait ends.

    Raises:
        CancelledError: `waiting` returned False; its message is `stopped`.
    """
    step = 0.02
    for _ in range(int(patience / step)):
        try:
            return child.wait(step)
        except subprocess.TimeoutExpired:
            if waiting is not None and not waiting():
                raise CancelledError(stopped) from None
    return None


def run(arguments: Sequence[str], on_line: Callable[[str], None], stoppable: Stoppable) -> tuple[int, list[str]]:
    """Run a module with arguments, isolated: its exit code and the last lines that it wrote.

    `on_line` is called with each line of its standard output and standard error.

    Raises:
        CancelledError: it was stopped.
    """
    stopped = False
    child = start(arguments)

    def stop() -> None:
        nonlocal stopped
        stopped = True
        kill(child)

    lines: deque[str] = deque(maxlen=1000)
    try:
        stoppable(stop)
        assert child.stdout is not None
        for line in _lines(child.stdout):
            lines.append(line)
            on_line(line)
        code = child.wait()
    finally:
        end(child)
    if stopped:
        raise CancelledError("stopped")
    return code, list(lines)


def output(arguments: Sequence[str], *, needs: Collection[str] = (), patience: float = 30.0) -> str:
    """Run a module with arguments, isolated: what it wrote to standard output; nothing if it failed.

    It is ended after `patience` seconds.
    """
    with tempfile.TemporaryFile() as out:
        child = start(arguments, stdout=out, stderr=subprocess.DEVNULL, needs=needs)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            return ""
        finally:
            end(child)
        return text_of(out) if child.returncode == 0 else ""


def text_of(file: IO[bytes], most: int = -1) -> str:
    """What a child wrote to a temporary file, at most `most` bytes of it."""
    file.seek(0)
    return file.read(most).decode(errors="replace")


def program(name: str) -> str | None:
    """Absolute path of a program of the system; what only the working folder holds does not count."""
    here = _working_folder()
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        if not Path(folder).is_absolute() or folder == here:
            continue
        found = shutil.which(name, path=folder)
        if found is not None and Path(found).parent == Path(folder):  # Windows looks into the working folder first
            return found
    return None


def use(
    command: Sequence[str], *, given: bytes | None = None, needs: Collection[str] = (), patience: float
) -> tuple[int, bytes] | None:
    """Run a program of the system, isolated as far as a foreign program can be: its exit code and standard output.

    Args:
        command: its name, and what it is given.
        given: its standard input; None: it is empty.
        needs: names of variables that it sees beside the usual ones.
        patience: seconds after which it is ended.

    Returns:
        None if there is no such program, it cannot be started, or it did not end in time.
    """
    if (found := program(command[0])) is None:
        return None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as source:
        source.write(given or b"")
        source.seek(0)
        try:
            child = subprocess.Popen(
                [found, *command[1:]],
                cwd=_FOLDER,
                env=environment(needs),
                stdin=source,
                stdout=out,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError:
            return None
        try:
            code = child.wait(patience)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(child)
        out.seek(0)
        return code, out.read()


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come; a progress bar's carriage return ends one too."""
    left = b""
    while block := os.read(stream.fileno(), 1 << 16):
        *lines, left = re.split(rb"[\r\n]", left + block)
        yield from (line.decode(errors="replace") for line in lines if line.strip())
    if left.strip():
        yield left.decode(errors="replace")


def cause(code: int, lines: list[str], pattern: re.Pattern[str]) -> str:
    """The most telling line of the output: the last that `pattern` finds and all after it, or the last at all."""
    if code == -9:
        return "the process was killed, probably for want of memory"
    for index in range(len(lines) - 1, -1, -1):
        if found := pattern.search(lines[index]):
            first = next(group.strip() for group in found.groups() if group)
            return " ".join([first, *lines[index + 1 :]])[:_LONGEST_CAUSE]
    return lines[-1].strip() if lines else f"the process ended with exit code {code} and said nothing"
