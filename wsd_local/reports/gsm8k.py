"""GSM8K: grade-school word problems, asked after four worked examples, and marked by the number that an answer ends in.

Contract: pure. The examples are this project's own and end as the data set's answers do, with `#### NUMBER`. An answer
is marked in the two ways of lm-evaluation-harness' task gsm8k, with the same verdicts: `flexible` takes the last number
of the text, `strict` the first number after `####`.
"""

from __future__ import annotations

import re

from wsd_local.prompts.messages import Message

EXAMPLES = (
    (
        "A bakery packs its rolls in bags of 6. On Monday it fills 14 bags and has 3 rolls left over. "
        "How many rolls did it bake?",
        "The bags hold 14 * 6 = 84 rolls. With the 3 left over that makes 84 + 3 = 87 rolls.\n#### 87",
    ),
    (
        "A train ticket costs $18, and children travel at half price. What do two adults and three children pay?",
        "Two adults pay 2 * 18 = $36. A child pays 18 / 2 = $9, so three children pay 3 * 9 = $27. "
        "Together they pay 36 + 27 = $63.\n#### 63",
    ),
    (
        "A water tank holds 500 litres and is 40% full. A pump adds 15 litres a minute. "
        "How many minutes does it take to fill the tank?",
        "The tank already holds 500 * 0.4 = 200 litres, so 500 - 200 = 300 litres are missing. "
        "The pump needs 300 / 15 = 20 minutes.\n#### 20",
    ),
    (
        "Lena reads 12 pages every day from Monday to Friday and twice as many on Saturday. "
        "Her book has 130 pages. How many pages are left for Sunday?",
        "From Monday to Friday she reads 5 * 12 = 60 pages, and on Saturday 2 * 12 = 24 pages. "
        "That is 60 + 24 = 84 pages, so 130 - 84 = 46 pages are left.\n#### 46",
    ),
)
"""Questions and worked answers."""

MAX_TOKENS = 512

_LAST = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_STATED = re.compile(r"#### (\-?[0-9\.\,]+)")


def messages(question: str) -> list[Message]:
    """The conversation that asks a question: the examples as turns before it."""
    asked: list[Message] = []
    for example, answer in EXAMPLES:
        asked += [{"role": "user", "content": example}, {"role": "assistant", "content": answer}]
    return [*asked, {"role": "user", "content": question}]


def flexible(text: str) -> str | None:
    """The last number of a text as it is written there; None if there is none."""
    found = _LAST.findall(text)
    return next(filter(None, found[-1])).strip() if found else None


def strict(text: str) -> str | None:
    """The first number after `####` as it is written there; None if there is none."""
    found = _STATED.search(text)
    return None if found is None else found[1].strip()


def is_right(found: str | None, answer: str) -> bool:
    """Whether a number is that of the data set's answer, without commas, dollar signs and a full stop at its end."""
    return found is not None and _plain(found) == _plain(answer)


def _plain(text: str) -> str:
    for pattern in (",", r"\$", r"(?s).*#### ", r"\.$"):
        text = re.sub(pattern, "", text)
    return text.lower()
