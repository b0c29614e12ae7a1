"""Speculative continuation against writing token by token, in one run.

    python tests/bench/speculation.py [--draft FILE --base FILE] [--tokens 128] [--repeat 3] [--threads N]
        [--ways off,auto,draft,lookup] [--cases question,again,edit] [--clock wall] [--json FILE] [--markdown FILE]

Contract: every way answers the same conversations with the same length (the end of text is ignored, stop strings are
off), in turns, from empty caches; `off` is always one of them, and a second `off` shows what the machine does to a
ratio. A ratio is the seconds of the first `off` divided by those of the way, for the continuation alone and for the
whole reply: the median of the repetitions, then the least. What proposals cost and how many are taken is learnt from
these replies alone, and the first ones pay for that. Three cases:

- question: something the pair was taught, and after its answer whatever it goes on with;
- again: questions that the conversation holds already, with their answers: what is to be written stands in the prompt;
- edit: a given text with another word in some places, written by the base alone. The embedded pair cannot edit: a
  grammar holds it to the edited text, with which the reply ends.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.clocks import CLOCKS, Clock, add_clock, require_one_thread

import wsd_local as wsd
from wsd_local.core.costs import Experience
from wsd_local.files import write_text
from wsd_local.paths import demo_dir
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.messages import Message
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.engine import Engine
from wsd_local.runtime.reply import Reply
from wsd_local.runtime.run import Run, RunOptions
from wsd_local.settings import changed


@dataclass(frozen=True, slots=True)
class Row:
    """One way in one case. Ratios are `off` / way; acceptance and break-even are shares of looked-at proposals.

    Counts and acceptance are means over the replies.
    """

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


@dataclass(frozen=True, slots=True)
class Asked:
    """A conversation, and settings of its reply."""

    messages: list[Message]
    settings: Mapping[str, Any]


def conversations(case: str) -> list[Asked]:
    """What is asked."""
    questions = [question.question for question in load_questions(demo_dir() / "questions.jsonl")]
    asked = [questions[i] for i in (0, len(questions) // 3, 2 * len(questions) // 3)]
    if case == "question":
        return [Asked([{"role": "user", "content": question}], {"ignore_eos": True}) for question in asked]
    with wsd.load("demo", threads=1) as small:
        answers = [small.reply(question).text for question in asked]
    if case == "edit":
        text = " ".join(answers)
        return [Asked(*edited(text, old, new)) for old, new in (("the", "this"), ("I am", "we are"), ("you", "them"))]
    told: list[Message] = []
    for question, answer in zip(asked, answers, strict=True):
        told += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [Asked([*told, {"role": "user", "content": question}], {"ignore_eos": True}) for question in asked]


def edited(text: str, old: str, new: str) -> tuple[list[Message], dict[str, Any]]:
    """The request for another word in a text, and settings that allow nothing but the answer."""
    request: Message = {"role": "user", "content": f"{text}\n\nSay that again with {new} instead of {old}."}
    answer = re.sub(rf"\b{old}\b", new, text)
    return [request], {"mode": "base", "grammar": f"root ::= {json.dumps(answer)}"}


def answered(
    pair: wsd.Pair, asked: Asked, way: str, tokens: int, clock: Clock, experience: Experience
) -> tuple[Reply, float]:
    """A reply from empty caches, and its seconds."""
    for context in (pair.models.context("draft"), pair.models.context("base")):
        context.forget(0)
    begun = clock()
    settings = changed(pair.settings, {"speculation": way, "max_tokens": tokens, **asked.settings})
    engine = Engine(pair.models.context, pair.models.cancellation)
    run = Run(pair.models, engine, asked.messages, settings, RunOptions(clock=clock, experience=experience))
    for _ in run.events():
        pass
    return run.reply, clock() - begun


def measured(pair: wsd.Pair, case: str, ways: list[str], tokens: int, repeat: int, clock: Clock) -> list[Row]:
    """All ways in one case, the first of them `off`."""
    asked = conversations(case)
    found: list[list[list[tuple[Reply, float]]]] = [[] for _ in ways]
    learnt = [Experience() for _ in ways]
    order = list(range(len(ways)))
    for repetition in range(repeat):
        first = repetition % len(ways)
        for at in order[first:] + order[:first]:
            found[at].append([])
            for one in asked:
                reply, seconds = answered(pair, one, ways[at], tokens, clock, learnt[at])
                found[at][-1].append((reply, seconds))
                rate, did = reply.timings.base_tokens_per_s or 0.0, reply.speculation
                print(
                    f"{case} {repetition + 1} {ways[at]}: {seconds:.2f} s, {rate:.2f} tokens/s, "
                    f"{did.accepted_tokens} of {did.proposed_tokens} in {did.rounds} rounds",
                    file=sys.stderr,
                    flush=True,
                )
    return [row(case, way, runs, found[0]) for way, runs in zip(ways, found, strict=True)]


def row(case: str, way: str, runs: list[list[tuple[Reply, float]]], plain: list[list[tuple[Reply, float]]]) -> Row:
    """What one way came to."""
    whole = [sum(s for _, s in run) for run in runs]
    ratios = [sum(s for _, s in off) / seconds for off, seconds in zip(plain, whole, strict=True)]
    writing = [continuation(off) / continuation(run) for off, run in zip(plain, runs, strict=True)]
    replies = [reply for run in runs for reply, _ in run]
    pairs = [(a, b) for run, off in zip(runs, plain, strict=True) for (a, _), (b, _) in zip(run, off, strict=True)]
    told = [reply.speculation for reply in replies if reply.speculation.examined_tokens]
    acceptances = [one.accepted_tokens / one.examined_tokens for one in told]
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
    """Seconds that the base wrote, after its first token."""
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
    parser.add_argument("--cases", default="question,again,edit")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    add_clock(parser)
    asked = parser.parse_args()
    require_one_thread(parser, asked.clock, asked.threads)
    clock = CLOCKS[asked.clock]
    ways = asked.ways.split(",")
    if ways[0] != "off":
        ways = ["off", *(way for way in ways if way != "off")]
    rows: list[Row] = []
    with wsd.load(
        draft=asked.draft, base=asked.base, threads=asked.threads, ctx=2048, base_format=BaseFormat(stop=())
    ) as pair:
        answered(pair, Asked([{"role": "user", "content": "hi"}], {}), "off", 16, clock, Experience())
        for case in asked.cases.split(","):
            rows += measured(pair, case, ways, asked.tokens, asked.repeat, clock)
            if asked.json:
                write_text(asked.json, json.dumps([asdict(one) for one in rows], indent=1) + "\n")
            if asked.markdown:
                write_text(asked.markdown, "\n".join(table(rows)) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
