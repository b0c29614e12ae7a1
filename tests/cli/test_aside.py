"""A note after the text of an unfinished line, as a terminal shows it."""

from __future__ import annotations

import pytest

from wsd_local.cli.aside import Aside

SAVE, BACK, ERASE = "\x1b7", "\x1b8", "\x1b[K"


def test_a_note_is_removed_before_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    aside = Aside(80)
    aside.written("Some words")
    aside.show("gemma reads 1 of 2 tokens")
    aside.show("gemma reads 2 of 2 tokens")
    aside.clear()
    aside.clear()
    err = capsys.readouterr().err
    assert err.count(SAVE) == err.count(BACK) == err.count(ERASE) == 2
    assert err.endswith(BACK + ERASE) and "\n" not in err


@pytest.mark.parametrize(
    ("text", "fits"), [("x" * 40, True), ("x" * 60, False), ("x" * 60 + "\nshort", True), ("长" * 30, False)]
)
def test_a_note_never_leaves_the_line(text: str, fits: bool, capsys: pytest.CaptureFixture[str]) -> None:
    aside = Aside(80)
    aside.written(text[:5])
    aside.written(text[5:])
    aside.show("a model with a long name reads 1,800 of 2,600 tokens, and more words")
    err = capsys.readouterr().err
    assert bool(err) == fits
    assert len(err) < 80 + len(SAVE) + len("\x1b[2m\x1b[0m")
