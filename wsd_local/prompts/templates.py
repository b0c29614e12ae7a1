"""A model's chat template, rendered in a child process that can be stopped.

Contract: a template is compiled and rendered by `wsd_local.prompts.rendering` in a child process that stays alive for
later turns. Compiling and rendering have `TIME_S` seconds each, and limits of memory and length. If a template exceeds
one, its process is ended, the error names the limit, and the next rendering starts a new process. A requested stop ends
the process at once. Safe from any thread.
"""

from __future__ import annotations

import queue
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from wsd_local.errors import CancelledError, FitError, ModelError, RefusedError, WsdError
from wsd_local.prompts.rendering import MEMORY, MEMORY_FACTOR, read_frame, write_frame
from wsd_local.system import child
from wsd_local.system.visible import visible
from wsd_local.units import MIB

TIME_S = 2.0
"""Seconds for compiling a template, and for rendering it."""
_START_S = 120.0
_STEP_S = 0.02
LONGEST_TEMPLATE, LONGEST_CONVERSATION = MIB, 16 * MIB
"""In characters. The longest templates of real models have about 30,000."""
_LONGEST_ANSWER = 512 * MIB
_LONGEST_REASON = 300
_OTHER = "choose another draft model"

Conversation = Sequence[Mapping[str, Any]]


def never() -> bool:
    """For work that nobody stops."""
    return False


