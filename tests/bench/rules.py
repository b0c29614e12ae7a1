"""What each rule for who writes next makes of the same questions.

    python tests/bench/rules.py --out rules.jsonl [--draft FILE --base FILE] [--alpaca FILE --xstest FILE]
        [--ways "window,return 0.3,…"] [--first 120] [--tokens 96] [--threads 1] [--part 1/1] [--also FILE]

Without files of prompts the embedded pair's held-out questions are asked, whose replies are judged by exact forms. With
them: the first `--first` instructions of AlpacaEval, and of XSTest every fifth safe and unsafe prompt, forty each. All
replies are greedy; a way is a rule with its value, or a model alone. For each prompt the ways take turns, so that the
time of one is compared with that of `window` on the same prompt at about the same time.

Each reply is a line of `--out`, and is not asked again: a run that is interrupted goes on. Then the table of all lines:

ended      replies that ended by themselves, not at `--tokens` or in a loop, with some text
loops      replies that the loop guard ended, and those of whose draft it ended a turn
kind       prompts that ask for a list, code, a poem or a letter: replies with list markers, code, lines or a greeting
refused    unsafe and safe prompts of XSTest that were refused (`wsd_local.reports.refusals`)
well,right of the embedded pair's questions
draft      share of the reply's tokens that the draft wrote, mean
changes    changes of the writer for each reply, mean
time       seconds of the whole reply by those of `window`, median over the prompts
evaluated  tokens that the draft and the base evaluated for each reply, mean
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import wsd_local as wsd
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import MEASURED_GROUP, judge, load_questions
from wsd_local.reports.refusals import kind_of as kind_of_reply
from wsd_local.runtime.reply import Reply

WAYS: dict[str, dict[str, Any]] = {
    "window": {},
    "window 0.5": {"threshold": 0.5},
    "window 0.5 over 3": {"threshold": 0.5, "window": 3},
    "window 0.3 over 3": {"threshold": 0.3, "window": 3},
    "return 0.3": {"rule": "return", "return_": 0.3},
    "entropy 1": {"rule": "entropy", "entropy": 1.0},
    "nudging 0.3": {"rule": "nudging", "nudging": 0.3},
    "veto 0.05": {"rule": "veto"},
    "bet 0.5": {"rule": "bet"},
    "base": {"mode": "base"},
    "draft": {"mode": "draft"},
}
"""Rules with their usual values, and other settings of the usual rule."""
KINDS: dict[str, tuple[str, str]] = {
    "list": (
        r"\b(list|ways|tips|ideas|steps|examples|reasons|names)\b",
        r"(?m)(^|\s)([-*•]|\d+[.)])\s+\S.*(\n|\s)+([-*•]|\d+[.)])\s",
    ),
    "code": (
        r"\b(python|javascript|java|sql|html|c\+\+|regex|function|code)\b",
        r"```|\bdef \w+\(|[;{}]\s*$|<\w+>|\bSELECT\b",
    ),
    "poem": (r"\b(poem|haiku|lyrics|rap|limerick)\b", r"\S+\n+\S.*\n+\S.*\n*"),
    "letter": (r"\b(email|e-mail|letter|invitation)\b", r"(?i)\b(dear|hi|hello|subject)\b"),
}
"""Kind of answer: what a prompt that asks for it holds, and what a reply of this kind holds."""

Row = dict[str, Any]


# -- prompts -------------------------------------------------------------------------------------------------------


def prompts(asked: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """An id and what is asked, in an order by chance; ids of XSTest begin with `safe` or `unsafe`."""
    found = [*(_demo() if asked.alpaca is None else _public(asked))]
    Random(0).shuffle(found)
    part, parts = map(int, asked.part.split("/"))
    yield from found[part - 1 :: parts]


def _demo() -> Iterator[tuple[str, Any]]:
    for question in load_questions(demo_dir() / "questions.jsonl"):
        if question.group == MEASURED_GROUP:
            yield f"demo {question.id}", question.messages


def _public(asked: argparse.Namespace) -> Iterator[tuple[str, str]]:
    for number, record in enumerate(json.loads(asked.alpaca.read_text())[: asked.first]):
        yield f"alpaca {number}", record["instruction"]
    if asked.xstest is not None:
        with asked.xstest.open(newline="") as lines:
            records = list(csv.DictReader(lines))
        for label in ("safe", "unsafe"):
            for record in islice((record for record in records if record["label"] == label), 0, 200, 5):
                yield f"{label} {record['id']}", record["prompt"]


# -- replies -------------------------------------------------------------------------------------------------------


def line_of(way: str, key: str, prompt: Any, reply: Reply) -> Row:
    """What is kept of a reply."""
    return {
        "way": way,
        "prompt": key,
        "asked": prompt if isinstance(prompt, str) else prompt[-1]["content"],
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "turns": [turn.as_dict() for turn in reply.turns],
        "seconds": reply.timings.total_s,
        "evaluated": [reply.timings.draft_evaluated_tokens, reply.timings.base_evaluated_tokens],
    }


def record(asked: argparse.Namespace, ways: Sequence[str], rows: list[Row]) -> None:
    """Ask what is missing."""
    done = {(row["way"], row["prompt"]) for row in rows}
    with (
        wsd.load(draft=asked.draft, base=asked.base, threads=asked.threads, ctx=1536) as pair,
        asked.out.open("a") as out,
    ):
        for number, (key, prompt) in enumerate(prompts(asked)):
            for way in (*ways[number % len(ways) :], *ways[: number % len(ways)]):
                if (way, key) in done:
                    continue
                reply = pair.reply(prompt, max_tokens=asked.tokens, **WAYS[way])
                rows.append(line_of(way, key, prompt, reply))
                out.write(json.dumps(rows[-1]) + "\n")
                out.flush()
            print(f"\r{number + 1} prompts", end="", flush=True)
    print()


# -- the table -----------------------------------------------------------------------------------------------------


def summary(rows: Sequence[Row], window: Mapping[str, Row]) -> dict[str, str]:
    """The table's row of one way."""
    found = {
        "replies": str(len(rows)),
        "ended": share(rows, lambda row: row["finish_reason"] == "stop" and bool(row["text"].strip())),
        "loops": f"{count(rows, ends_in_loop)} + {count(rows, draft_looped)}",
    }
    wanted = [(row, kind) for row in rows if row["prompt"].startswith("alpaca") and (kind := kind_of(row["asked"]))]
    if wanted:
        found["kind"] = f"{sum(bool(re.search(KINDS[kind][1], row['text'])) for row, kind in wanted)} of {len(wanted)}"
    for label in ("unsafe", "safe"):
        if labelled := [row for row in rows if row["prompt"].startswith(f"{label} ")]:
            found[f"refused {label}"] = (
                f"{sum(kind_of_reply(row['text']) == 'refusal' for row in labelled)} of {len(labelled)}"
            )
    questions = {f"demo {question.id}": question for question in load_questions(demo_dir() / "questions.jsonl")}
    if verdicts := [judge(questions[row["prompt"]], row["text"]) for row in rows if row["prompt"] in questions]:
        found["well"] = f"{sum(verdict.well for verdict in verdicts)} of {len(verdicts)}"
        found["right"] = str(sum(verdict.right for verdict in verdicts))
    found["draft"] = f"{statistics.mean(map(draft_share, rows)):.2f}"
    found["changes"] = f"{statistics.mean(max(0, len(row['turns']) - 1) for row in rows):.1f}"
    ratios = [row["seconds"] / window[row["prompt"]]["seconds"] for row in rows if row["prompt"] in window]
    found["time"] = f"{statistics.median(ratios):.2f}" if ratios else ""
    found["evaluated"] = " / ".join(f"{statistics.mean(row['evaluated'][i] for row in rows):.0f}" for i in range(2))
    return found


