"""What workers cost: the same base in this process and on workers of this machine, in turns.

    python tests/bench/machines.py [--base FILE] [--draft FILE] [--rounds 9] [--workers 2] [--json]

Contract: all layers of the base lie on the workers, the draft stays here. Each round measures one ordinary token at a
depth of 200, a checked chunk of eight, and reading 200 tokens, in each way, one after the other; the median and the
least are printed, in milliseconds: other work on the machine adds to the first more than to the second. Loading is
timed once without the worker's cache, once while it is filled, and once from it. Everything runs on one thread, on one
machine: what crosses the loopback interface is counted, a real network comes on top.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rpc_workers import RealWorker, worker

from wsd_local.core.contexts import Question
from wsd_local.paths import demo_dir
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings

TEXT = "The kettle was on the stove, and nobody had put water into it. " * 40
DEPTH, CHUNK = 200, 8


def pair(files: Sequence[Path], found: Sequence[RealWorker]) -> Pair:
    """A pair in this process, or with its base on workers."""
    if not found:
        return Pair(draft=files[0], base=files[1], loading=LoadSettings(threads=1, n_gpu_layers=0))
    rpc = ",".join(map(str, found))
    loading = LoadSettings(threads=1, rpc=rpc, draft_n_gpu_layers=0, base_n_gpu_layers=-1)
    return Pair(draft=files[0], base=files[1], loading=loading)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that something takes."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1e3


def measured(context: Any) -> dict[str, float]:
    """One token, one chunk, one prompt."""
    tokens = context.model.tokenize(TEXT)[: DEPTH + CHUNK]
    context.forget(0)
    prompt = timed(lambda: context.read(0, tokens[:DEPTH]))
    chunk = timed(lambda: context.logprobs(0, tokens, DEPTH))
    context.read(0, tokens[: DEPTH - 1])

    def one() -> None:
        context.ask(Question(0, tokens[:DEPTH], DEPTH - 1, lambda _position, row: context.best(row)))

    return {"token": timed(one), "chunk": chunk, "prompt": prompt}


def loading(files: Sequence[Path], found: Sequence[RealWorker]) -> float:
    """Seconds until the base is loaded."""
    with pair(files, found) as loaded:
        return timed(lambda: loaded.models.load("base")) / 1e3


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", type=Path, default=demo_dir() / "draft-q8_0.gguf")
    parser.add_argument("--base", type=Path, default=demo_dir() / "base-q8_0.gguf")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    files = (given.draft, given.base)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        caching = stack.enter_context(worker("--cache", environment={"WSD_LOCAL_CACHE": folder}))
        plain = [stack.enter_context(worker()) for _ in range(given.workers)]
        loads = {
            "here": loading(files, []),
            "without a cache": loading(files, plain[:1]),
            "while it is filled": loading(files, [caching]),
            "from it": loading(files, [caching]),
        }
        ways: dict[str, list[RealWorker]] = {"here": [], "one worker": [caching], f"{given.workers} workers": plain}
        pairs = {name: stack.enter_context(pair(files, found)) for name, found in ways.items()}
        contexts = {name: one.models.context("base") for name, one in pairs.items()}
        rounds = [{name: measured(context) for name, context in contexts.items()} for _ in range(given.rounds + 1)][1:]
    times = {
        name: {what: [one[name][what] for one in rounds] for what in ("token", "chunk", "prompt")} for name in contexts
    }
    if given.json:
        print(json.dumps({"ms": times, "load_s": loads}, indent=2))
        return
    for name, found in times.items():
        shown = (f"{what} {statistics.median(took):.1f} ({min(took):.1f}) ms" for what, took in found.items())
        print(f"{name:12}", "  ".join(shown))
    print("loading", "  ".join(f"{name} {value:.1f} s" for name, value in loads.items()))


if __name__ == "__main__":
    main()