class Template:
    """A chat template. While work takes long, `cancelled` is called repeatedly; returning True stops it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = self._compiled = False
        self._source: str | None = None
        self._name = "the chat template"
        self._ended: Callable[[], object] = child.nothing

    def start(self) -> None:
        """Start the process if none is running, without waiting for it.

        Raises:
            WsdError: the system cannot start a process.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            self.close()
            try:
                pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
                process = child.start(["wsd_local.prompts.rendering"], stdin=pipe, stdout=pipe, stderr=nothing)
            except OSError as error:
                raise WsdError(f"no process can be started for the chat template: {error.strerror}") from error
            self._process = process
            self._ended = weakref.finalize(self, child.end, process)

    def close(self) -> None:
        """End the process. Rendering again starts another one."""
        with self._lock:
            self._ended()
            self._process, self._ready, self._compiled = None, False, False

    def compile(self, source: str, name: str, cancelled: Callable[[], bool] = never) -> None:
        """Compile a template; errors call it `name`.

        Raises:
            ModelError: it cannot be parsed (the message names the line), or it exceeds a limit.
            CancelledError: `cancelled` returned True.
        """
        if len(source) > LONGEST_TEMPLATE:
            raise ModelError(f"{name} is {len(source)} characters long, and {LONGEST_TEMPLATE} can be read; {_OTHER}")
        with self._lock:
            self._source, self._name, self._compiled = source, name, False
            self._compile(cancelled)

    def render(
        self,
        conversations: Sequence[Conversation],
        values: Mapping[str, Any],
        now: datetime,
        cancelled: Callable[[], bool] = never,
    ) -> tuple[str, str | None]:
        """The text of the first conversation that the template does not refuse, and the date that it inserted.

        Raises:
            RefusedError: it refuses all of them.
            ModelError: it exceeds a limit.
            FitError: a conversation is too long for any model.
            CancelledError: `cancelled` returned True.
        """
        size = sum(len(message["content"]) for message in conversations[0])
        if size > LONGEST_CONVERSATION:
            raise FitError(
                f"the conversation is {size} characters long, and a chat template can have {LONGEST_CONVERSATION}; "
                "shorten it"
            )
        request = {"conversations": conversations, "values": dict(values), "now": now.isoformat()}
        with self._lock:
            if not self._compiled or self._process is None or self._process.poll() is not None:
                self._compile(cancelled)
            answer = self._request(request, size, cancelled)
        if "error" in answer:
            raise self._error(answer)
        return str(answer["text"]), answer["date"]

    def _compile(self, cancelled: Callable[[], bool]) -> None:
        self.start()
        assert self._source is not None
        answer = self._request({"template": self._source}, len(self._source), cancelled)
        if "error" in answer:
            raise self._error(answer)
        self._compiled = True

    def _error(self, answer: Mapping[str, Any]) -> WsdError:
        where = "" if answer.get("line") is None else f" in line {answer['line']}"
        reason = " ".join(visible(str(answer.get("reason", "")), keep_newlines=False).split())
        reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} …"
        texts = {
            "broken": f"is broken{where}: {reason}",
            "nested": "is nested too deeply",
            "refused": f"refuses this conversation{where}: {reason}",
            "memory": f"needs more than {MEMORY // MIB} MiB of memory{where}; {_OTHER}",
            "length": f"makes a prompt that is far longer than the conversation; {_OTHER}",
        }
        text = texts[str(answer["error"])]
        if answer["error"] == "refused":
            return RefusedError(f"{self._name} {text}", text)
        return ModelError(f"{self._name} {text}")

    # -- the process -----------------------------------------------------------------------------------------

    def _request(self, request: dict[str, Any], size: int, cancelled: Callable[[], bool]) -> dict[str, Any]:
        """The process's answer to a request of `size` characters; the process is ended if none comes in time."""
        assert self._process is not None
        answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        arguments = (self._process, request, answers, self._ready)
        threading.Thread(target=_exchange, args=arguments, name="chat template", daemon=True).start()
        try:
            if not self._ready:
                self._ready = self._next(answers, _START_S, 0, cancelled) is not None
            most = MEMORY + 4 * MEMORY_FACTOR * size
            answer = self._next(answers, TIME_S, most, cancelled) if self._ready else None
        except _LimitError as limit:
            self.close()
            raise ModelError(f"{self._name} {limit}; {_OTHER}") from None
        except BaseException:
            self.close()
            raise
        if answer is None:
            code, ready = self._process.wait(), self._ready
            self.close()
            if not ready:
                raise WsdError(f"the program that renders chat templates does not start (exit code {code})")
            raise ModelError(f"{self._name} ended its process (exit code {code}); {_OTHER}")
        return answer

    def _next(
        self,
        answers: queue.Queue[dict[str, Any] | None],
        patience: float,
        memory: int,
        cancelled: Callable[[], bool],
    ) -> dict[str, Any] | None:
        """The next answer; None if the process has ended.

        Raises:
            _LimitError: it takes longer than `patience` seconds, or more than `memory` bytes (0: no limit).
            CancelledError: `cancelled` returned True.
        """
        deadline = time.monotonic() + patience
        while True:
            late = time.monotonic() > deadline
            try:
                return answers.get(timeout=0 if late else _STEP_S)
            except queue.Empty:
                if cancelled():
                    raise CancelledError("stopped") from None
                if late:
                    raise _LimitError(f"does not end within {patience:g} s") from None
                if memory and _resident(self._process) > memory:
                    raise _LimitError(f"needs more than {MEMORY // MIB} MiB of memory") from None


class _LimitError(Exception):
    """The limit that a template exceeds."""


def _exchange(
    process: subprocess.Popen[bytes],
    request: dict[str, Any],
    answers: queue.Queue[dict[str, Any] | None],
    ready: bool,
) -> None:
    """Put the process's answers into the queue: that it is ready, unless it is known to be, and that to the request."""
    assert process.stdin is not None and process.stdout is not None
    try:
        if not ready:
            answers.put(read_frame(process.stdout))
        write_frame(process.stdin, request)
        answers.put(read_frame(process.stdout, _LONGEST_ANSWER))
    except (OSError, ValueError):  # it has ended, or was ended while we read
        answers.put(None)


def _resident(process: subprocess.Popen[bytes] | None) -> int:
    """Bytes of memory that a process uses, for systems without limits of their own; 0 if it has ended."""
    import psutil

    try:
        return 0 if process is None else int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return 0
