"""A server under load for a long time: many clients over all protocols, of which many go away in the middle.

    python tests/bench/soak.py [--requests 10000] [--clients 32] [--leaving 0.33] [--parallel 8] [--seed 0]

Serves the embedded pair. Each client sends one request after the other, of a protocol by chance, whole or as a stream,
with a reply of 1 to 16 tokens; so many of them go away by chance: before the answer begins, between its pieces, or
after some time. Counted as errors are answers with another status than 200, streams that end without their last event
or with an error, connections that the server breaks, and a server that does not end in order with free slots. Memory
is resident memory of the server with its children; after a tenth of the requests it may move by 5%.

Exit code 1 if there was an error or memory moved further.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.served import Call, Served, serving

from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.units import MIB

MOVES = 0.05
"""How far memory may move after the beginning."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How one protocol is spoken: a request's body for a question, and what its stream ends with."""

    path: str
    body: Callable[[str, int], dict[str, Any]]
    ends: bytes = b""


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


PROTOCOLS: dict[str, Protocol] = {
    "chat completions": Protocol(
        "/v1/chat/completions", lambda text, most: {"messages": _user(text), "max_tokens": most}, b"data: [DONE]"
    ),
    "completions": Protocol(
        "/v1/completions", lambda text, most: {"prompt": text, "max_tokens": most, "logprobs": 2}, b"data: [DONE]"
    ),
    "responses": Protocol(
        "/v1/responses", lambda text, most: {"input": text, "max_output_tokens": most}, b"event: response.incomplete"
    ),
    "messages": Protocol(
        "/v1/messages", lambda text, most: {"messages": _user(text), "max_tokens": most}, b"event: message_stop"
    ),
    "ollama chat": Protocol(
        "/api/chat", lambda text, most: {"messages": _user(text), "options": {"num_predict": most}}, b'"done":true'
    ),
    "ollama generate": Protocol(
        "/api/generate", lambda text, most: {"prompt": text, "options": {"num_predict": most}}, b'"done":true'
    ),
    "score": Protocol("/v1/score", lambda text, most: {"requests": [{"prompt": text, "continuation": " yes" * most}]}),
    "tokenize": Protocol("/tokenize", lambda text, most: {"content": text * most}),
}
_MODELS = ("demo", "demo", "demo:base", "demo:draft")


class Soak:
    """The load: so many requests by so many clients."""

    def __init__(self, served: Served, asked: argparse.Namespace) -> None:
        self._served, self._asked = served, asked
        self._chance = Random(asked.seed)
        self._questions = [one.question for one in load_questions(demo_dir() / "questions.jsonl")]
        self._left = asked.requests
        self.done: Counter[str] = Counter()
        self.gone: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.memory: list[tuple[int, int]] = []

    async def run(self) -> None:
        """Send everything."""
        await asyncio.gather(*(self._client() for _ in range(self._asked.clients)))

    async def _client(self) -> None:
        while self._left > 0:
            self._left -= 1
            name = self._chance.choice(list(PROTOCOLS))
            try:
                await self._request(name, PROTOCOLS[name])
            except (OSError, asyncio.IncompleteReadError, IndexError) as error:
                self.errors[f"{name}: {type(error).__name__}: {error}"] += 1
            total = self.done.total() + self.gone.total()
            if total % max(1, self._asked.requests // 100) == 0:
                self.memory.append((total, self._served.resident()))
                print(f"{total}: {self.memory[-1][1] / MIB:.1f} MiB, {self.errors.total()} errors", file=sys.stderr)

    async def _request(self, name: str, protocol: Protocol) -> None:
        chance = self._chance
        text = f"{chance.randrange(10_000)} " * chance.choice((0, 1, 1, 60)) + chance.choice(self._questions)
        body = {"model": chance.choice(_MODELS), **protocol.body(text, chance.randint(1, 16))}
        stream = bool(protocol.ends) and chance.random() < 0.7
        if protocol.ends:
            body["stream"] = stream
        leave: float | int | None = None
        if chance.random() < self._asked.leaving:
            leave = chance.choice((0, 1, chance.randint(2, 20), chance.random() * 0.05, chance.random()))
        call = Call(self._served.url, protocol.path, body)
        await call.send(leave=leave)
        if leave is not None:
            self.gone[name] += 1
            return
        self.done[name] += 1
        answer = bytes(call.received)
        if call.status != 200:
            self.errors[f"{name}: {answer.splitlines()[-1][:200]!r}"] += 1
        elif stream and not _ends(answer, protocol):
            self.errors[f"{name}: the stream ends with {answer[-200:]!r}"] += 1


def _ends(answer: bytes, protocol: Protocol) -> bool:
    """Whether a stream has its last event and no error."""
    last = protocol.ends in answer or (protocol.path == "/v1/responses" and b"event: response.completed" in answer)
    return last and b'"error":{' not in answer and b"event: error" not in answer


def moved(memory: list[tuple[int, int]], requests: int) -> tuple[float, float]:
    """The lowest and the highest memory after a tenth of the requests, as parts of what it was then."""
    after = [size for total, size in memory if total >= requests / 10]
    return min(after) / after[0], max(after) / after[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--leaving", type=float, default=0.33)
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begun = time.perf_counter()
    options = ["--pair", "demo", "--parallel", str(asked.parallel), "--threads", str(asked.threads), "--ctx", "1024"]
    with serving(*options) as served:
        soak = Soak(served, asked)
        asyncio.run(soak.run())
        deadline = time.monotonic() + 10
        while (busy := _busy(served)) and time.monotonic() < deadline:
            time.sleep(0.05)
        log = served.log.read_text()
    lowest, highest = moved(soak.memory, asked.requests)
    warnings = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line or "Traceback" in line]
    print(f"{soak.done.total()} answered, {soak.gone.total()} went away, {time.perf_counter() - begun:.0f} s")
    for name in PROTOCOLS:
        print(f"  {name}: {soak.done[name]} answered, {soak.gone[name]} went away")
    print(
        f"memory after a tenth of them: {lowest:.3f} to {highest:.3f} of what it was then ({1 - MOVES} to {1 + MOVES})"
    )
    print(f"{soak.errors.total()} errors, {busy} slots busy at the end, {len(warnings)} warnings in the log")
    for text in [*(f"{count} times {text}" for text, count in soak.errors.most_common(20)), *warnings[:20]]:
        print(f"  {text}")
    return int(bool(soak.errors or busy or warnings or lowest < 1 - MOVES or highest > 1 + MOVES))


def _busy(served: Served) -> int:
    with urlopen(f"{served.url}/slots") as answer:
        return sum(slot["is_processing"] for slot in json.load(answer))


if __name__ == "__main__":
    sys.exit(main())
