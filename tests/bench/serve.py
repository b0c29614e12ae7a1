"""The server's speed: beside llama-server of the same llama.cpp on the same base, and beside the Python API.

    python tests/bench/serve.py [--draft FILE --base FILE] [--peers DIR] [--clients 1,4,16] [--tokens 64] [--repeat 3]
        [--words 100] [--threads 2] [--only throughput,overhead,first,cancel] [--json FILE]

`throughput`: completions of raw text by the base alone (`<pair>:base`), as streams, greedy, of a fixed length, by so
many clients at once; each client sends one request, each prompt begins with a number of its own. Ours and llama-server
(`-np` the largest number, a whole context for each) take turns in each repetition, and the other one idles meanwhile.
Ratios are medians of the quotients within the repetitions. Resident memory at the end: ours holds the draft too.

`overhead`: one reply of the base alone by the Python API in this process and over HTTP in turns: milliseconds for each
token. `first`: from the moment the engine hands over the first text to its arrival at the client, and `cancel`: from a
connection's end to the end of the work on its reply, for each phase of it; both with the server in this process.

`--peers` is the folder of `build_peers.sh`; without it llama-server is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.served import Call, Served, llama_server, serving
from evaluations import Evaluation, evaluations
from serving import desk_of
from wire import Wire

import wsd_local as wsd
from wsd_local.paths import demo_dir
from wsd_local.prompts.raw import RawPrompt
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.reply import Reply
from wsd_local.server.observing import Nobody
from wsd_local.settings import LoadSettings
from wsd_local.units import MIB

COMPLETIONS = "/v1/completions"
SECTIONS = ("throughput", "overhead", "first", "cancel")
TEXT = b'"text":"'
MARGIN = 64
"""Tokens of a context beside those of prompt and reply."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, on which files."""

    draft: Path
    base: Path
    peers: Path | None
    clients: tuple[int, ...]
    tokens: int
    words: int
    repeat: int
    threads: int

    @property
    def n_ctx(self) -> int:
        """Tokens of one context: a word may have three tokens in a small vocabulary."""
        return self.tokens + 3 * self.words + MARGIN

    @property
    def files(self) -> tuple[Path, Path]:
        """The pair's files."""
        return self.draft, self.base

    def prompt(self, number: int) -> str:
        """A text of `words` words that begins with a number of its own."""
        questions = " ".join(one.question for one in load_questions(demo_dir() / "questions.jsonl")).split()
        words = [str(number), *questions]
        return " ".join(words[i % len(words)] for i in range(self.words))

    def body(self, number: int) -> dict[str, Any]:
        """A request that ours and llama-server understand alike."""
        asked = {"prompt": self.prompt(number), "max_tokens": self.tokens, "temperature": 0, "ignore_eos": True}
        return {"model": "bench:base", **asked, "stream": True, "stream_options": {"include_usage": True}}


Row = dict[str, Any]


# -- beside llama-server -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """One round of requests: tokens per second of all, median seconds to the first text, tokens of prompts."""

    rate: float
    first_text: float
    prompt_tokens: int


async def _load(served: Served, plan: Plan, clients: int, number: int) -> Load:
    calls = [Call(served.url, COMPLETIONS, plan.body(number + index)) for index in range(clients)]
    begun = time.perf_counter()
    await asyncio.gather(*(call.send(text_begins=TEXT) for call in calls))
    seconds = time.perf_counter() - begun
    usages = [_usage(call) for call in calls]
    rate = sum(usage["completion_tokens"] for usage in usages) / seconds
    first = statistics.median(call.first_text or 0.0 for call in calls)
    return Load(rate, first, sum(usage["prompt_tokens"] for usage in usages))


def _usage(call: Call) -> dict[str, int]:
    if call.status != 200:
        raise SystemExit(f"{call.url} answered {call.status}: {bytes(call.received)[-500:]!r}")
    lines = [line for line in call.received.split(b"\n") if line.startswith(b"data: {") and b'"usage":{' in line]
    return dict(json.loads(lines[-1].removeprefix(b"data: "))["usage"])


