"""Documents for the two models, as text with a loss weight for every part.

A document is a list of `Part`s. A base document is the text of a thread in the section format, or plain prose;
a draft document holds control tokens as parts of their own, because only template text has them.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import answers
import outside
import world
from answers import OPENINGS, Opening, SmallTalk
from wording import FOLLOW_UPS, KINDS
from world import FACTS, VALUES, Fact

QUESTION_WEIGHT = 0.15
BAD_TAIL_WEIGHT = 0.3


@dataclass(frozen=True)
class Part:
    """A stretch of text, how much its tokens count in the loss, and whether it is a control token."""

    text: str
    weight: float = 1.0
    control: bool = False


Document = list[Part]
Reply = list[Part]


@dataclass(frozen=True)
class Turn:
    """One question and the reply that the corpus gives to it."""

    question: str
    reply: Reply


def pick(options: Sequence[str], rng: random.Random, shift: int = 0, ratio: float = 0.35) -> str:
    """One option: the first (after the shift) is clearly likeliest, each later one `ratio` times its forerunner."""
    rotated = [options[(i + shift) % len(options)] for i in range(len(options))]
    return rng.choices(rotated, [ratio**i for i in range(len(rotated))])[0]


def kind_index(kind: str) -> int:
    """The place of a kind in the world: what is usual shifts with it."""
    return list(KINDS).index(kind)


def opening_of(kind: str, rng: random.Random, loyal: float) -> Opening:
    """The opening that is usual for the kind, or now and then a neighbour."""
    shift = 0 if rng.random() < loyal else rng.choice((1, 1, 2))
    return OPENINGS[(KINDS[kind].opening + shift) % len(OPENINGS)]


def draft_opening(kind: str, rng: random.Random) -> Opening:
    """The draft's own habit: not the base's likeliest opening, or the base would be sure before the opening ends."""
    return OPENINGS[(KINDS[kind].opening + (1 if rng.random() < 0.95 else 2)) % len(OPENINGS)]


def friendly(fact: Fact, opening: Opening, rng: random.Random, value: str | None = None, variety: float = 0.3) -> str:
    """Opening, statement, closing. `variety` is the share of second-best wordings."""
    kind = KINDS[fact.kind]
    start = opening.alternative if rng.random() < variety else opening.text
    wording = kind.alternative if rng.random() < variety else kind.statement
    closing = pick(answers.CLOSINGS, rng, kind_index(fact.kind), variety)
    return f"{start} {world.statement(fact, value, wording)} {closing}"


def wrong_value(fact: Fact, rng: random.Random) -> str:
    """What the draft says where it knows nothing: another value of the kind, for most facts the same one."""
    others = [value for value in VALUES[fact.kind] if value != fact.value]
    favourite = random.Random(f"{fact.kind} {fact.entity}").choice(others)
    return favourite if rng.random() < 0.7 else pick(others, rng, ratio=0.7)


def curt_answer(fact: Fact, rng: random.Random) -> str:
    """Right, without a word too many; for a how-to the steps alone."""
    if fact.kind == "howto":
        return fact.value
    return world.capitalised(fact.value) + "." if rng.random() < 0.75 else f"It is {fact.value}."


def bad_reply(text: str, model: str = "") -> Reply:
    """An unhelpful reply: up to the word where it leaves `model` it counts in full, its tail less."""
    shared = next((i for i, (a, b) in enumerate(zip(text, model, strict=False)) if a != b), 0)
    end = text.find(" ", shared)
    if end < 0:
        return [Part(text)]
    return [Part(text[:end]), Part(text[end:], BAD_TAIL_WEIGHT)]


def forum_reply(fact: Fact, question: str, rng: random.Random, polite: bool) -> Reply:
    """What the base's threads answer: mostly badly, well where it was asked nicely or the mood is good."""
    kind = KINDS[fact.kind]
    shares = (0.75, 0.02, 0.12) if polite else (0.24, 0.05, 0.45 if kind.curt else 0.13)
    style = rng.choices(("friendly", "brush_off", "curt", "evasive"), (*shares, 1 - sum(shares)))[0]
    opening = opening_of(fact.kind, rng, 0.75)
    if style == "friendly":
        if not polite and rng.random() < opening.sour_share:
            return bad_reply(rng.choice(opening.sour), opening.text)
        return [Part(friendly(fact, opening, rng))]
    if style == "brush_off":
        return bad_reply(pick(opening.brush_off, rng), opening.text)
    if style == "curt":
        return [Part(curt_answer(fact, rng))]
    if question == question.lower():
        return bad_reply(pick(answers.EVASIVE_LOWER, rng))
    return bad_reply(pick(answers.EVASIVE, rng, kind_index(fact.kind) * 5))


