"""Throughput of many replies at once, against one by one, in one run.

python tests/bench/many.py [--draft FILE --base FILE] [--numbers 1,4,16] [--replies 16] [--tokens 64] [--repeat 3]

Prints tokens per second (kept and written tokens of all replies by the time they took), the ratio to the first number
in the same repetition (median of the repetitions), how many replies are equal, and the peak of resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time

import wsd_local as wsd
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.reply import Finished, Reply


def answered(
    pair: wsd.Pair, prompts: list[str], number: int, tokens: int, ignore_eos: bool
) -> tuple[list[Reply], float]:
    """The replies with so many at once, and the seconds they took."""
    fleet: Fleet[int] = Fleet(pair, number)
    for index, prompt in enumerate(prompts):
        fleet.add(index, prompt, max_tokens=tokens, ignore_eos=ignore_eos)
    for context in (pair.models.context("draft"), pair.models.context("base")):
        for seq in range(context.options.n_seq):
            context.forget(seq)
    begun = time.perf_counter()
    found = {index: event.reply for index, event in fleet.events() if isinstance(event, Finished)}
    return [found[index] for index in range(len(prompts))], time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft")
    parser.add_argument("--base")
    parser.add_argument("--numbers", default="1,4,16")
    parser.add_argument("--replies", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stop-at-eos", action="store_true")
    asked = parser.parse_args()
    numbers = [int(number) for number in asked.numbers.split(",")]
    questions = [question.question for question in load_questions(demo_dir() / "questions.jsonl")]
    prompts = [questions[i % len(questions)] for i in range(asked.replies)]
    rates: dict[int, list[float]] = {number: [] for number in numbers}
    equal: dict[int, list[int]] = {number: [] for number in numbers}
    with wsd.load(draft=asked.draft, base=asked.base, parallel=max(numbers), threads=asked.threads, ctx=1024) as pair:
        for repetition in range(asked.repeat):
            alone: list[str] = []
            for number in numbers:
                found, seconds = answered(pair, prompts, number, asked.tokens, not asked.stop_at_eos)
                texts = [reply.text for reply in found]
                alone = alone or texts
                rates[number].append(sum(len(reply.tokens) for reply in found) / seconds)
                equal[number].append(sum(a == b for a, b in zip(alone, texts, strict=True)))
                print(f"{repetition + 1}: {number} at once: {rates[number][-1]:.1f} tokens/s", file=sys.stderr)
    first = numbers[0]
    table = [
        {
            "parallel": number,
            "tokens_per_s": round(statistics.median(rates[number]), 2),
            "ratio": round(statistics.median(a / b for a, b in zip(rates[number], rates[first], strict=True)), 2),
            "equal": f"{min(equal[number])} of {len(prompts)}",
        }
        for number in numbers
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if asked.json:
        print(json.dumps({"rows": table, "peak_mib": peak}))
        return
    print("at once  tokens/s  ratio  equal to one by one")
    for row in table:
        print(f"{row['parallel']:7}  {row['tokens_per_s']:8}  {row['ratio']:5}  {row['equal']}")
    print(f"peak resident memory {peak} MiB")


if __name__ == "__main__":
    main()
