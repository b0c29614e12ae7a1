"""What the comparison with other programs makes of what they print, and of a machine that others use too.

The programs are scripts that print what llama.cpp's own print.
"""

from __future__ import annotations

import argparse
import json
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import compare
from bench.compare import Compare, Store, notes
from bench.peers import PeerError, Peers

from wsd_local.reports.contention import Elsewhere
from wsd_local.reports.figures import Figures

PERF = """
common_perf_print: prompt eval time =    2000.00 ms /   200 tokens (   10.00 ms per token,   100.00 tokens per second)
common_perf_print:        eval time =    5000.00 ms /   255 runs   (   19.61 ms per token,    51.00 tokens per second)
common_perf_print:       total time =    7100.00 ms /   455 tokens
"""
SPECULATIVE = """
encoded  200 tokens in    2.000 seconds, speed:  100.000 t/s
decoded  260 tokens in    5.200 seconds, speed:   50.000 t/s
accept    = 80.000%
"""


def program(folder: Path, name: str, prints: str, *, code: int = 0) -> Peers:
    """A folder with one program that prints this to its standard error, llama-bench to its standard output."""
    stream = "" if name == "llama-bench" else " >&2"
    path = folder / name
    path.write_text(f"#!/bin/sh\ncat{stream} << 'END'\n{prints}\nEND\nexit {code}\n")
    path.chmod(0o755)
    return Peers(folder, Path("base.gguf"), threads=2, gpu_layers=0)


def rates(*attentions: int) -> str:
    tests = [(512, 0, 30.0), (0, 128, 6.0)]
    return json.dumps(
        [
            {"n_prompt": read, "n_gen": written, "avg_ts": rate + attention, "flash_attn": attention}
            for attention in attentions
            for read, written, rate in tests
        ]
    )


def test_llama_bench_is_read_for_our_attention_and_its_own(tmp_path: Path) -> None:
    figures = program(tmp_path, "llama-bench", rates(0, -1)).bench(512, 128, "off")
    assert figures == {
        "peer_pp_rate": 30,
        "peer_tg_rate": 6,
        "peer_default_pp_rate": 29,
        "peer_default_tg_rate": 5,
    }
    own = program(tmp_path, "llama-bench", rates(-1)).bench(512, 128, "auto")
    assert own["peer_pp_rate"] == own["peer_default_pp_rate"] == 29
    with pytest.raises(PeerError, match="for attention off,auto"):
        program(tmp_path, "llama-bench", rates(0)).bench(512, 128, "off")


def test_llama_completion_is_read_without_its_loading(tmp_path: Path) -> None:
    peers = program(tmp_path, "llama-completion", PERF)
    assert peers.completion(tmp_path / "prompt", 200, 256) == {"completion_first_s": 2, "completion_s": 7.1}
    with pytest.raises(PeerError, match="read 200 tokens where 190 were meant"):
        peers.completion(tmp_path / "prompt", 190, 256)
    with pytest.raises(PeerError, match="no perf print in hello"):
        program(tmp_path, "llama-completion", "hello").completion(tmp_path / "prompt", 200, 256)


def test_what_llama_speculative_wrote_too_much_is_taken_off(tmp_path: Path) -> None:
    peers = program(tmp_path, "llama-speculative-simple", SPECULATIVE)
    figures = peers.speculative(tmp_path / "draft", tmp_path / "prompt", 200, 256)
    assert figures == {"peer_speculative_s": 2 + 5.2 * 256 / 260, "peer_speculative_accepted": 0.8}


def test_programs_that_fail_are_named(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="llama-bench ended with exit code 3"):
        program(tmp_path, "llama-bench", "", code=3).bench(8, 8, "off")
    with pytest.raises(PeerError, match=r"llama-completion: No such file or directory; build_peers\.sh makes it"):
        program(tmp_path, "llama-bench", "").completion(tmp_path / "prompt", 8, 8)
    peers = program(tmp_path, "llama-server", "", code=5)
    with pytest.raises(PeerError, match="llama-server ended with exit code 5"), peers.server(64):
        pass


# -- measuring again -----------------------------------------------------------------------------------------


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What went elsewhere in each attempt that comes; each takes ten seconds."""
    coming: list[float] = []

    class Scripted:
        def elsewhere(self) -> Elsewhere:
            return Elsewhere(0.0, coming.pop(0))

    moments = iter(range(0, 10_000, 10))
    monkeypatch.setattr(compare, "Watch", Scripted)
    monkeypatch.setattr(compare, "time", types.SimpleNamespace(monotonic=lambda: next(moments)))
    return coming


def measuring(again: int) -> Compare:
    """One that has nothing loaded."""
    found = Compare.__new__(Compare)
    found._asked = argparse.Namespace(again=again, clock="wall")
    found._only = {"reply"}
    found.store = Store(None, {"tokens": 8, "asked": {"clock": "wall"}})
    return found


def figures() -> Iterator[Figures]:
    return ({"reply_s": float(number)} for number in range(1, 10))


@pytest.mark.parametrize(
    ("coming", "again", "kept", "attempts"),
    [
        ([0.01], 2, 1.0, 1),
        ([0.3, 0.04], 2, 2.0, 2),
        ([0.3, 0.1, 0.2], 2, 2.0, 3),
        ([0.3], 0, 1.0, 1),
    ],
)
def test_the_quietest_attempt_counts(
    coming: list[float], again: int, kept: float, attempts: int, shares: list[float]
) -> None:
    shares += coming
    coming_figures, measured = figures(), measuring(again)
    assert measured._measure("200", 0, "reply", lambda: next(coming_figures)) == {"reply_s": kept}
    assert shares == []
    assert measured.store.repetitions == {"200": [{"reply_s": kept}]}
    (section,) = measured.store.sections
    assert section["attempts"] == attempts
    assert section["elsewhere"] == min(coming)
    said = "\n".join(notes(measured.store))
    assert ("Too much for figures to be relied on" in said) == (min(coming) > 0.05)


def test_a_peer_that_fails_is_left_out_from_there_on(shares: list[float]) -> None:
    measured = measuring(2)

    def failing() -> Figures:
        raise PeerError("gone")

    assert measured._measure("200", 0, "reply", failing) == {}
    assert measured._measure("200", 1, "reply", failing) == {}
    assert notes(measured.store) == ["Left out: reply: gone"]


def test_an_attempt_that_fails_leaves_the_one_before(shares: list[float]) -> None:
    shares += [0.3]
    measured, attempts = measuring(2), iter([{"reply_s": 1.0}])

    def once() -> Figures:
        for found in attempts:
            return found
        raise PeerError("gone")

    assert measured._measure("200", 0, "reply", once) == {"reply_s": 1.0}
    assert measured.store.failed == []