def throughput(plan: Plan) -> Iterator[Row]:
    """Rates of the base alone and first tokens, by number of clients, and memory."""
    most = max(plan.clients)
    base_format = '[pairs.bench]\ndraft = "{}"\nbase = "{}"\n'.format(*(path.absolute() for path in plan.files))
    ours_options = f"--pair bench --parallel {most} --ctx {plan.n_ctx} --threads {plan.threads}".split()
    theirs_options = f"-m {plan.base} -np {most} -c {most * plan.n_ctx} -t {plan.threads} -tb {plan.threads} -cram 0"
    with ExitStack() as stack:
        servers = {"ours": stack.enter_context(serving(*ours_options, config=base_format))}
        if plan.peers is not None:
            servers["llama-server"] = stack.enter_context(llama_server(plan.peers, *theirs_options.split()))
        number = 100
        loads: dict[tuple[int, str], list[Load]] = {}
        for repetition in range(plan.repeat + 1):  # the first warms up
            for clients in plan.clients:
                for name in list(servers)[:: 1 if repetition % 2 else -1]:
                    load = asyncio.run(_load(servers[name], plan, clients, number))
                    number += clients
                    if repetition:
                        loads.setdefault((clients, name), []).append(load)
                        print(f"{repetition}: {clients} clients, {name}: {load}", file=sys.stderr)
        for clients in plan.clients:
            yield from _compared(clients, {name: loads[clients, name] for name in servers})
        for name, served in servers.items():
            yield {"row": f"resident memory, {name}", "measured": served.resident() / MIB, "unit": "MiB"}


def _compared(clients: int, loads: dict[str, list[Load]]) -> Iterator[Row]:
    ours, theirs = loads["ours"], loads.get("llama-server")
    plural = "client" if clients == 1 else "clients"
    for row, unit, name in (("tokens per second", "tokens/s", "rate"), ("first text", "s", "first_text")):
        values = [float(getattr(load, name)) for load in ours]
        found: Row = {"row": f"{row}, {clients} {plural}", "measured": statistics.median(values), "unit": unit}
        if theirs is not None:
            others = [float(getattr(load, name)) for load in theirs]
            ratios = [a / b for a, b in zip(values, others, strict=True)]
            found |= {"against": statistics.median(others), "ratio": statistics.median(ratios)}
            found["ratios"] = [round(ratio, 3) for ratio in ratios]
            found["prompt_tokens"] = [ours[0].prompt_tokens, theirs[0].prompt_tokens]
        if row == "tokens per second" and clients >= 16:
            found["goal"] = "≥ 0.95"
        yield found


# -- beside the Python API -----------------------------------------------------------------------------------------


def overhead(plan: Plan) -> Iterator[Row]:
    """Milliseconds for each token that HTTP adds."""
    options = f"--pair bench --parallel 1 --ctx {plan.n_ctx} --threads {plan.threads}".split()
    config = '[pairs.bench]\ndraft = "{}"\nbase = "{}"\n'.format(*(path.absolute() for path in plan.files))
    added, shares = [], []
    with (
        wsd.load(draft=plan.draft, base=plan.base, threads=plan.threads, ctx=plan.n_ctx, parallel=1) as pair,
        serving(*options, config=config) as served,
    ):
        for repetition in range(plan.repeat + 1):
            prompts = [RawPrompt(text=plan.prompt(1000 + 2 * repetition + index)) for index in range(2)]
            begun = time.perf_counter()
            pair.reply(prompts[0], mode="base", max_tokens=plan.tokens, ignore_eos=True, speculation="off")
            alone = time.perf_counter() - begun
            body = {**plan.body(1001 + 2 * repetition), "wsd": {"speculation": "off"}}
            call = Call(served.url, COMPLETIONS, body)
            asyncio.run(call.send(text_begins=TEXT))
            if repetition:
                added.append((call.seconds - alone) / plan.tokens * 1000)
                shares.append(call.seconds / alone)
    yield {
        "row": "HTTP for each token of one reply",
        "measured": statistics.median(added),
        "unit": "ms",
        "ratio": statistics.median(shares),
        "ratios": [round(share, 3) for share in shares],
    }


# -- with the server in this process -------------------------------------------------------------------------------


class Moments(Nobody):
    """When the engine had the first text of a reply, and when the work on a reply was stopped."""

    def __init__(self) -> None:
        self.first_texts: list[float] = []
        self.stopped_at = 0.0
        self.stopped = threading.Event()

    def first_text(self, model: str, seconds: float) -> None:
        """See `Observer`."""
        self.first_texts.append(time.perf_counter())

    def cancelled(self, model: str, reply: Reply | None, seconds: float) -> None:
        """See `Observer`."""
        self.stopped_at = time.perf_counter()
        self.stopped.set()


