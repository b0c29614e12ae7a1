"""Parts of the chat by themselves: drawing, the models' thread, native output, the clipboard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.widgets import Static
from wsd_chat.entries import Entry
from wsd_chat.markdown.live import LiveMarkdown
from wsd_chat.markdown.source import SWITCH, pieces, source_of
from wsd_chat.terminal.clipboard import copy
from wsd_chat.widgets.message import MessageView

from wsd_local.runtime.power import on_battery

DRAFT = Style(italic=True)
CONSOLE = Console(width=60, color_system="truecolor", force_terminal=True)


def drawn(live: LiveMarkdown) -> list[Segment]:
    """What the screen gets."""
    return [segment for segment in CONSOLE.render(live) if not segment.control]


def visible(live: LiveMarkdown) -> list[tuple[str, bool]]:
    """The words that can be seen, and whether each is the draft's; how many blank lines there are is left open."""
    segments = drawn(live)
    return [
        (word, bool(segment.style and segment.style.italic)) for segment in segments for word in segment.text.split()
    ]


def whole(source: str, label: str = "0.9", *, drafted: bool = True) -> LiveMarkdown:
    """A reply that is drawn for the first time."""
    live = LiveMarkdown(DRAFT)
    live.source, live.label, live.drafted = source, label, drafted
    return live


def test_the_draft_has_its_style_and_the_base_has_none() -> None:
    segments = drawn(whole(f"Great **question**! I am{SWITCH} glad.\n\nAnother paragraph."))
    text = "".join(segment.text for segment in segments)
    assert "Great question! I am▐0.9▌ glad." in text and "Another paragraph." in text
    italic = "".join(segment.text for segment in segments if segment.style and segment.style.italic)
    assert italic.strip() == "Great question! I am"
    alone = [segment for segment in drawn(whole("only the draft")) if segment.text.strip()]
    assert all(segment.style is not None and segment.style.italic for segment in alone)
    assert not any(segment.style and segment.style.italic for segment in drawn(whole("only the base", drafted=False)))


PARTS = ["word ", "**bold** ", "\n", "\n\n", "- item\n", "1. one\n", "```\n", "code\n", "# h\n", "> q\n", "~~~\n"]
PIECES = st.lists(st.sampled_from(PARTS), max_size=25)


@settings(deadline=None, max_examples=60)
@given(pieces=PIECES, at=st.integers(0, 25))
def test_drawing_step_by_step_ends_in_the_same_picture(pieces: list[str], at: int) -> None:
    live = LiveMarkdown(DRAFT)
    for index, piece in enumerate(pieces):
        live.source += (SWITCH if index == at else "") + piece
        live.label = "0.9" if SWITCH in live.source else ""
        drawn(live)
    assert visible(live) == visible(whole(live.source, live.label))


@pytest.mark.parametrize(
    ("source", "complete"),
    [
        ("one\n\ntwo", "one\n\n"),
        ("one\n\n", ""),
        ("one\n\n- two", ""),
        ("a\n\nb\n\n  c", "a\n\n"),
        ("```\na\n\nb", ""),
        ("```\na\n```\n\nb", "```\na\n```\n\n"),
        ("", ""),
    ],
)
def test_what_is_complete(source: str, complete: str) -> None:
    assert "".join(pieces(source)[:-1]) == complete and "".join(pieces(source)) == source


