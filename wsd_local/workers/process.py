"""The process that uses workers, seen from the one that answers.

Contract: `EngineProcess` owns one child process, in which both models of a pair live: a worker serves one client at a
time. Whatever becomes of a worker, of the network, or of llama.cpp, an order ends: with its answer, with an error of
this package, or with a `WorkerError` that names the worker; after that the process is gone (`lost`), and with it what
it held. Orders may come from any thread and are carried out one after the other.
"""

from __future__ import annotations

import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from wsd_local import errors
from wsd_local.errors import CancelledError, WorkerError, WsdError
from wsd_local.llama import Cancellation
from wsd_local.llama.logs import LOGGER
from wsd_local.system import child
from wsd_local.system.rpc import Endpoint, Version, ask, endpoints
from wsd_local.workers.devices import protocol_version, remote_devices
from wsd_local.workers.wire import Message, receive, send

_ENGINE = "wsd_local.workers.engine"
_STEP_S = 0.02
"""How often a wait looks for a request to stop."""
_QUESTION_S = 2.0
"""Time for a worker to show that it is there."""
_MOST_LOG = 1 << 20

Progress = Callable[[float], bool]
"""Called with the loaded fraction; stops the loading by returning False."""


class EngineProcess:
    """A child process that has the devices of `workers`.

    Args:
        workers: which were found well.
        version: of the protocol.
        patience: seconds that one order may take.

    Raises:
        WorkerError: a worker cannot be used.
    """

    def __init__(self, workers: Sequence[Endpoint], version: Version, patience: float) -> None:
        self._workers, self._version, self._patience = tuple(workers), version, patience
        self._lock = threading.RLock()
        self._loss: str | None = None
        self._number = 0
        self.spent_s = 0.0
        """Seconds that orders have taken."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._child = child.start([_ENGINE], stdin=subprocess.PIPE, stderr=self._log)
        self._received: queue.Queue[tuple[Message, bytes] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            places = [str(worker) for worker in workers]
            self.order({"order": "start", "workers": places, "level": LOGGER.getEffectiveLevel()})
        except BaseException:
            self.close()
            raise

    @classmethod
    def of(cls, rpc: str, patience: float) -> EngineProcess:
        """A process for the workers in a list of addresses, each of which is asked before.

        Raises:
            UsageError: the list is written wrongly.
            WorkerError: a worker cannot be used.
        """
        remote_devices(rpc)
        return cls(endpoints(rpc), protocol_version(), patience)

    @property
    def lost(self) -> bool:
        """Whether the process is gone."""
        return self._loss is not None

    def order(
        self, order: Message, cancellation: Cancellation | None = None, progress: Progress | None = None
    ) -> tuple[Message, bytes]:
        """Have one order carried out; its answer.

        Args:
            order: see `wsd_local.workers.engine`.
            cancellation: stops it.
            progress: of loading.

        Raises:
            CancelledError: it was stopped.
            WorkerError: a worker was lost, or the process.
            WsdError: the order failed.
        """
        with self._lock:
            if self._loss is not None:
                raise WorkerError(self._loss)
            begun = time.perf_counter()
            try:
                self._number += 1
                self._send({**order, "number": self._number})
                message, data = self._answer(cancellation, progress)
            finally:
                self.spent_s += time.perf_counter() - begun
        if "error" in message:
            raise _error(*message["error"])
        return message["answer"], data

    def _answer(self, cancellation: Cancellation | None, progress: Progress | None) -> tuple[Message, bytes]:
        """Wait for an answer or an error; a request to stop is passed on once."""
        until, stopped = time.monotonic() + self._patience, False
        while True:
            if not stopped and cancellation is not None and cancellation.is_set:
                stopped = True
                self._send({"order": "cancel"})
            try:
                received = self._received.get(timeout=_STEP_S)
            except queue.Empty:
                if time.monotonic() > until:
                    self._lose(late=True)
                continue
            if received is None:
                self._lose()
            if received[0]["number"] != self._number:  # an order was left in the middle, by an exception
                continue
            if "progress" not in received[0]:
                return received
            until = time.monotonic() + self._patience
            if progress is not None and not stopped and not progress(received[0]["progress"]):
                stopped = True
                self._send({"order": "cancel"})

    def close(self) -> None:
        """End the process."""
        if self._loss is None:
            self._loss = "the pair is closed; load it again"
        child.end(self._child)

    def _send(self, message: Message) -> None:
        assert self._child.stdin is not None
        try:
            send(self._child.stdin, message)
        except OSError:  # it is gone
            self._lose()

    def _read(self) -> None:
        stream = self._child.stdout
        assert stream is not None
        try:
            while (received := receive(stream)) is not None:
                if (line := received[0].get("log")) is not None:
                    LOGGER.log(int(line[0]), "%s", line[1])
                else:
                    self._received.put(received)
        except (OSError, ValueError):  # it was closed
            pass
        self._received.put(None)

    def _lose(self, *, late: bool = False) -> NoReturn:
        """End what is left of the process, find out which worker it was, and raise the error."""
        with suppress(subprocess.TimeoutExpired):  # its own end says more than ours
            self._child.wait(0 if late else _QUESTION_S)
        child.kill(self._child)
        code = self._child.wait()
        names = " and ".join(map(str, self._workers))
        gone = next((trouble for worker in self._workers if (trouble := self._trouble(worker)) is not None), None)
        if late:
            why = f"no answer within {self._patience:g} s (--rpc-timeout): {gone or f'{names} are too slow'}"
        elif gone is not None:
            why = f"lost in the middle of the work: {gone}"
        elif code == -9:
            why = "the process that uses the RPC workers was killed, probably for want of memory"
        elif code > 0:
            why = f"the process that uses the RPC workers ended by itself: {self._last_words()}"
        else:
            why = f"the connection to the RPC worker {names} broke in the middle of the work: {self._last_words()}"
        self._loss = f"{why}; what was written stays, and the next try connects again"
        child.end(self._child)
        raise WorkerError(self._loss)

    def _trouble(self, worker: Endpoint) -> str | None:
        """What is wrong with a worker; None if it answers, now that nobody uses it."""
        try:
            ask(worker, self._version, _QUESTION_S)
        except WorkerError as error:
            return str(error)
        return None

    def _last_words(self) -> str:
        lines = [line for line in child.text_of(self._log, _MOST_LOG).splitlines() if line.strip()]
        return lines[-1].rpartition(": ")[2] if lines else "the worker closed it"


def _error(kind: str, text: str) -> WsdError:
    """An error of the other process as this one's."""
    found = getattr(errors, kind, WsdError)
    if found is CancelledError:
        return CancelledError("stopped")
    try:
        return found(text)
    except TypeError:  # it takes more
        return WsdError(text)