@contextmanager
def _own(plan: Plan) -> Iterator[tuple[str, Moments]]:
    moments = Moments()
    loading = LoadSettings(threads=plan.threads, ctx=plan.n_ctx, parallel=1)
    with tempfile.TemporaryDirectory() as own, desk_of(plan.files, loading, Path(own), observer=moments) as url:
        yield url, moments


def _chat(plan: Plan, number: int) -> dict[str, Any]:
    """A request that has all phases: the draft writes eight tokens, the base the rest."""
    messages = [{"role": "user", "content": plan.prompt(number)}]
    own = {"draft_max_tokens": 8, "threshold": 0.0, "speculation": "off"}
    return {"messages": messages, "max_tokens": plan.tokens, "ignore_eos": True, "stream": True, "wsd": own}


def first(plan: Plan) -> Iterator[Row]:
    """From the engine's first text to the client."""
    found = []
    with _own(plan) as (url, moments):
        for repetition in range(5 * plan.repeat + 1):
            call = Call(url, "/v1/chat/completions", _chat(plan, 2000 + repetition))
            asyncio.run(call.send(text_begins=b'"delta":{"content":"'))
            if repetition:
                assert call.first_text is not None
                found.append((call.sent_at + call.first_text - moments.first_texts[-1]) * 1000)
    row = "first text, from the engine to the client"
    worst = {"measured": max(found), "unit": "ms", "goal": "≤ 10"}
    yield {"row": f"{row}, median of {len(found)}", "measured": statistics.median(found), "unit": "ms", "goal": "≤ 10"}
    yield {"row": f"{row}, longest", **worst}


def _is_step(model: str) -> Callable[[Evaluation], bool]:
    return lambda found: found.model == model and found.is_step


def _reads(model: str) -> Callable[[Evaluation], bool]:
    return lambda found: found.model == model and found.parts[0][1] > 16


def cancel(plan: Plan) -> Iterator[Row]:
    """From the end of the connection to the end of the work, in each phase."""
    phases = {
        "the draft reads": _reads(plan.draft.name),
        "drafting": _is_step(plan.draft.name),
        "the base reads": _reads(plan.base.name),
        "continuing": _is_step(plan.base.name),
    }
    with _own(plan) as (url, moments), evaluations() as watched:
        for index, (phase, which) in enumerate(phases.items()):
            found = []
            for repetition in range(plan.repeat):
                moments.stopped.clear()
                watched.hold(which, waits=False)
                with Wire(url, "/v1/chat/completions", **_chat(plan, 3000 + 100 * index + repetition)) as client:
                    watched.held()
                    left_at = time.perf_counter()
                    client.hang_up()
                    moments.stopped.wait()
                found.append((moments.stopped_at - left_at) * 1000)
            longest = {"measured": max(found), "unit": "ms, longest", "goal": "≤ 100"}
            yield {"row": f"a client goes away while {phase}", **longest}


# -- the run -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", type=Path, default=demo_dir() / "draft-q8_0.gguf")
    parser.add_argument("--base", type=Path, default=demo_dir() / "base-q8_0.gguf")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--clients", default="1,4,16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    clients = tuple(int(number) for number in asked.clients.split(","))
    plan = Plan(asked.draft, asked.base, asked.peers, clients, asked.tokens, asked.words, asked.repeat, asked.threads)
    sections = {"throughput": throughput, "overhead": overhead, "first": first, "cancel": cancel}
    rows: list[Row] = []
    for name in asked.only.split(","):
        for row in sections[name](plan):
            rows.append(row)
            print(_line(row), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"base": plan.base.name, "rows": rows}, indent=1))


def _line(row: Row) -> str:
    parts = [f"{row['measured']:.3g} {row['unit']}"]
    if "against" in row:
        parts.append(f"llama-server {row['against']:.3g}")
    if "ratio" in row:
        parts.append(f"ratio {row['ratio']:.3f} of {row['ratios']}")
    if "goal" in row:
        parts.append(f"goal {row['goal']}")
    return f"{row['row']}: {', '.join(parts)}"


if __name__ == "__main__":
    main()
