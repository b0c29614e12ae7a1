"""`wsd-local tune` on the embedded pair: the whole command, what it writes, and a configuration that is honoured.

No test looks at how fast anything is.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import complains, wsd

from wsd_local.cli import tune
from wsd_local.cli.progress import Reporter
from wsd_local.config import read_config, write_pair_settings
from wsd_local.datasets import read
from wsd_local.errors import CancelledError, UsageError
from wsd_local.library.registry import known
from wsd_local.paths import own_prompts
from wsd_local.reports.contention import Elsewhere
from wsd_local.reports.tune.candidates import Source, made
from wsd_local.reports.tune.deciding import Shape
from wsd_local.reports.tune.knobs import Lengths
from wsd_local.reports.tune.openings import LENGTH, Present, compare
from wsd_local.reports.tune.probe import Probe, options_of
from wsd_local.reports.tune.replies import Way, opened
from wsd_local.reports.tune.rounds import Deadline
from wsd_local.reports.tune.tuning import Hooks, Tuned, Tuning, Wanted
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.pair import Pair, load
from wsd_local.server.served import Serving
from wsd_local.settings import LoadSettings, ReplySettings

QUICK = ("--minutes", "0.1", "--threads", "1", "--ctx", "512", "--tokens", "8")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, data and cache of its own."""
    for name in ("DATA", "CACHE"):
        monkeypatch.setenv(f"WSD_LOCAL_{name}", str(tmp_path / name.lower()))
    path = tmp_path / "config.toml"
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(path))
    return path


@pytest.fixture
def pair() -> Any:
    with load("demo", threads=1, ctx=512) as pair:
        yield pair


