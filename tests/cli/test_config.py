"""The configuration file, the environment over it, and options over both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import complains, wsd
from wsd_chat.model_jobs import Wanted

from wsd_local.config import read_config, write_pair_settings
from wsd_local.errors import UsageError
from wsd_local.paths import config_file
from wsd_local.prompts.known_formats import known_formats
from wsd_local.runtime.pair import load
from wsd_local.server.served import Serving
from wsd_local.server.site import Plan
from wsd_local.settings import LoadSettings, ReplySettings, names, plain, read_text, split

EXAMPLE = """
pair = "mine"
[settings]
threshold = 0.7
draft-max-tokens = 64
stop = ["END"]
n_gpu_layers = 0
[pairs.mine]
draft = "demo-draft"
base = "demo-base"
description = "a pair of one's own"
[pairs.mine.base_format]
stop = ["# Query"]
"""


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A configuration of its own, for this process and those it starts."""
    path = tmp_path / "config.toml"
    path.write_text(EXAMPLE, encoding="utf-8")
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(path))
    return path


def test_without_a_file_it_is_empty() -> None:
    found = read_config(environment={})
    assert (found.pair, dict(found.settings), dict(found.pairs)) == (None, {}, {})


def test_a_file_is_read(config: Path) -> None:
    found = read_config(environment={})
    assert found.pair == "mine"
    assert found.settings == {"threshold": 0.7, "draft_max_tokens": 64, "stop": ["END"], "n_gpu_layers": 0}
    assert found.pairs["mine"].base_format.stop == ("# Query",)
    reply, loading = split(found.settings)
    assert (reply.threshold, reply.stop, loading.n_gpu_layers) == (0.7, ("END",), 0)


def test_a_pair_s_base_format_may_be_a_known_one() -> None:
    config_file().write_text("[pairs.mine]\ndraft = 'demo-draft'\nbase = 'demo-base'\nbase_format = 'colons'\n")
    assert read_config(environment={}).pairs["mine"].base_format == known_formats()["colons"]


def test_the_environment_goes_over_the_file(config: Path) -> None:
    environment = {"WSD_LOCAL_THRESHOLD": "0.9", "WSD_LOCAL_PAIR": "demo", "WSD_LOCAL_IGNORE_EOS": "true", "HOME": "/"}
    found = read_config(environment=environment)
    assert (found.pair, found.settings["threshold"], found.settings["ignore_eos"]) == ("demo", 0.9, True)
    assert found.sources["threshold"] == found.sources["pair"] == "environment"
    assert found.sources["draft_max_tokens"] == "file"