MARKED = [
    ("heading", "Great question.\n\n## Boiling an egg\n\nTake one.", len("Great question.\n\n##")),
    ("in a heading", "# Boiling an egg\n\nTake one.", len("# Boiling")),
    ("after a heading", "# Boiling an egg\n\nTake one.", len("# Boiling an egg")),
    ("fence", "Here:\n\n```python\nprint(1)\n```\n\nDone.", len("Here:\n\n```python")),
    ("in code", "Here:\n\n```python\nprint(1)\n```\n\nDone.", len("Here:\n\n```python\nprint")),
    ("after code", "```\nprint(1)\n```\n\nDone.", len("```\nprint(1)\n```")),
    ("bullet", "- one\n- two\n- three", len("- one\n-")),
    ("long item", "- " + "word " * 30 + "\n- two", len("- " + "word " * 11)),
    ("number", "1. one\n2. two", len("1. one\n2.")),
    ("table", "| a | b |\n|---|---|\n| 1 | 2 |", len("| a | b |\n|---|---|")),
    ("emphasis", "a **bold word** here", len("a **bold")),
    ("underscores", "a _word_ here", len("a _word_")),
    ("link", "see [here](http://example.org/a/b) for more", len("see [here](http://exam")),
    ("rule", "---\n\ntext", 3),
    ("beginning", "# Title\n\ntext", 0),
    ("end", "all of it", len("all of it")),
    ("quote", "> quoted\n> more", len("> quoted\n>")),
]


@pytest.mark.parametrize(("text", "at"), [case[1:] for case in MARKED], ids=[case[0] for case in MARKED])
def test_the_mark_is_there_and_changes_nothing_else(text: str, at: int) -> None:
    plain, marked = whole(text), whole(source_of(text, at), "0.91")
    page = "".join(segment.text for segment in drawn(marked))
    assert page.count("▐0.91▌") == 1
    assert all(cell_len(line.rstrip()) <= 60 for line in page.splitlines())
    words = "".join(segment.text for segment in drawn(plain)).split()
    letters = "".join(page.replace("▐0.91▌", "").replace("─", "").split())
    assert letters == "".join(words).replace("─", ""), "no word is lost"


@settings(deadline=None, max_examples=80)
@given(
    pieces=st.lists(st.sampled_from([*PARTS, "| a | b |\n|---|---|\n", "_x_ ", "[a](b) ", "`c` "]), max_size=15),
    data=st.data(),
)
def test_a_mark_is_always_seen_once(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces) + "end"
    at = data.draw(st.integers(0, len(text)))
    page = "".join(segment.text for segment in drawn(whole(source_of(text, at), "0.91")))
    assert "".join(page.split()).count("▐0.91▌") == 1


def test_what_streams_is_drawn_as_it_is_drawn_at_the_end() -> None:
    text = "# Title\n\nOne\ntwo **three**.\n\n- a\n- b\n\n```\ncode\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nEnd."
    live = LiveMarkdown(DRAFT)
    for end in range(len(text) + 1):
        live.source = source_of(text[:end], 20 if end > 20 else None)
        live.label = "0.9" if end > 20 else ""
        drawn(live)
    assert drawn(live) == drawn(whole(source_of(text, 20)))


def test_a_text_cannot_steer_or_hide() -> None:
    page = "".join(
        segment.text
        for segment in drawn(whole(source_of("A\x1b]0;T\x07 \x9b2J <b>bold</b> \ue000\ue001 [x](http://e.org)", None)))
    )
    assert "\x1b" not in page and "\x9b" not in page and "␛]0;T␇" in page
    assert "<b>bold</b>" in page and "http://e.org" in page and "\ue000" not in page and "\ue001" not in page


# -- the system ------------------------------------------------------------------------------------------------

NATIVE = """
import os, sys
from pathlib import Path
from wsd_chat.terminal.native_output import own_screen
with own_screen(Path(sys.argv[1])):
    os.write(2, b"native line\\n")
    sys.__stderr__.write("drawn\\n")
    import logging
    logging.getLogger("wsd_local.llama").warning("logged line")
os.write(2, b"after\\n")
"""


def test_native_lines_go_to_the_log_and_not_to_the_screen(tmp_path: Path) -> None:
    log = tmp_path / "folder" / "chat.log"
    done = subprocess.run([sys.executable, "-c", NATIVE, str(log)], capture_output=True, check=True)
    assert done.stderr == b"drawn\nafter\n"
    assert "native line" in log.read_text() and "logged line" in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="expected: programs of X11")
