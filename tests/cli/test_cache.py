"""`--prompt-cache` and `wsd-local cache`: what one process has read, another one need not read again."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, complains, wsd

from wsd_local.errors import WsdError
from wsd_local.runtime import prompt_cache

NOTES = " ".join(f"Note {number}: the capital of France is Paris, and eggs boil in a pot." for number in range(16))


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a state is kept does not depend on how busy this machine is."""
    monkeypatch.setattr(prompt_cache.PromptCache, "reads", lambda self: self.files.make_folder() or 1e12)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A text of some hundred tokens."""
    path = tmp_path / "notes.txt"
    path.write_text(NOTES)
    return path


def answer(done: Done) -> dict[str, Any]:
    """The reply of a run that went well."""
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ask(notes: Path, question: str, *options: str) -> Done:
    """A question about a text: the text comes first, so that both questions begin alike."""
    return wsd(
        "run", "--file", str(notes), "--json", "--tokens", "--max-tokens", "30", *options, stdin=question.encode()
    )


def test_the_second_question_about_a_text_does_not_read_it_again(notes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    first = answer(ask(notes, "How do I boil an egg?", "--prompt-cache", str(folder)))
    again = answer(ask(notes, "How do I boil an egg?", "--prompt-cache", str(folder)))
    second = answer(ask(notes, "What is the capital of France?", "--prompt-cache", str(folder)))
    plain = answer(ask(notes, "What is the capital of France?", "--prompt-cache", "off"))
    assert first["cached"] == plain["cached"] == {"draft": 0, "base": 0}
    assert again["text"] == first["text"] and second["text"] == plain["text"]
    for role in ("draft", "base"):
        assert second["cached"][role] > 0.9 * second["timings"][f"{role}_prompt_tokens"] > 300
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_list_and_clear(notes: Path, tmp_path: Path) -> None:
    option = ("--prompt-cache", str(tmp_path / "kept"))
    ask(notes, "How do I boil an egg?", *option)
    listed = json.loads(wsd("cache", "list", "--json", *option).stdout)
    assert [one["model"] for one in listed["prompts"]].sort() == ["WSD demo base", "WSD demo draft"].sort()
    assert len(listed["prompts"]) == 2 and min(one["tokens"] for one in listed["prompts"]) > 300
    assert listed["bytes"] == sum(path.stat().st_size for path in (tmp_path / "kept").glob("*.state"))
    assert b"WSD demo base" in wsd("cache", "list", *option).stdout
    assert wsd("cache", "clear", *option).stdout.startswith(b"2 prompts removed, ")
    assert json.loads(wsd("cache", "list", "--json", *option).stdout)["prompts"] == []
    assert wsd("cache", "clear", *option).stdout == b"0 prompts removed, 0 B freed\n"


@pytest.mark.slow
def test_the_configuration_names_the_folder(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[settings]\nprompt_cache = "{tmp_path / "mine"}"\nprompt_cache_size = 0.5\n')
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(config))
    ask(notes, "How do I boil an egg?")
    assert wsd("cache", "list").stdout.count(b"WSD demo") == 2
    assert list((tmp_path / "mine").glob("*.state"))


def test_off_keeps_and_reads_nothing(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "cache_dir", lambda: tmp_path / "cache")
    assert answer(ask(notes, "How do I boil an egg?", "--prompt-cache", "off"))["cached"]["base"] == 0
    assert not (tmp_path / "cache" / "prompts").exists()


@pytest.mark.slow
def test_a_size_that_holds_nothing_keeps_nothing(notes: Path, tmp_path: Path) -> None:
    option = ("--prompt-cache", str(tmp_path / "kept"), "--prompt-cache-size", "0.00001")
    for _ in range(2):
        assert answer(ask(notes, "How do I boil an egg?", *option))["cached"]["base"] == 0
    assert not list((tmp_path / "kept").glob("*.state"))


def test_a_folder_that_cannot_be_used_is_one_notice_and_no_error(notes: Path) -> None:
    done = ask(notes, "How do I boil an egg?", "--prompt-cache", str(notes))
    assert answer(done)["text"]
    assert done.stderr.decode().count(str(notes)) == len(done.stderr.decode().strip().splitlines()) == 1


def test_a_run_over_a_data_set_begins_with_the_system_prompt_of_the_one_before(tmp_path: Path) -> None:
    data, option = tmp_path / "data.jsonl", ("--prompt-cache", str(tmp_path / "kept"))
    data.write_text("".join(json.dumps({"prompt": f"How do I boil {n} eggs?"}) + "\n" for n in range(2, 6)))

    def run(output: str) -> list[dict[str, Any]]:
        options = ("--quiet", "--parallel", "2", "--max-tokens", "20", "--output", str(tmp_path / output))
        assert wsd("run", "--input", str(data), "--system", NOTES, *options, *option).returncode == 0
        lines = (tmp_path / output).read_text().splitlines()
        return [found for line in lines if "text" in (found := json.loads(line))]

    first, second = run("one.jsonl"), run("two.jsonl")
    assert len(first) == len(second) == 4
    assert min(one["cached"]["base"] for one in first) == 0 < 300 < min(one["cached"]["base"] for one in second)


@pytest.mark.parametrize("command", ["bench", "check-pair", "calibrate", "eval time"])
def test_what_measures_begins_with_nothing_that_was_kept(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[dict[str, Any]] = []

    def load(*_: object, **settings: Any) -> None:
        loaded.append(settings)
        raise WsdError("enough")

    monkeypatch.setattr("wsd_local.runtime.pair.load", load)
    options = ("--out", str(tmp_path / "out")) if command == "eval time" else ()
    done = wsd(*command.split(), "demo", *options)
    assert "enough" in done.stderr.decode()
    assert [settings["prompt_cache"] for settings in loaded] == ["off"]


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    complains(wsd("run", "hi", "--prompt-cache-size", size), 2, "prompt-cache-size", "more than 0")
