"""Where our own Python spends its time between two calls into llama.cpp: a profile of whole replies.

    python tests/bench/own_time.py [--draft FILE --base FILE] [--prompt 200] [--tokens 256] [--threads 1] [--rows 15]

Contract: each call into llama.cpp goes through one timed function, whose time counts as llama.cpp's. The rest is
ours, by function, in microseconds per base token of the reply, most first; `share` is of the whole reply. A profiler
makes small functions look up to three times as slow as they are: the line `unprofiled` is the same reply without it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from pathlib import Path

import wsd_local as wsd
from wsd_local.llama import timing
from wsd_local.llama.timing import timed_calls
from wsd_local.reports.bench import Bench


def profiled(bench: Bench) -> tuple[float, float, list[tuple[float, int, str]]]:
    """Seconds of a reply, of llama.cpp in it, and seconds, calls and name of each function of ours."""
    profile = cProfile.Profile()
    with timed_calls(time.perf_counter):
        profile.enable()
        seconds, _ = bench.answer()
        profile.disable()
    native, own = 0.0, []
    found: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = vars(pstats.Stats(profile))["stats"]
    for (file, line, name), (_, calls, taken, _, _) in found.items():
        if file == timing.__file__ and name == "call":
            native = taken
        else:
            place = f"{Path(file).parent.name}/{Path(file).name}:{line} " if line else ""
            own.append((taken, calls, place + name))
    return seconds, native, sorted(own, reverse=True)


def table(bench: Bench, rows: int) -> list[str]:
    """Lines of a Markdown table."""
    figures = bench.whole()
    seconds, native, own = profiled(bench)
    plain, ours = figures["own_s"], sum(taken for taken, _, _ in own)
    lines = ["| where | µs per token | calls per token | share |", "|---|---|---|---|"]

    def line(where: str, taken: float, calls: float | None, whole: float) -> None:
        often = "" if calls is None else f"{calls / bench.tokens:.2f}"
        lines.append(f"| {where} | {1e6 * taken / bench.tokens:.1f} | {often} | {taken / whole:.2%} |")

    line("unprofiled: llama.cpp", figures["reply_s"] - plain, None, figures["reply_s"])
    line("unprofiled: ours", plain, None, figures["reply_s"])
    line("profiled: llama.cpp", native, None, seconds)
    line("profiled: ours", ours, None, seconds)
    for taken, calls, name in own[:rows]:
        line(f"`{name}`", taken, calls, seconds)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft")
    parser.add_argument("--base")
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=15)
    asked = parser.parse_args()
    with wsd.load(draft=asked.draft, base=asked.base, threads=asked.threads, ctx=2048) as pair:
        bench = Bench(pair, prompt_tokens=asked.prompt, tokens=asked.tokens)
        bench.warm()
        print("\n".join(table(bench, asked.rows)))


if __name__ == "__main__":
    main()