def test_a_text_counts_as_copied_only_if_a_program_took_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WAYLAND_DISPLAY", "DISPLAY", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    assert copy("text") is None
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    taken = tmp_path / "taken"
    for code in (1, 0):
        program = tmp_path / "xclip"
        program.write_text(f"#!/bin/sh\ncat > {taken}\nexit {code}\n")
        program.chmod(0o755)
        other = tmp_path / "xsel"
        other.write_text("#!/bin/sh\nexit 1\n")
        other.chmod(0o755)
        assert copy("text 你好") == ("xclip" if code == 0 else None)
    assert taken.read_text() == "text 你好"


def test_on_battery_only_without_a_charger(monkeypatch: pytest.MonkeyPatch) -> None:
    for plugged, expected in ((True, False), (False, True), (None, False)):
        battery = SimpleNamespace(power_plugged=plugged)
        monkeypatch.setattr(psutil, "sensors_battery", lambda battery=battery: battery, raising=False)
        assert on_battery() is expected
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    assert on_battery() is False
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    assert on_battery() is False


FLOW = """
import sys, termios
from wsd_chat.terminal.flow_control import no_flow_control

def flows():
    return bool(termios.tcgetattr(0)[0] & termios.IXON)

before = flows()
with no_flow_control():
    within = flows()
print("flow", before, within, flows(), "textual" in sys.modules)
"""


MAIN = """
import sys, termios
import wsd_local.cli as cli

def flows():
    return bool(termios.tcgetattr(0)[0] & termios.IXON)

cli._run = lambda line, name: print("starts", name, flows(), "textual" in sys.modules)
cli.chat_main()
print("ends", flows())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="expected: no flow control on Windows")
@pytest.mark.parametrize(
    ("program", "says"),
    [(FLOW, ["flow True False True False"]), (MAIN, ["starts wsd-chat False False", "ends True"])],
    ids=["block", "program"],
)
def test_flow_control_is_off_before_textual_is_there_and_restored_at_the_end(program: str, says: list[str]) -> None:
    from terminals import OnTerminal

    running = OnTerminal(["-c", program])
    for line in says:
        running.wait_for(line)
    assert running.end() == 0


def test_a_standard_input_that_is_no_terminal_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED_INPUT], stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"within\n")


CLOSED_INPUT = """
from wsd_chat.terminal.flow_control import no_flow_control
with no_flow_control():
    print("within")
"""


async def foot_of(entry: Entry) -> str:
    """The line after one message."""

    class OneMessage(App[None]):
        def compose(self) -> ComposeResult:
            yield MessageView(entry)

    async with (app := OneMessage()).run_test():
        return str(app.query_one(".foot", Static).content)


@pytest.mark.parametrize("text", ["", "Hello"])
async def test_an_empty_reply_is_called_one(text: str) -> None:
    report = {
        "draft": {"model": "a draft", "kept_tokens": 0},
        "base": {"model": "a base", "tokens": 1},
        "timings": {"total_s": 4.0},
        "finish_reason": "stop",
    }
    foot = await foot_of(Entry(1, None, "assistant", text, report=report))
    assert ("a base alone" in foot, "an empty reply" in foot) == (bool(text), not text)


@pytest.mark.parametrize(("state", "is_shown"), [("finished", True), ("writing", False)])
async def test_figures_of_a_reply_that_is_continued_are_not_shown(state: str, is_shown: bool) -> None:
    report = {
        "draft": {"model": "a draft", "kept_tokens": 3},
        "base": {"model": "a base", "tokens": 0},
        "timings": {"total_s": 4.0},
        "finish_reason": "length",
    }

    foot = await foot_of(Entry(1, None, "assistant", "Hello", state, place=(2, 3), report=report))
    assert "‹ 2/3 ›" in foot
    assert ("a draft alone" in foot, "cut at the length limit" in foot) == (is_shown, is_shown)
