"""What is seen in texts alone, without any model."""

from __future__ import annotations

import pytest
from scripted import Words as Vocabulary

from wsd_local.reports.pair_check.figures import Words
from wsd_local.reports.pair_check.texts import beginning, first_pass, leaked, loops, thinks, words_of

TEXT = "the cat sat, the end"
PLAIN = Vocabulary(["the", " cat", " sat", ",", " the", " end"])


def test_vocabularies_that_agree_break_nothing() -> None:
    assert words_of(TEXT, PLAIN, PLAIN) == Words(words=5, broken=0, draft_tokens=6, moved=0, base_tokens=6, fallback=0)


def test_pieces_of_words_break_no_word() -> None:
    found = words_of(TEXT, PLAIN, Vocabulary())
    assert (found.broken, found.moved, found.base_tokens) == (0, 0, len(TEXT))


def test_tokens_over_several_words_break_them() -> None:
    found = words_of(TEXT, PLAIN, Vocabulary(["the cat", " sat", ", the e", "nd"]))
    assert found.base_tokens == 4
    # Borders after "the cat", " sat", ", the e": "the" and "cat", and the second "the" and "end", do not end or begin
    # at one.
    assert (found.broken, found.moved) == (4, 3)


def test_parts_of_characters_are_counted() -> None:
    found = words_of("naïve 🙂", Vocabulary(["naïve", " ", "🙂"]), Vocabulary(["na", "ve"]))
    assert found.fallback == len("ï".encode()) + len("🙂".encode())


class Lower(Vocabulary):
    """Writes everything in small letters."""

    def tokenize(self, text: str) -> list[int]:
        return super().tokenize(text.lower())


def test_nothing_is_counted_where_a_vocabulary_rewrites_the_text() -> None:
    assert words_of("The cat", PLAIN, Lower()) == words_of("", PLAIN, PLAIN) == Words(0, 0, 0, 0, 0, 0)


def test_figures_of_texts_add_up() -> None:
    one = words_of(TEXT, PLAIN, PLAIN)
    assert one + one == Words(words=10, broken=0, draft_tokens=12, moved=0, base_tokens=12, fallback=0)


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("Paris.\n\nUser: and Rome?", "User:"),
        ("Paris.\n# Query:\nAnd Rome?", "# Query:"),
        ("Paris.\n\n### Instruction: go on", "### Instruction:"),
        ("human: hi", "human:"),
        ("Paris.\n[Assistant]\nYes.", "[Assistant]"),
        ("Paris.<|im_end|>\n", "<|im_end|>"),
        ("Paris.<end_of_turn>", "<end_of_turn>"),
        ("Paris. [/INST] Rome", "[/INST]"),
        ("Paris.\nQ: and Rome?", "Q:"),
        ("Paris.<over>", "<over>"),
    ],
)
def test_markers_that_leak(text: str, marker: str) -> None:
    assert leaked(text, ["\n\nQ: ", "\n\nA: ", ""], ["<over>"]) == marker


@pytest.mark.parametrize(
    "text",
    [
        "The user: a person who uses a program.",
        "## Paris\nThe capital.",
        "An answer, and a query.",
        "if a < b or c > d: print('<b>')",
        "Systems: many. Users: few.",
        "FAQ: none",
    ],
)
def test_text_that_is_no_marker(text: str) -> None:
    assert leaked(text, ["\n\nQ: ", "\n\nA: ", ""], ["<over>"]) is None


@pytest.mark.parametrize(
    "raw",
    [
        "<think>\nThe user asks",
        "\n<think>\n",
        "[THINK] so",
        "<|channel>thought\n",
        "Okay, the user is asking about France.",
        "Hmm, let me think about it.",
        "Let's think step by step.",
        "We need to answer this.",
    ],
)
def test_drafts_that_think(raw: str) -> None:
    assert thinks(raw)


@pytest.mark.parametrize("raw", ["The capital is Paris.", "Okay! Here are three tips.", "So, users can do this.", ""])
def test_drafts_that_do_not(raw: str) -> None:
    assert not thinks(raw)


@pytest.mark.parametrize(
    ("text", "length", "begun"),
    [("one two three", 7, "one two"), ("one two three", 8, "one two"), ("one two", 7, "one two"), ("abcdef", 3, "abc")],
)
def test_the_beginning_of_a_text(text: str, length: int, begun: str) -> None:
    assert beginning(text, length) == begun


def test_loops() -> None:
    assert loops("It is la Femme" + ", la Femme" * 20)
    assert not loops(TEXT * 2)


def test_the_first_window_that_passes() -> None:
    assert first_pass([None, None, 0.5, 0.9], 0.8) == 1
    assert first_pass([None, None, 0.5, 0.9], 0.5) == 0
    assert first_pass([None, 0.5], 0.8) is None
    assert first_pass([None], 0) is None
