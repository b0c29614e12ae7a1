"""Kinds of text at a switch: a table of examples for each rule, and what holds for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.reports.mechanism.windows import KINDS, MEANINGS, Window, kind_of

ASKED = "What is the capital of France, and how do I get there?"
EXAMPLES = [
    # The window stands between the brackets.
    ("code", "Here it is:\n```python\nfor [x in range(3):]\n    print(x)\n```"),
    ("code", "Like this:\n[```python\n]import re\n```"),
    ("list marker", "You need:\n[- a bowl and] a spoon"),
    ("list marker", "You need:\n  [* a bowl] and a spoon"),
    ("list marker", "Steps[:\n\n1. Preheat] the oven"),
    ("list marker", "Steps:\n\n10[) Preheat the] oven"),
    ("list marker", "Choose:\n(b[) the second] one"),
    ("heading", "# The [capital of] it all\n\nParis it is."),
    ("heading", "It depends.\n\n**Getting [there by] train:**\nTake one."),
    ("heading", "It depends.\n\n**Getting [there by train]**: \nTake one."),
    ("heading", "The [capital of it]\n=====\nParis"),
    ("greeting", "Hello[! I am your] assistant."),
    ("greeting", "[Sure, I can show] you that."),
    ("greeting", "That's a great [question to ask me]."),
    ("greeting", "Well. I'd be [happy to help with] that."),
    ("restated question", "So the thing is, [the capital of France lies] on the Seine"),
    ("restated question", "So: WHAT [is The Capital of it] is known"),
    ("announcement", "Here are [three good ways to travel]:\n\nOne"),
    ("announcement", "It rains. Take [these with you]: an umbrella"),
    ("repetition", "It lies on the Seine. And then it [lies on the Seine] for ever"),
    ("other", "Sure. I say: [this is how it] goes"),
    ("other", "Paris has [two million people in] it."),
    ("other", "Paris is big. Then it grows. Then hello [there it goes on]."),
    ("other", "He said [it is nothing of] it"),
    ("other", "2024[ was a good year] for it"),
    ("other", "Nice: it [has two rivers] now"),
    ("other", "**Paris** has [two rivers] now"),
    ("other", "[aa] x [aa]"),
]


def window(marked: str) -> Window:
    before, inside, after = marked.replace("]", "[", 1).split("[", 2)
    return Window(before + inside + after, len(before), len(before + inside), ASKED)


@pytest.mark.parametrize(("kind", "marked"), EXAMPLES)
def test_kinds(kind: str, marked: str) -> None:
    assert kind_of(window(marked)) == kind


def test_every_kind_has_an_example_and_a_meaning() -> None:
    assert {kind for kind, _ in EXAMPLES} == set(KINDS) == set(MEANINGS)


def test_a_closed_block_of_code_is_over() -> None:
    assert kind_of(window("```\nx\n```\nThat [prints a line of] text")) == "other"


def test_without_a_question_nothing_is_restated() -> None:
    found = window("So the thing is, [the capital of France lies] on the Seine")
    assert kind_of(Window(found.text, found.start, found.end, "")) == "other"


@given(st.text(alphabet="ab. :\n-*#`1)=?!é", max_size=80), st.data())
def test_any_window_of_any_text_has_one_kind(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    found = Window(text, start, end, ASKED)
    assert kind_of(found) in KINDS
    number, sentence = found.last_sentence
    assert found.first_sentence[0] <= number
    assert number >= 0 and "\n" not in found.line and "\n" not in sentence
    if text[:end].strip():
        assert text[found.last] in sentence and text[found.last] in found.line


@given(st.text(alphabet="ab. \n", min_size=1, max_size=60))
def test_sentences_are_numbered_in_order(text: str) -> None:
    numbers = [Window(text, 0, end, "").last_sentence[0] for end in range(1, len(text) + 1) if text[:end].strip()]
    assert numbers == sorted(numbers) and (not numbers or numbers[0] == 0)
