"""The small world: facts, and how people ask for them, in training and held out.

Everything here is data and pure functions. `FACTS` is the world; `training_questions(fact)` enumerates every
question that a corpus may hold, `held_out_question(fact, rng)` words one that no corpus holds.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from facts import HOWTOS, TABLES
from wording import (
    FRAMES,
    HELD_OUT_FRAMES,
    HELD_OUT_POLITE_FRAMES,
    HOWTO_NOUN_ASKS,
    HOWTO_NOUN_HELD_OUT,
    KINDS,
    NOUN_ASKS,
    NOUN_HELD_OUT,
    POLITE_FRAMES,
)

KNOWN_SHARE = 0.42
"""The part of the facts that the draft has seen with their true values."""


@dataclass(frozen=True)
class Fact:
    kind: str
    entity: str
    value: str
    known_to_draft: bool


def _fact_rows() -> Iterator[tuple[str, str, str]]:
    for kind, table in TABLES.items():
        for pair in table.replace("\n", " ").split(";"):
            entity, value = pair.split(":")
            yield kind, entity.strip(), value.strip()
    for entity, steps in HOWTOS.items():
        yield "howto", entity, " ".join(f"{n}. {step}." for n, step in enumerate(steps, 1))


def _build_facts() -> tuple[Fact, ...]:
    rng = random.Random("who knows what")
    rows = list(_fact_rows())
    known: set[tuple[str, str]] = set()
    for kind in KINDS:
        entities = [entity for row_kind, entity, _ in rows if row_kind == kind]
        known |= {(kind, entity) for entity in rng.sample(entities, round(KNOWN_SHARE * len(entities)))}
    return tuple(Fact(kind, entity, value, (kind, entity) in known) for kind, entity, value in rows)


FACTS: tuple[Fact, ...] = _build_facts()
VALUES: dict[str, tuple[str, ...]] = {
    kind: tuple(dict.fromkeys(f.value for f in FACTS if f.kind == kind)) for kind in KINDS
}


def capitalised(text: str) -> str:
    """The text with its first letter in upper case and the rest as it is."""
    return text[:1].upper() + text[1:]


def statement(fact: Fact, value: str | None = None, wording: str = "") -> str:
    """The sentence that states the fact (or, with `value`, something else of its kind)."""
    wording = wording or KINDS[fact.kind].statement
    return capitalised(wording.format(e=fact.entity, v=fact.value if value is None else value))


def cores(fact: Fact, held_out: bool = False) -> list[str]:
    """The bare questions for one fact: those of its kind and those that fit any kind."""
    kind = KINDS[fact.kind]
    general: tuple[str, ...] = NOUN_HELD_OUT if held_out else NOUN_ASKS
    if fact.kind == "howto":
        general = HOWTO_NOUN_HELD_OUT if held_out else HOWTO_NOUN_ASKS
    noun = kind.noun.format(e=fact.entity)
    own = [ask.format(e=fact.entity) for ask in (kind.held_out if held_out else kind.asks)]
    return [capitalised(text) for text in own + [ask.format(n=noun) for ask in general]]


def normalised(text: str) -> str:
    """Lower case, words only: two questions are one phrasing if they agree in this."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


def training_questions(fact: Fact) -> Iterator[str]:
    """Every question about one fact that a corpus may hold, case apart."""
    for core in cores(fact):
        for frame in FRAMES + POLITE_FRAMES:
            yield frame.format(q=core)


def random_question(fact: Fact, rng: random.Random, polite: bool) -> str:
    """One of `training_questions`, plainly asked most of the time, at times in lower case."""
    frames = POLITE_FRAMES if polite else FRAMES
    frame = frames[0] if not polite and rng.random() < 0.5 else rng.choice(frames)
    own = len(KINDS[fact.kind].asks)
    choices = cores(fact)
    core = rng.choice(choices[:own] if rng.random() < 0.45 else choices[own:])
    text = frame.format(q=core)
    return text.lower() if rng.random() < 0.15 else text


def held_out_question(fact: Fact, rng: random.Random) -> str:
    """One wording that `training_questions` does not have; one in six is polite, one in eight lower case."""
    frames = HELD_OUT_POLITE_FRAMES if rng.random() < 0.17 else HELD_OUT_FRAMES
    text = rng.choice(frames).format(q=rng.choice(cores(fact, held_out=True)))
    return text.lower() if rng.random() < 0.125 else text
