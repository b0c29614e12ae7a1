"""What of a growing text is final."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scripted import STOPS, cut

from wsd_local.core.text import HOLD_BACK_CAP, RUN_CAP, Outlet, find_stop, possible_stop, settled_length

pieces = st.lists(st.sampled_from(["a", "[User]", "[Us", "er]", "\n", "\n\n", "[", "é", "👩‍💻", " b "]), max_size=20)


@given(st.lists(st.sampled_from([b"a", b"[Us", b"er]", b"\n", "é".encode(), b"\xf0\x9f", b"\x92\xbb", b"\xff"])))
def test_what_came_out_is_the_whole_text_cut_once(data: list[bytes]) -> None:
    outlet, out = Outlet(STOPS), ""
    for piece in data:
        if outlet.stop is None:
            out += "".join(text for text, _ in outlet.push(piece, "base"))
    out += "".join(text for text, _ in outlet.close("base"))
    assert out == cut(b"".join(data).decode(errors="replace"))[0]


@given(pieces)
def test_stripping_equals_strip_of_the_whole(data: list[str]) -> None:
    outlet = Outlet(STOPS, strip=True)
    out = "".join(text for piece in data for text, _ in outlet.push(piece.encode(), "draft"))
    out += "".join(text for text, _ in outlet.close("draft"))
    assert out == cut("".join(data))[0].strip()


@given(pieces)
def test_sources_stay_with_their_text(data: list[str]) -> None:
    outlet = Outlet(())
    sources = ["draft" if i % 2 else "base" for i in range(len(data))]
    out = [part for piece, source in zip(data, sources, strict=True) for part in outlet.push(piece.encode(), source)]
    assert out == [(piece, source) for piece, source in zip(data, sources, strict=True) if piece]


@given(st.text(max_size=200), st.text(max_size=30))
def test_settled_text_stays_settled(text: str, more: str) -> None:
    assert settled_length(text) <= len(text)
    assert settled_length(text + more) >= min(settled_length(text), len(text) - RUN_CAP)


def test_last_word_and_the_space_around_it_wait() -> None:
    assert settled_length("Hello big world") == len("Hello big")
    assert settled_length("Hello big world \n") == len("Hello big")
    assert settled_length("Hello") == 0
    assert settled_length("") == 0


def test_text_without_spaces_waits_no_longer_than_the_cap() -> None:
    assert settled_length("字" * 100 + "x") == 101 - HOLD_BACK_CAP


def test_a_run_waits_as_a_whole() -> None:
    assert settled_length("a " + "-" * 100) == 2
    assert settled_length("-" * 300) == 300 - RUN_CAP


@given(st.text("[User]\nab", max_size=40))
def test_a_possible_stop_is_an_end_that_could_go_on_to_one(text: str) -> None:
    length = possible_stop(text, STOPS)
    ends = [text[-n:] for n in range(1, len(text) + 1)]
    longest = max((len(end) for end in ends if any(s.startswith(end) and s != end for s in STOPS)), default=0)
    assert length == longest


def test_of_stops_completed_together_the_longest_is_cut() -> None:
    assert find_stop("well\n\n[User] x", STOPS) == (4, "\n\n[User]")
    assert find_stop("well [User", STOPS) is None
