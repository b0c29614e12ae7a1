"""What reaches a terminal: nothing that steers or hides, and everything that people write."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.system.visible import visible

HOSTILE = st.text(
    st.sampled_from("ab \n\t\r\x00\x1b\x07\x7f\x9b\x9d\u202e\u2066\u200b\ufe0f\U0001f3f4\U000e0067\U000e007f\ud800é")
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A\x1b]0;TITLE\x07\x1b[2J", "A␛]0;TITLE␇␛[2J"),
        ("\x00\x08\r\x7f", "␀␈␍␡"),
        ("\x9b2J\x9d0;t\x9c\x85", "�2J�0;t��"),
        ("user\u202etxt.exe\u202c \u2066x\u2069 \u202a\u202b\u202d", "user�txt.exe� �x� ���"),
        ("pay\u200bpal\ufeff\u2060\u2062\u3164\uffa0\ufff9", "pay�pal������"),
        ("a\u2028b\u2029c", "a�b�c"),
        ("hi\U000e0068\U000e0069\U000e0001", "hi���"),
        ("a\ufe0f\ufe0f\U000e0100", "a\ufe0f��"),
        ("\ud800 \udcff", "� �"),
        ("one\n\ttwo", "one\n\ttwo"),
    ],
)
def test_what_steers_or_hides(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "naïve café, 10 €; “quotes” – dashes… non\u00a0breaking, soft\u00adhyphen",
        "שלום\u200f (עולם)!",
        "مرحبا\u200e، می\u200cخواهم",
        "क्\u200dष हिन्दी",
        "ភាសា\u200bខ្មែរ ไทย\u200bไทย",
        "日本語 中文 한국어 e\u0301",
        "👨\u200d👩\u200d👧 ❤\ufe0f 1\ufe0f\u20e3 👍🏽 🇫🇷",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "葛\U000e0100城",
    ],
)
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


def test_a_text_of_one_line() -> None:
    assert visible("a\n\tb\x1b", keep_newlines=False) == "a␊␉b␛"


@given(HOSTILE | st.text(), st.integers(0, 40))
def test_pieces_are_shown_as_the_whole(text: str, cut: int) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert shown == visible(text[:cut]) + visible(text[cut:], before=text[:cut])
    assert visible(shown) == shown
    assert all(unicodedata.category(sign) not in ("Cc", "Cs") or sign in "\n\t" for sign in shown)
