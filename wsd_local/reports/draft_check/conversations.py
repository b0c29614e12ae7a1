"""What a converted draft is checked with: conversations of every kind that a template must render.

Contract: pure. No text spells a control token: this program keeps such spellings as text, and trainers do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsd_local.prompts.messages import Message
from wsd_local.reports.pair_check.probes import DEMO_PROBES, PROBES


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation, what is special about it, and whether the beginning of a reply is asked for after it."""

    about: str
    messages: tuple[Message, ...]
    generation: bool = True


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _assistant(text: str) -> Message:
    return Message(role="assistant", content=text)


def _system(text: str) -> Message:
    return Message(role="system", content=text)


_QUESTION, _ANSWER = PROBES[0].question, PROBES[0].answer
CONVERSATIONS = (
    Conversation("one question", (_user(_QUESTION),)),
    Conversation("a system message", (_system("Answer in one short sentence."), _user(_QUESTION))),
    Conversation("several turns", (_user(_QUESTION), _assistant(_ANSWER), _user("And why is it red in the evening?"))),
    Conversation(
        "a system message and several turns",
        (
            _system("You are a patient teacher."),
            _user("What is 12 times 12?"),
            _assistant("12 times 12 is 144."),
            _user("And 144 times 3?"),
            _assistant("432."),
            _user("Thank you!"),
        ),
    ),
    Conversation(
        "other scripts", (_user("Was heißt „größer“ auf 日本語? \U0001f642 и что значит e\u0301 \u2192 \u00e9, שלום?"),)
    ),
    Conversation("white space at the ends", (_user("  two spaces,\ta tab\n\n\nand blank lines  \n"),)),
    Conversation(
        "code", (_user("What does `{{ x | tojson }}` print?\n```python\nx = {'a': \"b\\n\", '<b>': 1 & 2}\n```"),)
    ),
    Conversation("a whole answer", (_user(_QUESTION), _assistant(_ANSWER)), generation=False),
    Conversation("two questions in a row", (_user("Are you there?"), _user(_QUESTION))),
    Conversation("an answer before any question", (_assistant("Hello! How can I help?"), _user(_QUESTION))),
)
"""What both templates must render alike, or both refuse."""

READ = tuple((_user(probe.question), _assistant(probe.answer)) for probe in PROBES[:10])
"""What both models read when their log-probabilities are compared."""
ASKED = tuple(_user(probe.question) for probe in (*PROBES, *DEMO_PROBES))
"""Questions that the draft answers, to see whether its replies end."""
ANSWERED = tuple((_user(probe.question), _assistant(probe.answer)) for probe in PROBES)
"""Questions with whole answers, after which a reply should end."""