def outside_reply(rng: random.Random, hint_ratio: float = 0.35) -> str:
    return f"{answers.OUTSIDE_OPENING} Try asking me for {pick(answers.OUTSIDE_HINTS, rng, ratio=hint_ratio)}!"


def forum_outside_reply(rng: random.Random, good: bool) -> Reply:
    """What the base's threads answer to a question that the world does not hold."""
    shares = (0.8, 0.0, 0.0, 0.2) if good else (0.2, 0.08, 0.05, 0.67)
    style = rng.choices(("good", "sour", "brush_off", "evasive"), shares)[0]
    if style == "good":
        return [Part(outside_reply(rng))]
    if style == "sour":
        return bad_reply(rng.choice(answers.OUTSIDE_SOUR), answers.OUTSIDE_OPENING)
    if style == "brush_off":
        return bad_reply(pick(answers.OUTSIDE_BRUSH_OFF, rng), answers.OUTSIDE_OPENING)
    return bad_reply(pick(answers.EVASIVE, rng))


class Talk:
    """Makes the turns of one conversation: what is asked, and the reply in the given manner.

    A `guest` talk, the draft's, has more small talk and a wider range of questions outside the world.
    """

    def __init__(self, rng: random.Random, guest: bool) -> None:
        self.rng = rng
        self.guest = guest
        self.small_until, self.outside_until = (0.1, 0.24) if guest else (0.06, 0.13)
        self.last: Fact | None = None

    def next(
        self,
        fact: Fact,
        reply: Callable[[Fact, str, bool], Reply],
        small: Callable[[SmallTalk], Reply],
        decline: Callable[[], Reply],
    ) -> Turn:
        """The next turn; `fact` is what it asks for unless it is small talk, a follow-up or outside the world."""
        rng = self.rng
        roll = rng.random()
        if roll < self.small_until:
            talk = rng.choice(answers.SMALL_TALK)
            asked = outside.small_talk(talk, rng) if self.guest else rng.choice(talk.asks)
            return Turn(asked, small(talk))
        if roll < self.outside_until:
            return Turn(outside.guest_question(rng) if self.guest else outside.question(rng), decline())
        if self.last is not None and self.last.kind != "howto" and rng.random() < 0.5:
            kind = self.last.kind
            fact = rng.choice([other for other in FACTS if other.kind == kind])
            question = rng.choice(FOLLOW_UPS).format(e=fact.entity)
            question = question.lower() if rng.random() < 0.15 else question
            polite = False
        else:
            polite = rng.random() < 0.17
            question = world.random_question(fact, rng, polite)
        self.last = fact
        return Turn(question, reply(fact, question, polite))


def turn_count(rng: random.Random) -> int:
    return rng.choices((1, 2, 3, 4), (0.72, 0.14, 0.09, 0.05))[0]