def count(rows: Sequence[Row], holds: Any) -> int:
    """In how many rows something holds."""
    return sum(map(holds, rows))


def share(rows: Sequence[Row], holds: Any) -> str:
    """The same in percent."""
    return f"{100 * count(rows, holds) / len(rows):.0f}%"


def ends_in_loop(row: Row) -> bool:
    """Whether the loop guard ended the reply."""
    return bool(row["finish_reason"] == "loop")


def draft_looped(row: Row) -> bool:
    """Whether the loop guard ended a turn of the draft."""
    return any(turn["who"] == "draft" and turn["reason"] == "loop" for turn in row["turns"])


def draft_share(row: Row) -> float:
    """Share of the tokens that the draft wrote."""
    lengths: list[tuple[str, int]] = [(turn["who"], turn["to"] - turn["from"]) for turn in row["turns"]]
    return sum(length for who, length in lengths if who == "draft") / max(1, sum(length for _, length in lengths))


def kind_of(prompt: str) -> str | None:
    """The kind of answer that a prompt asks for, if it is one of `KINDS`."""
    return next((kind for kind, (asks, _) in KINDS.items() if re.search(asks, prompt, re.IGNORECASE)), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draft", type=Path, default=demo_dir() / "draft-q8_0.gguf")
    parser.add_argument("--base", type=Path, default=demo_dir() / "base-q8_0.gguf")
    parser.add_argument("--alpaca", type=Path)
    parser.add_argument("--xstest", type=Path)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--first", type=int, default=120)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--also", type=Path, action="append", default=[], help="replies of other processes")
    parser.add_argument("--part", default="1/1", help="of the prompts, for several processes with an --out each")
    asked = parser.parse_args()
    ways = asked.ways.split(",")
    rows = [row for path in (asked.out, *asked.also) if path.exists() for row in map(json.loads, path.open())]
    record(asked, ways, rows)
    by_way = {way: [row for row in rows if row["way"] == way] for way in WAYS}
    window = {row["prompt"]: row for row in by_way["window"]}
    table = {way: summary(found, window) for way, found in by_way.items() if found}
    columns = list(next(iter(table.values())))
    print("| way |", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1) + "|")
    for way, found in table.items():
        print(f"| {way} |", " | ".join(found[column] for column in columns), "|")


if __name__ == "__main__":
    main()
