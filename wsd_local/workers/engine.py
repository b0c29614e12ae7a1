"""`wsd_local.workers.engine`: models and contexts that use workers, in a process of their own.

Contract: run by `wsd_local.workers.process`, because llama.cpp ends the process where a worker is lost, and waits for
ever where one hangs. Orders come on standard input and are answered in their order on standard output (`wire`): with
what was asked for, or with an error's kind and text. `cancel` is no order: it stops the one in work. Between an order
and its answer there may be `progress` of loading and lines of `log`.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from wsd_local.core.contexts import Question
from wsd_local.errors import WsdError
from wsd_local.llama import Cancellation, Context, ContextOptions, Model, rpc
from wsd_local.llama.logs import LOGGER
from wsd_local.system.rpc import guard
from wsd_local.system.sockets import connections
from wsd_local.workers.wire import Message, Tokens, receive, send

_STEPS = 100
"""Reports of a loading's progress, at most."""


class Engine:
    """Carries out orders; `tell` writes a message that is no answer."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self.cancellation = Cancellation()
        self._tell = tell
        self._models: dict[str, Model] = {}
        self._contexts: dict[str, Context] = {}
        self._tokens: dict[str, Tokens] = {}

    def answer(self, order: Message) -> tuple[Message, bytes]:
        """The answer to one order."""
        found = getattr(self, f"_{order['order']}")(order)
        return found if isinstance(found, tuple) else (found or {}, b"")

    def _start(self, order: Message) -> None:
        LOGGER.setLevel(order["level"])
        for endpoint in order["workers"]:
            rpc.register(endpoint)

    def _open(self, order: Message) -> Message:
        """Load a model; what its file alone does not tell."""
        shown = -1

        def progress(fraction: float) -> bool:
            nonlocal shown
            if shown < (now := int(fraction * _STEPS)):
                shown = now
                self._tell({"progress": fraction, "number": order["number"]})
            return not self.cancellation.is_set

        given = dict(order["given"])
        path, parts = Path(given.pop("path")), [Path(part) for part in given.pop("parts")]
        model = self._models[order["role"]] = Model(path, parts=parts, progress=progress, **given)
        names = ("n_swa", "n_embd", "is_recurrent", "n_ctx_train", "may_offload")
        return {name: getattr(model, name) for name in names}

    def _context(self, order: Message) -> Message:
        role, given = order["role"], dict(order["options"])
        if given["lora"] is not None:
            given["lora"] = (Path(given["lora"][0]), given["lora"][1])
        context = Context(self._models[role], ContextOptions(**given), self.cancellation)
        self._contexts[role], self._tokens[role] = context, Tokens()
        return {name: getattr(context, name) for name in ("cells", "streams", "piece", "flash_attn")}

    def _step(self, order: Message) -> Message:
        """One evaluation for the questions; what the sequences hold then, and which rows are at hand."""
        context, tokens = self._contexts[order["role"]], self._tokens[order["role"]]
        questions = [
            Question(one["seq"], tokens.lengthen(one["seq"], *one["tokens"]), one["row"], _ignore, begun=one["begun"])
            for one in order["questions"]
        ]
        context.step(questions)
        held = []
        for question in questions:
            mirror = list(context.held(question.seq))
            is_begun = question.tokens[: len(mirror)] == mirror
            held.append([question.seq, len(mirror) if is_begun else mirror])
        answered = [{"begun": question.begun, "evaluated": question.evaluated} for question in questions]
        return {"questions": answered, "held": held} | _at_hand(context)

    def _held(self, order: Message) -> Message:
        """All that the sequences hold: asked for after an error."""
        context = self._contexts[order["role"]]
        return {"held": [[seq, list(context.held(seq))] for seq in range(context.n_seq)]} | _at_hand(context)

    def _truncate(self, order: Message) -> Message:
        return {"kept": self._contexts[order["role"]].truncate(order["seq"], order["length"])}

    def _score(self, order: Message) -> Message:
        context = self._contexts[order["role"]]
        score = context.score(order["row"], order["token"], distribution=order["distribution"], top=order["top"])
        return {"score": [score.logprob, score.top1, score.entropy, score.top]}

    def _best(self, order: Message) -> Message:
        return {"best": self._contexts[order["role"]].best(order["row"])}

    def _logits(self, order: Message) -> tuple[Message, bytes]:
        return {}, self._contexts[order["role"]].logits(order["row"]).tobytes()

    def _close(self, order: Message) -> None:
        """Free the context of a model, and the model unless it is to stay."""
        role = order["role"]
        if (context := self._contexts.pop(role, None)) is not None:
            context.close()
        if (model := self._models.pop(role, None)) is not None:
            model.close()


def _at_hand(context: Context) -> Message:
    return {"rows": [list(rows.items()) for rows in context.at_hand], "evaluated": context.evaluated}


def _ignore(_position: int, _row: int) -> None:
    """The rows are read by the other process."""


class _Lines(logging.Handler):
    """Sends log lines to the other process."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        super().__init__()
        self._tell_of = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell_of({"log": [record.levelno, record.getMessage()]})


def _guard_connections() -> None:
    """Let the system end connections to machines that are gone: llama.cpp waits for them without a limit."""
    seen: set[int] = set()
    while True:
        with suppress(OSError):
            found = connections()
            for inode, connection in found.items():
                with connection:
                    if inode not in seen:
                        guard(connection)
            seen = set(found)
        time.sleep(0.5)


def _read_orders(stream: IO[bytes], orders: queue.Queue[Message], cancellation: Cancellation) -> None:
    """Put orders into a queue, and stop the work where that is wanted; ends the process where the stream ends."""
    while (received := receive(stream)) is not None:
        message = received[0]
        if message.get("order") == "cancel":
            cancellation.set()
        else:
            cancellation.clear()
            orders.put(message)
    os._exit(0)


def main() -> None:
    """Entry point."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what native code prints must not get between the messages
    lock = threading.Lock()

    def tell(message: Message, data: bytes = b"") -> None:
        with lock:
            send(answers, message, data)

    LOGGER.addHandler(_Lines(tell))
    LOGGER.propagate = False
    engine, orders = Engine(tell), queue.Queue[Message]()
    threading.Thread(target=_guard_connections, daemon=True).start()
    threading.Thread(target=_read_orders, args=(sys.stdin.buffer, orders, engine.cancellation), daemon=True).start()
    while True:
        order: dict[str, Any] = orders.get()
        try:
            found, data = engine.answer(order)
            tell({"answer": found, "number": order["number"]}, data)
        except WsdError as error:
            tell({"error": [type(error).__name__, str(error)], "number": order["number"]})


if __name__ == "__main__":
    main()