def test_options_go_over_both(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(*options: str) -> dict[str, object]:
        reply = json.loads(wsd("run", "hi", "--json", "--max-tokens", "3", *options).stdout)
        found: dict[str, object] = reply["provenance"]["settings"]
        return found

    assert settings()["threshold"] == 0.7
    monkeypatch.setenv("WSD_LOCAL_THRESHOLD", "0.9")
    assert settings()["threshold"] == 0.9
    assert settings("--threshold", "0.8")["threshold"] == 0.8, "also where the option is the default"
    assert settings("--stop", "X")["stop"] == ["X"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pear = 'x'", "there is no key 'pear'; did you mean 'pair'?"),
        ("threshold = 0.5", "put it under [settings]"),
        ("[settings]\nthreshhold = 0.5", "did you mean 'threshold'?"),
        ("[settings]\nthread = 1", "did you mean 'threads'?"),
        ("[settings]\nflash_atn = 'on'", "did you mean 'flash_attn'?"),
        ("[pairs.p]\ndraft = 'a'\nbase = 'b'\nbase_format = 'colon'", "base format 'colon'; did you mean 'colons'?"),
        ("[settings]\nthreshold = 'high'", "threshold is 'high'"),
        ("[settings]\nwindow = 0", "window"),
        ("pair = 'demmo'", "did you mean 'demo'?"),
        ("pair = 3", "must be the name of a pair"),
        ("settings = 3", "must be a table: [settings]"),
        ("[pairs]\nmine = 3", "must be a table: [pairs.NAME]"),
        ("[pairs.mine]\ndraft = 'x'", "base is missing"),
        ("[pairs.mine]\ndraft = 'x'\nbase = 'y'\nbasis = 1", "there is no key 'basis'; did you mean 'base'?"),
        ("[pairs.mine]\ndraft = 1\nbase = 'y'", "must be text"),
        ("pair = [", "is not TOML"),
    ],
)
def test_mistakes_are_named_with_the_file(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    with pytest.raises(UsageError) as error:
        read_config(environment={})
    assert words in str(error.value) and str(config) in str(error.value)
    complains(wsd("run", "hi"), 2, words)


@pytest.mark.parametrize(
    ("variable", "text", "words"),
    [
        ("WSD_LOCAL_THRESHHOLD", "1", "did you mean 'WSD_LOCAL_THRESHOLD'?"),
        ("WSD_LOCAL_WINDOW", "six", "WSD_LOCAL_WINDOW: window is 'six'"),
        ("WSD_LOCAL_MODE", "both", "WSD_LOCAL_MODE: mode is 'both'"),
    ],
)
def test_mistakes_in_the_environment_are_named(variable: str, text: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        read_config(environment={variable: text})
    assert words in str(error.value)


def test_every_setting_can_be_given_as_text() -> None:
    defaults = plain(ReplySettings(), LoadSettings())
    for name in names():
        value = defaults[name]
        if value not in (None, ()):
            assert read_text(name, str(value)) == value
    assert read_text("n_gpu_layers", "auto") == "auto" and read_text("n_gpu_layers", "7") == 7
    assert read_text("stop", "END") == ("END",)


def test_path_and_show(config: Path) -> None:
    assert wsd("config", "path").stdout.decode().strip() == str(config) == str(config_file())
    shown = wsd("config", "show").stdout.decode()
    assert "a pair of one's own" in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("threshold")] == [
        ["threshold", "0.7", "file"]
    ]
    told = json.loads(wsd("config", "show", "--json").stdout)
    assert told["settings"]["threshold"] == 0.7 and told["settings"]["window"] == 6
    assert told["pairs"]["mine"]["base"] == "demo-base"


def test_a_pairs_own_settings_go_over_the_common_ones(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(
        EXAMPLE + "[pairs.mine.settings]\nthreshold = 0.55\nwindow = 4\n[pairs.demo.settings]\nwindow = 5\n"
    )
    found = read_config(environment={})
    assert found.settings_of("mine")["threshold"] == found.settings_of(None)["threshold"] == 0.55
    assert (found.settings_of("demo")["threshold"], found.settings_of("demo")["window"]) == (0.7, 5)
    assert found.settings_of("mine", ["draft", "base"]) == found.settings, "nothing of the pair is left"
    over = read_config(environment={"WSD_LOCAL_WINDOW": "9"})
    assert (over.settings_of("mine")["window"], over.settings_of("mine")["threshold"]) == (9, 0.55)

    def switch(*options: str) -> tuple[float, int]:
        told = json.loads(wsd("run", "hi", "--json", "--max-tokens", "3", *options).stdout)["switch"]
        return told["threshold"], told["window"]

    assert switch() == (0.55, 4)
    assert switch("--pair", "demo") == (0.7, 5), "of a pair of the catalog the table needs no models"
    assert switch("--window", "7") == (0.55, 7)
    assert switch("--draft", "demo-draft", "--base", "demo-base") == (0.7, 6)
    monkeypatch.setenv("WSD_LOCAL_THRESHOLD", "0.9")
    assert switch() == (0.9, 4)
    shown = wsd("config", "show").stdout.decode()
    assert ["window", "4", "the", "pair"] in [line.split() for line in shown.splitlines()]
    with load("mine", threads=1) as pair:
        assert (pair.settings.threshold, pair.settings.window) == (0.55, 4)
    with load("mine", threads=1, window=8) as pair:
        assert pair.settings.window == 8


def test_a_pairs_own_settings_hold_for_the_server(config: Path) -> None:
    config.write_text(EXAMPLE + "[pairs.mine.settings]\nthreshold = 0.55\nwindow = 4\n")
    plan = Plan(["mine", "demo"], reply=ReplySettings(threshold=0.7), overridden=frozenset({"window"}))
    serving = Serving.of(plan.entries, plan.reply, plan.loading)
    assert (serving.reply_of("mine").threshold, serving.reply_of("mine").window) == (0.55, 6)
    assert serving.reply_of("demo").threshold == 0.7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[pairs.mine]\nsettings = 3", "must be a table: [pairs.mine.settings]"),
        ("[pairs.mine.settings]\nthreshold = 'high'", "pairs.mine.settings: threshold is 'high'"),
        ("[pairs.mine.settings]\nthreshhold = 1", "did you mean 'threshold'?"),
        ("[pairs.mine.settings]\nctx = 512", "ctx is a setting of loading"),
        ("[pairs.none.settings]\nwindow = 1", "pairs.none: draft is missing"),
    ],
)
def test_mistakes_in_a_pairs_own_settings_are_named(config: Path, text: str, words: str) -> None:
    models = "[pairs.mine]\ndraft = 'demo-draft'\nbase = 'demo-base'\n"
    config.write_text(text.replace("[pairs.mine]\n", models) if "[pairs.mine]" in text else models + text)
    with pytest.raises(UsageError) as error:
        read_config(environment={})
    assert words in str(error.value) and str(config) in str(error.value)


