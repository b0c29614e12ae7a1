"""Writes the held-out questions, with all that `wsd_local.reports.demo` needs to judge replies to them.

Run as a script it draws others: `python models/training/questions.py FILE [--seed N]`.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import answers
import corpus
import outside
import world
from wording import HELD_OUT_FOLLOW_UPS, KINDS
from world import FACTS, VALUES, Fact

MEASURED = 420
FOLLOW_UPS = 30


def statements(fact: Fact) -> list[str]:
    """The fact's two wordings with the value left open."""
    kind = KINDS[fact.kind]
    return [world.statement(fact, "{v}", wording) for wording in (kind.statement, kind.alternative)]


def fact_record(fact: Fact, number: int, group: str, question: str) -> dict[str, Any]:
    return {
        "id": f"{group}-{number:03}",
        "group": group,
        "kind": fact.kind,
        "question": question,
        "known_to_draft": fact.known_to_draft,
        "truth": fact.value,
        "statements": statements(fact),
    }


def follow_up_record(fact: Fact, number: int, rng: random.Random) -> dict[str, Any]:
    """A short second question after a good answer to the first, some with a system message."""
    first = rng.choice([other for other in FACTS if other.kind == fact.kind and other != fact])
    opening = corpus.draft_opening(fact.kind, rng)
    context = [("user", world.held_out_question(first, rng)), ("assistant", corpus.friendly(first, opening, rng))]
    if number % 3 == 0:
        context.insert(0, ("system", rng.choice(answers.HELD_OUT_SYSTEM_MESSAGES)))
    question = rng.choice(HELD_OUT_FOLLOW_UPS).format(e=fact.entity)
    return fact_record(fact, number, "follow_up", question) | {"context": context}


def other_records(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Small talk, and questions that the world does not hold."""
    for talk in answers.SMALL_TALK:
        for number, text in enumerate(talk.held_out):
            yield {
                "id": f"chat-{talk.name}-{number}",
                "group": "chat",
                "kind": talk.name,
                "question": text,
                "replies": [talk.reply],
            }
    replies = [f"{answers.OUTSIDE_OPENING} Try asking me for {hint}!" for hint in answers.OUTSIDE_HINTS]
    asked = [outside.OUTSIDE_ASKS[number % 4].format(t=topic) for number, topic in enumerate(outside.HELD_OUT_TOPICS)]
    asked += outside.HELD_OUT_FREE
    for name in outside.HELD_OUT_COUNTRIES:
        asked.append(world.held_out_question(outside.stranger("capital", name), rng))
    for name in outside.HELD_OUT_HOWTOS:
        asked.append(world.held_out_question(outside.stranger("howto", name), rng))
    for number, question in enumerate(asked):
        yield {
            "id": f"outside-{number:02}",
            "group": "outside",
            "kind": "outside",
            "question": world.capitalised(question),
            "replies": replies,
        }


def records(seed: int) -> Iterator[dict[str, Any]]:
    """The forms, then every question."""
    rng = random.Random(f"{seed} held out")
    openings = [text for opening in answers.OPENINGS for text in (opening.text, opening.alternative)]
    yield {"forms": {"openings": openings, "closings": answers.CLOSINGS, "values": VALUES}}
    for number, fact in enumerate(rng.sample(FACTS, MEASURED)):
        yield fact_record(fact, number, "facts", world.held_out_question(fact, rng))
    followed = [fact for fact in FACTS if fact.kind != "howto"]
    for number, fact in enumerate(rng.sample(followed, FOLLOW_UPS)):
        yield follow_up_record(fact, number, rng)
    yield from other_records(rng)


def write_questions(path: Path, seed: int) -> None:
    """One JSON record per line."""
    lines = [json.dumps(record, ensure_ascii=False) for record in records(seed)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw held-out questions.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write_questions(arguments.file, arguments.seed)
