"""Speculative continuation against writing token by token, in one run.

    python tests/bench/speculation.py [--draft FILE --base FILE] [--tokens 128] [--repeat 3] [--threads N]
        [--ways off,auto,draft,lookup] [--cases question,again] [--clock wall] [--json FILE] [--markdown FILE]

Contract: every way answers the same conversations with the same length (the end of text is ignored, stop strings are
off), in turns, from empty caches. A ratio is the seconds of `off` divided by those of the way, for the continuation
alone and for the whole reply: the median of the repetitions, then the least. What proposals cost and how many are taken
is learnt from these replies alone, and the first ones pay for that. Two cases:

- question: something the pair was taught, and after its answer whatever it goes on with;
- again: questions that the conversation holds already, with their answers: the text to be written stands in the prompt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.clocks import CLOCKS, Clock, add_clock, require_one_thread

import wsd_local as wsd
from wsd_local.demo import load_questions
from wsd_local.engine import Stopwatch
from wsd_local.experience import Experience
from wsd_local.paths import demo_dir
from wsd_local.prompts import BaseFormat, Message
from wsd_local.reply import Reply


@dataclass(frozen=True, slots=True)
class Row:
    """One way in one case. Ratios are `off` / way; acceptance and break-even are shares of looked-at proposals."""

    case: str
    way: str
    seconds: float
    ratio: float
    least: float
    continuation_ratio: float
    continuation_least: float
    rounds: float
    proposed: float
    accepted: float
    acceptance: float | None
    break_even: float | None
    equal: str


def conversations(case: str, pair: wsd.Pair) -> list[list[Message]]:
    """What is asked."""
    questions = [question.question for question in load_questions(demo_dir() / "questions.jsonl")]
    asked = [questions[i] for i in (0, len(questions) // 3, 2 * len(questions) // 3)]
    if case == "question":
        return [[{"role": "user", "content": question}] for question in asked]
    told: list[Message] = []
    with wsd.load("demo", threads=1) as small:
        for question in asked:
            answer = small.reply(question).text
            told += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [[*told, {"role": "user", "content": question}] for question in asked]


def answered(pair: wsd.Pair, messages: list[Message], way: str, tokens: int, clock: Clock) -> tuple[Reply, float]:
    """A reply from empty caches, and its seconds."""
    for context in (pair.context("draft"), pair.context("base")):
        context.forget(0)
    begun = clock()
    run = pair.prepared(messages, speculation=way, max_tokens=tokens, ignore_eos=True)
    run.job.stopwatch = Stopwatch(clock, total=clock() - begun)
    for _ in run.events():
        pass
    return run.reply, clock() - begun


def measured(pair: wsd.Pair, case: str, ways: list[str], tokens: int, repeat: int, clock: Clock) -> list[Row]:
    """All ways in one case."""
    asked = conversations(case, pair)
    found: dict[str, list[list[tuple[Reply, float]]]] = {way: [] for way in ways}
    learnt = {way: Experience() for way in ways}
    for repetition in range(repeat):
        for way in ways[repetition % len(ways) :] + ways[: repetition % len(ways)]:
            pair.engine.experience = learnt[way]
            found[way].append([])
            for messages in asked:
                reply, seconds = answered(pair, messages, way, tokens, clock)
                found[way][-1].append((reply, seconds))
                rate, did = reply.timings.base_tokens_per_s or 0.0, reply.speculation
                print(
                    f"{case} {repetition + 1} {way}: {seconds:.2f} s, {rate:.2f} tokens/s, "
                    f"{did.accepted_tokens} of {did.proposed_tokens} in {did.rounds} rounds",
                    file=sys.stderr,
                    flush=True,
                )
    return [row(case, way, found[way], found["off"]) for way in ways]


def row(case: str, way: str, runs: list[list[tuple[Reply, float]]], plain: list[list[tuple[Reply, float]]]) -> Row:
    """What one way came to."""
    whole = [sum(s for _, s in run) for run in runs]
    ratios = [sum(s for _, s in off) / seconds for off, seconds in zip(plain, whole, strict=True)]
    writing = [continuation(off) / continuation(run) for off, run in zip(plain, runs, strict=True)]
    replies = [reply for run in runs for reply, _ in run]
    pairs = [(a, b) for run, off in zip(runs, plain, strict=True) for (a, _), (b, _) in zip(run, off, strict=True)]
    acceptances = [r.speculation.acceptance for r in replies if r.speculation.acceptance is not None]
    thresholds = [r.speculation.break_even for r in replies if r.speculation.break_even is not None]
    return Row(
        case,
        way,
        round(statistics.median(whole), 2),
        round(statistics.median(ratios), 3),
        round(min(ratios), 3),
        round(statistics.median(writing), 3),
        round(min(writing), 3),
        round(statistics.mean(r.speculation.rounds for r in replies), 1),
        round(statistics.mean(r.speculation.proposed_tokens for r in replies), 1),
        round(statistics.mean(r.speculation.accepted_tokens for r in replies), 1),
        round(statistics.mean(acceptances), 2) if acceptances else None,
        round(statistics.median(thresholds), 2) if thresholds else None,
        f"{sum(a.text == b.text for a, b in pairs)} of {len(pairs)}",
    )


def continuation(run: list[tuple[Reply, float]]) -> float:
    """Seconds that the base wrote, behind its first token."""
    return sum((r.base.tokens - 1) / r.timings.base_tokens_per_s for r, _ in run if r.timings.base_tokens_per_s)


HEADINGS = (
    "case | way | s | whole reply: off / way, least | continuation: off / way, least | rounds | proposed | taken "
    "| acceptance | break-even | equal replies"
)


def table(rows: list[Row]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {HEADINGS} |", "|" + "---|" * (HEADINGS.count("|") + 1)]
    for one in rows:
        values = [
            one.case,
            one.way,
            one.seconds,
            f"{one.ratio}, {one.least}",
            f"{one.continuation_ratio}, {one.continuation_least}",
            one.rounds,
            one.proposed,
            one.accepted,
            "" if one.acceptance is None else one.acceptance,
            "" if one.break_even is None else one.break_even,
            one.equal,
        ]
        lines.append("| " + " | ".join(map(str, values)) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft")
    parser.add_argument("--base")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ways", default="off,auto,draft,lookup")
    parser.add_argument("--cases", default="question,again")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    add_clock(parser)
    asked = parser.parse_args()
    require_one_thread(parser, asked.clock, asked.threads)
    clock = CLOCKS[asked.clock]
    rows: list[Row] = []
    with wsd.load(
        draft=asked.draft, base=asked.base, threads=asked.threads, ctx=2048, base_format=BaseFormat(stop=())
    ) as pair:
        answered(pair, [{"role": "user", "content": "hi"}], "off", 16, clock)
        for case in asked.cases.split(","):
            rows += measured(pair, case, asked.ways.split(","), asked.tokens, asked.repeat, clock)
    print("\n".join(table(rows)))
    if asked.json:
        asked.json.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n", encoding="utf-8")
    if asked.markdown:
        asked.markdown.write_text("\n".join(table(rows)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