def test_writing_keeps_what_a_person_wrote(config: Path) -> None:
    before = f"# my pairs\n{EXAMPLE}# the end\n"
    config.write_text(before)
    write_pair_settings("mine", {"threshold": 0.6, "window": 9})
    text = config.read_text()
    for line in before.strip().splitlines():
        assert line in text
    found = read_config(environment={})
    assert dict(found.pairs["mine"].settings) == {"threshold": 0.6, "window": 9}
    assert found.settings["threshold"] == 0.7
    write_pair_settings("mine", {"window": 3})
    assert dict(read_config(environment={}).pairs["mine"].settings) == {"threshold": 0.6, "window": 3}
    write_pair_settings("tiny", {"window": 3})
    assert read_config(environment={}).pairs["tiny"].base == "gemma-3-270m"
    with pytest.raises(UsageError, match="there is no pair"):
        write_pair_settings("none", {"window": 3})


def test_writing_that_would_contradict_leaves_the_file(config: Path) -> None:
    before = config.read_bytes()
    with pytest.raises(UsageError):
        write_pair_settings("mine", {"window": 0})
    assert config.read_bytes() == before


@pytest.mark.parametrize("form", ["inline", "hyphens"])
def test_writing_into_other_ways_to_write_a_table(config: Path, form: str) -> None:
    models = "draft = 'demo-draft', base = 'demo-base'"
    texts = {
        "inline": f"pairs = {{ mine = {{ {models}, settings = {{ window = 2 }} }} }}\n",
        "hyphens": f"[pairs]\nmine = {{ {models} }}\n[pairs.demo.settings]\ndraft-max-tokens = 5\n",
    }
    config.write_text(texts[form])
    pair = "demo" if form == "hyphens" else "mine"
    write_pair_settings(pair, {"window": 3, "draft_max_tokens": 7})
    found = read_config(environment={})
    assert dict(found.pairs[pair].settings) == {"window": 3, "draft_max_tokens": 7}


def test_a_file_that_nothing_can_be_added_to_stays_as_it_is(config: Path) -> None:
    text = "pairs.mine.draft = 'demo-draft'\npairs.mine.base = 'demo-base'\n"
    config.write_text(text)
    with pytest.raises(UsageError, match=r"under \[pairs.mine.settings\] put window = 3"):
        write_pair_settings("mine", {"window": 3})
    assert config.read_text() == text


def test_a_pairs_own_settings_hold_in_the_chat(config: Path) -> None:
    config.write_text(EXAMPLE + "[pairs.mine.settings]\nthreshold = 0.55\n")
    assert Wanted("mine", None, None, {"window": 3}).in_effect["threshold"] == 0.55
    assert Wanted("demo", None, None, {}).in_effect["threshold"] == 0.7, "another pair is chosen in the chat"
    assert Wanted("mine", None, None, {"threshold": 0.9}).in_effect["threshold"] == 0.9
    assert Wanted(None, "a.gguf", "b.gguf", {}).in_effect["threshold"] == 0.7
    assert Wanted("nobody", None, None, {}).in_effect["threshold"] == 0.7, "loading reports it"
