"""A base on a server against the same base here: first text and whole reply, at several latencies, in turns.

    python tests/bench/remote_base.py [--prompts N]

The server is `wsd-local serve` in a process of its own on this machine, with a delay before each request. Medians over
the prompts; every way takes its turn on each prompt, so that other load affects all alike.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from serving import listening, private_folders
from stand_ins import Trouble

from wsd_local.library.catalog import PairEntry
from wsd_local.paths import demo_dir
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.remote.address import Address
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings, ReplySettings

LATENCIES = (0.0, 0.02, 0.1)
LOADING = LoadSettings(threads=1, ctx=2048)
FILES = demo_dir() / "draft-q8_0.gguf", demo_dir() / "base-q8_0.gguf"


def serve(ready: Connection, latency: float) -> None:
    """Serve the embedded pair with a delay before each request, until the other end says so."""
    from wsd_local.server.app import create_app
    from wsd_local.server.desk import Desk

    with tempfile.TemporaryDirectory() as own, private_folders(Path(own)):
        desk = Desk([PairEntry("demo", str(FILES[0]), str(FILES[1]), BaseFormat())], loading=LOADING)
        desk.start()
        with listening(Trouble(create_app(desk), latency)) as url:
            ready.send(url)
            ready.recv()
        desk.close()


def measured(ways: dict[str, Pair], prompts: Sequence[Any]) -> dict[str, list[tuple[float, float]]]:
    """First text and whole reply of each prompt, in seconds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for messages in prompts:
        texts = set()
        for name, pair in ways.items():
            reply = pair.reply(messages)
            texts.add(reply.text)
            found[name].append((reply.timings.first_text_s or 0.0, reply.timings.total_s or 0.0))
        if len(texts) > 1:
            print(f"replies differ: {messages[-1]['content']}", file=sys.stderr)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=20)
    count = parser.parse_args().prompts
    prompts = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][: count + 1]
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        reply = ReplySettings(speculation="off")
        ways = {"here": stack.enter_context(Pair(draft=FILES[0], base=FILES[1], reply=reply, loading=LOADING))}
        for latency in LATENCIES:
            mine, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(theirs, latency), daemon=True)
            process.start()
            stack.callback(mine.send, None)
            url = mine.recv()
            chunks = ("", " by 8") if latency == LATENCIES[-1] else ("",)
            for fixed in chunks:
                pair = stack.enter_context(Pair(draft=FILES[0], base=Address(url), reply=reply, loading=LOADING))
                pair.models.load()
                if fixed and pair.models.remote is not None:
                    pair.models.remote.pace.chunk = lambda least: least  # type: ignore[method-assign]
                ways[f"{latency * 1000:.0f} ms{fixed}"] = pair
        found = measured(ways, prompts[:1]) and measured(ways, prompts[1:])
        for name, times in found.items():
            first, whole = (statistics.median(column) for column in zip(*times, strict=True))
            remote = ways[name].models.remote
            chunk = 8 if remote is None else remote.pace.chunk(8)
            print(f"{name:12} first text {first:.3f} s   whole reply {whole:.3f} s   chunk {chunk}")


if __name__ == "__main__":
    main()