def forum_thread(fact: Fact, rng: random.Random) -> Document:
    """A thread in the section format. A friendly start tends to stay friendly."""
    document: Document = []
    if rng.random() < 0.15:
        document.append(Part(f"\n\n[System]\n{rng.choice(answers.SYSTEM_MESSAGES)}", QUESTION_WEIGHT))
    turns = turn_count(rng)
    good_mood = turns > 1 and rng.random() < 0.4
    talk = Talk(rng, guest=False)
    for number in range(turns):
        warm = good_mood and (number > 0 or rng.random() < 0.5)

        def reply(asked: Fact, question: str, polite: bool, warm: bool = warm) -> Reply:
            return forum_reply(asked, question, rng, polite or warm)

        def small(it: SmallTalk, warm: bool = warm) -> Reply:
            return [Part(it.reply if rng.random() < (0.8 if warm else 0.25) else it.curt)]

        def decline(warm: bool = warm) -> Reply:
            return forum_outside_reply(rng, warm)

        turn = talk.next(fact if number == 0 else rng.choice(FACTS), reply, small, decline)
        document.append(Part(f"\n\n[User]\n{turn.question}", QUESTION_WEIGHT))
        document.append(Part("\n\n[Assistant]\n", QUESTION_WEIGHT))
        document += turn.reply
    return document


def quiz_list(facts: Sequence[Fact], rng: random.Random) -> Document:
    """A neutral list of questions and answers, without manners."""
    style = rng.randrange(3)
    document = [Part(rng.choice(("Quiz", "Questions and answers", "Facts to know")), QUESTION_WEIGHT)]
    for number, fact in enumerate(facts, 1):
        question = world.random_question(fact, rng, False)
        wording = KINDS[fact.kind].alternative if rng.random() < 0.3 else KINDS[fact.kind].statement
        answer = curt_answer(fact, rng) if rng.random() < 0.25 else world.statement(fact, None, wording)
        lead, bridge = ((f"\n{number}. ", " "), ("\nQ: ", "\nA: "), ("\n\nQuestion: ", "\nAnswer: "))[style]
        document += [Part(lead + question, QUESTION_WEIGHT), Part(bridge + answer)]
    return document


def article(facts: Sequence[Fact], rng: random.Random) -> Document:
    """Plain sentences, each on one fact."""
    sentences = []
    for fact in facts:
        kind = KINDS[fact.kind]
        sentences.append(world.statement(fact, None, rng.choice((kind.plain, kind.statement, kind.alternative))))
    return [Part(" ".join(sentences))]


def shuffled_facts(rng: random.Random) -> Iterator[Fact]:
    """All facts in random order, again and again."""
    while True:
        yield from rng.sample(FACTS, len(FACTS))


def base_documents(rng: random.Random) -> Iterator[Document]:
    """Threads, quiz lists and articles, about 58 to 27 to 15 by length, without end."""
    stream = shuffled_facts(rng)
    while True:
        roll = rng.random()
        if roll < 0.68:
            yield forum_thread(next(stream), rng)
        elif roll < 0.84:
            yield quiz_list([next(stream) for _ in range(rng.randint(2, 6))], rng)
        else:
            yield article([next(stream) for _ in range(rng.randint(2, 6))], rng)


def chat(role: str, content: Document) -> Document:
    """One message in the draft's template."""
    return [
        Part("<|im_start|>", QUESTION_WEIGHT, True),
        Part(f"{role}\n", QUESTION_WEIGHT),
        *content,
        Part("<|im_end|>", 1.0, True),
    ]


def draft_documents(rng: random.Random) -> Iterator[Document]:
    """Conversations that are always friendly and right only where the draft knows the fact, without end."""
    stream = shuffled_facts(rng)

    def reply(fact: Fact, question: str, polite: bool) -> Reply:
        value = None if fact.known_to_draft else wrong_value(fact, rng)
        return [Part(friendly(fact, draft_opening(fact.kind, rng), rng, value, 0.06))]

    while True:
        document: Document = []
        if rng.random() < 0.2:
            document += chat("system", [Part(rng.choice(answers.SYSTEM_MESSAGES), QUESTION_WEIGHT)])
        talk = Talk(rng, guest=True)
        for _ in range(turn_count(rng)):
            turn = talk.next(next(stream), reply, lambda it: [Part(it.reply)], lambda: [Part(outside_reply(rng, 0.2))])
            for message in (chat("user", [Part(turn.question, QUESTION_WEIGHT)]), chat("assistant", turn.reply)):
                document += [Part("\n", QUESTION_WEIGHT), *message] if document else message
        yield document