def tuned(recommended: dict[str, Any], path: Path) -> Tuned:
    """A measurement that came to this."""
    nothing: dict[str, Any] = {"findings": (), "left_out": {}, "candidates": (), "openings": {}, "confirmed": ()}
    shape = Shape(8, 8, 7, 20, 8)
    source, lengths = Source.of(path), Lengths(16, 8, 0)
    about: dict[str, Any] = {"shape": shape, "costs": {}, "predicted": None, "elsewhere": Elsewhere(0, 0)}
    return Tuned(source=source, lengths=lengths, recommended=recommended, seconds=1.0, **about, **nothing)


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_whole_command(config: Path, tmp_path: Path) -> None:
    done = wsd("tune", "demo", *QUICK, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    found = json.loads(done.stdout)
    assert found["pair"] == "demo" and found["written"] is None
    assert found["draft"]["type"] == "Q8_0" and found["draft"]["requantised"]
    assert found["not_measured"]["threads"] == "given, so it stays"
    assert {one["knob"] for one in found["parts"]} <= {
        "draft type",
        "flash attention",
        "check chunk",
        "prompt step",
        "load mode",
    }
    assert found["parts"] and all(0 < one["low"] <= one["ratio"] <= one["high"] for one in found["parts"])
    assert set(found["parts_seconds"]) == {"draft_read", "draft_token", "base_read", "base_token", "check"}
    assert not config.exists(), "nothing is written unless that is asked for"
    assert list((tmp_path / "cache").glob("tune-*")) == []


def test_a_table_and_sentences(config: Path) -> None:
    held = ("--keep-draft", "--flash-attn", "off", "--check-chunk", "8", "--load-mode", "none", "--speculation", "off")
    done = wsd("tune", "demo", *QUICK, *held, "--quiet")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "demo on this machine" in text and "prompt step" in text
    assert "draft type (given, so it stays)" in text and "flash attention (given, so it stays)" in text
    assert "recommendation: " in text and "Meanwhile " in text


def test_what_cannot_be_asked(config: Path) -> None:
    complains(wsd("tune", "demo", "--minutes", "0"), 2, "minutes is 0.0: it must lie between 0.05 and 60")
    complains(wsd("tune", "demo", "--tokens", "7"), 2, "tokens is 7")
    complains(wsd("tune", "--draft", "demo-draft", "--write"), 2, "make a pair of them in config.toml first")
    complains(wsd("tune", "nobody"), 2, "there is no pair 'nobody'")
    complains(wsd("run", "--ubatch", "513", "hi"), 2, "ubatch is 513: llama.cpp has at most 512")


def test_a_stop_frees_everything_and_raises(config: Path, pair: Pair, tmp_path: Path) -> None:
    seen: list[str] = []

    def stop_in_time(what: str) -> None:
        seen.append(what)
        if what.startswith("check chunk"):
            measuring.cancel()

    wanted = Wanted(60, ("draft", "flash_attn"))
    measuring = Tuning(pair, read(own_prompts()).items, tmp_path, wanted, Hooks(stop_in_time), time.perf_counter)
    with pytest.raises(CancelledError):
        measuring.run()
    assert seen[-1].startswith("check chunk")
    assert pair.reply("hi", max_tokens=4).text, "the pair that was measured still answers"


# -- what it measures with -------------------------------------------------------------------------------------------


def test_ways_share_the_weights_and_have_settings_of_their_own(pair: Pair) -> None:
    way = Way("other", {"threads": 2, "ubatch": 32, "flash_attn": "on"}, {"check_chunk": 3, "speculation": "off"})
    other = opened(pair, way, 256)
    with other:
        assert other.models.model("base") is pair.models.model("base")
        context = other.models.context("base")
        assert (context.piece, context.flash_attn, context.n_ctx) == (32, "on", 256)
        assert (other.settings.check_chunk, other.settings.speculation) == (3, "off")
        assert other.models.loading.threads == 2
        assert len(other.reply("hi", max_tokens=6).tokens) == 6
    assert pair.reply("hi", max_tokens=4).text, "closing one way leaves the weights to their owner"


def test_models_that_are_lent_are_not_closed(pair: Pair) -> None:
    files = pair.models.paths
    borrower = LoadedModels(files["draft"], files["base"], LoadSettings(ctx=128, threads=1))
    borrower.lent = {"base": pair.models.model("base")}
    borrower.load()
    assert borrower.model("draft") is not pair.models.model("draft")
    borrower.close()
    assert pair.models.model("base").handle


def test_a_probe_reads_the_prompt_anew_each_time(pair: Pair) -> None:
    ticks = iter(range(1000))
    base = pair.models.context("base")
    prompt = base.model.tokenize("How do I boil an egg? What is the capital of France?")
    probe = Probe(base.model, options_of(base, 256), pair.models.cancellation, prompt, lambda: float(next(ticks)))
    try:
        for _ in range(2):
            before = probe.context.evaluated
            assert probe.read() == 1.0
            assert probe.context.evaluated - before == len(prompt)
        before = probe.context.evaluated
        assert probe.token() == 1 / 8
        assert probe.context.evaluated - before == 8
        before = probe.context.evaluated
        probe.check(4)
        assert probe.context.evaluated - before == 16 + 1, "four chunks of four, and the token that precedes them"
        probe.context.use_threads(2)
        assert len(probe.opening(prompt, 5)) <= 5
    finally:
        probe.close()


def test_drafts_of_other_types_and_their_openings(pair: Pair, tmp_path: Path) -> None:
    source = Source.of(pair.models.paths["draft"])
    unseen: tuple[Any, Any] = (lambda what, part: None, lambda stop: None)
    found = made(source, tmp_path, Deadline(60, time.monotonic), *unseen, ("Q8_0", "Q4_0"))
    assert [(one.kind, one.why) for one in found] == [("Q4_0", "")], "its own type is left out"
    late = made(source, tmp_path, Deadline(0, time.monotonic), *unseen, ("Q4_1",))
    assert late[0].path is None and late[0].why == "no time was left to make it"
    draft = pair.models.context("draft")
    prompts = [pair.models.draft_format.prompt([{"role": "user", "content": text}]).tokens for text in ("hi", "Who?")]
    probe = Probe(draft.model, options_of(draft, 256), pair.models.cancellation, prompts[0], time.perf_counter)
    try:
        present = Present(probe, prompts)
        assert len(present.opening(0)) <= LENGTH
        same = compare(present, probe, Deadline(60, time.monotonic))
        assert (same.compared, same.changed, same.first) == (2, 0, None)
        assert compare(present, probe, Deadline(0, time.monotonic)).compared == 0
        probe.opening = lambda prompt, length: [0]  # type: ignore[method-assign]
        assert compare(present, probe, Deadline(60, time.monotonic)).changed == 2
    finally:
        probe.close()


# -- what it writes --------------------------------------------------------------------------------------------------


def test_what_is_written_is_honoured(config: Path, pair: Pair) -> None:
    config.write_text('# mine\npair = "demo"\n\n[settings]\nthreshold = 0.7  # stays\n', encoding="utf-8")
    values = {"draft": "Q4_0", "threads": 1, "ubatch": 64, "flash_attn": "on", "check_chunk": 16, "speculation": "off"}
    path = tune._write("demo", tuned(values, pair.models.paths["draft"]), Reporter(True))
    text = config.read_text(encoding="utf-8")
    assert path == config and text.startswith('# mine\npair = "demo"') and "threshold = 0.7  # stays" in text
    name = "demo-draft-Q4_0"
    assert name in known() and read_config().pairs["demo"].draft == name
    with load(None, ctx=512, **read_config().settings_of(None)) as written:
        loading, context = written.models.loading, written.models.context("base")
        assert written.models.paths["draft"] == known()[name].path
        assert (loading.threads, loading.ubatch, context.piece, context.flash_attn) == (1, 64, 64, "on")
        assert (written.settings.check_chunk, written.settings.speculation) == (16, "off")
        assert written.settings.threshold == 0.7
        assert written.reply("hi", max_tokens=4).provenance["settings"]["ubatch"] == 64
    serving = Serving.of(["demo"], ReplySettings(), LoadSettings(ctx=512))
    assert (serving.loading_of("demo").ubatch, serving.reply_of("demo").check_chunk) == (64, 16)
    shown = json.loads(wsd("config", "show", "--json").stdout)
    assert shown["settings"]["flash_attn"] == "on"
    fits = wsd("fit", "--json")
    assert fits.returncode == 0 and json.loads(fits.stdout)["models"]["draft"]


def test_nothing_is_written_where_nothing_is_recommended(config: Path, pair: Pair) -> None:
    assert tune._write("demo", tuned({}, pair.models.paths["draft"]), Reporter(True)) is None
    assert not config.exists()


def test_a_pair_of_one_s_own_gets_another_draft_and_keeps_the_rest(config: Path) -> None:
    mine = '[pairs.mine]\ndraft = "demo-draft"\nbase = "demo-base"\n[pairs.mine.base_format]\nstop = ["#"]\n'
    config.write_text(mine, encoding="utf-8")
    before = read_config().pairs["mine"]
    write_pair_settings("mine", {}, draft="demo-base")
    after = read_config().pairs["mine"]
    assert (after.draft, after.base) == ("demo-base", "demo-base")
    assert after.base_format == before.base_format and after.settings == {}


def test_a_pair_s_own_settings_of_loading(config: Path) -> None:
    config.write_text("[pairs.demo.settings]\nthreads = 1\nthreshold = 0.5\n", encoding="utf-8")
    assert read_config().settings_of("demo") == {"threads": 1, "threshold": 0.5}
    with load("demo", ctx=256) as pair:
        assert pair.models.loading.threads == 1 and pair.settings.threshold == 0.5
    config.write_text("[pairs.demo.settings]\nctx = 512\n", encoding="utf-8")
    with pytest.raises(UsageError, match="ctx is a setting of loading"):
        read_config()
    config.write_text("[pairs.demo.settings]\nthreads = 0\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"pairs\.demo\.settings: threads is 0"):
        read_config()
