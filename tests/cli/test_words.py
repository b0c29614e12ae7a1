"""What the program says is true, whole and usable: counts, advice, reasons, summaries."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from command_line import complains, wsd, wsd_process

from wsd_local.errors import UsageError, message_of, os_message, reason, room_advice
from wsd_local.paths import demo_dir
from wsd_local.reports.doctor import unwritable
from wsd_local.system.extras import install_command
from wsd_local.system.network import one_line
from wsd_local.units import plural


@pytest.mark.parametrize("command", [[], ["models"], ["chats"], ["config"], ["eval"]], ids=" ".join)
def test_summaries_are_whole(command: list[str]) -> None:
    text = wsd(*command, "--help").stdout.decode()
    listed = text.partition("Commands:")[2].partition("\n\n")[0]
    assert listed.strip() and "..." not in listed
    rows = re.split(r"\n  (?=\S)", listed.strip("\n"))
    assert all(row.rstrip().endswith((".", ".)")) for row in rows), rows


@pytest.mark.parametrize("command", ["chats", "models"])
def test_commands_are_listed_in_the_order_of_the_summary(command: str) -> None:
    text = wsd(command, "--help").stdout.decode()
    summary = re.search(rf"^{command.capitalize()}: (.*)\.$", text, re.MULTILINE)
    assert summary is not None
    assert re.findall(r"^  (\w+)", text.partition("Commands:")[2], re.MULTILINE) == summary[1].split(", ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "run hi --treshold=0.7",
            "there is no option '--treshold'; did you mean '--threshold'? See wsd-local run --help.",
        ),
        ("run hi --zzz", "there is no option '--zzz'. See"),
        ("fit -- demo --json", "there is an argument too many: '--json'; options stand before --. See"),
        ("--versoin", "there is no option '--versoin' before a command; did you mean '--version'?"),
        ("models --json", "there is no option '--json' before a command. See wsd-local models --help."),
        ("rnu hi", "there is no command 'rnu'; did you mean 'run'?"),
        ("run a b", "there is an argument too many: 'b'; put a text with spaces in quotes. See"),
        (
            "serve demo",
            "there is an argument too many: 'demo'; a pair is named with --pair. See wsd-local serve --help.",
        ),
        ("models show demo-base --ctx", "--ctx needs a value."),
        ("run hi --window 1.5", "--window is '1.5': it must be a whole number."),
    ],
)
def test_wrong_usage_names_what_is_wrong_and_whose_help_explains_it(arguments: str, words: str) -> None:
    complains(wsd(*arguments.split()), 2, words, "--help.")


@pytest.mark.parametrize("columns", [50, 80, 160])
def test_help_fits_the_terminal(columns: int) -> None:
    text = wsd_process("run", "--help", env={**os.environ, "COLUMNS": str(columns)}).stdout.decode()
    assert max(map(len, text.splitlines())) <= columns
    assert "--draft-frequency-penalty FLOAT" in text and "[default: 0.8]" in " ".join(text.split())


def test_plurals() -> None:
    counts = [(0, "token"), (1, "token"), (2, "token"), (1, "reply"), (2, "reply"), (2, "switch")]
    assert [plural(*one) for one in counts] == ["0 tokens", "1 token", "2 tokens", "1 reply", "2 replies", "2 switches"]
    done = wsd("run", "hi", "--mode", "draft", "--max-tokens", "1", "--trace")
    assert b"(1 token)" in done.stderr


def test_reasons_have_no_numbers() -> None:
    for number in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENOENT, errno.EIO, errno.EPIPE, 99999):
        text = os_message(OSError(number, os.strerror(number), "a file"))
        assert text == f"a file: {reason(OSError(number, os.strerror(number)))}"
        assert "Errno" not in text
    assert reason(OSError(errno.ENOSPC, "x")) == "the disk is full"
    assert os_message(OSError("a text alone")) == "a text alone"
    assert message_of(OSError(errno.ENOSPC, "x", "a file")) == "a file: the disk is full"
    assert message_of(UsageError("as it is")) == "as it is"


def test_reasons_of_libraries_have_no_numbers_either() -> None:
    assert one_line("[Errno -2] Name or service not known") == "Name or service not known"
    assert one_line(PermissionError(errno.EACCES, "Permission denied", "a file")) == "Permission denied: 'a file'"


def test_a_wrong_option_names_the_help_of_its_command() -> None:
    complains(wsd("run", "hi", "--ctx", "many"), 2, "See wsd-local run --help.")
    complains(wsd("models", "pull"), 2, "See wsd-local models pull --help.")
    complains(wsd("nope"), 2, "See wsd-local --help.")


def test_where_nothing_is_known_nothing_is_suggested(tmp_path: Path) -> None:
    done = wsd("models", "rm", "nope", env={**os.environ, "WSD_LOCAL_DATA": str(tmp_path)})
    complains(done, 2, "there is no model 'nope' to remove")
    assert b"known are" not in done.stderr


def test_advice_on_a_full_context() -> None:
    assert "--ctx" in room_advice(100, 200) and "200" in room_advice(100, 200)
    assert "--ctx" not in room_advice(200, 200) and "shorten" in room_advice(200, 200)
    long = " ".join(["word"] * 3000)
    complains(wsd("run", long), 4, "the prompt is too long", "shorten it: that is all")
    complains(wsd("run", long, "--ctx", "512"), 4, "raise --ctx", "2048")


def test_how_to_install_an_extra() -> None:
    command = install_command("report")
    assert "-m pip install" in command and '"matplotlib>=3.9"' in command and "wsd-local" not in command.split("pip")[1]
    assert "torch" in install_command("convert")


def test_a_missing_file_is_not_said_to_be_an_option(tmp_path: Path) -> None:
    done = wsd("run", "hi", "--base-lora", str(tmp_path / "nope.gguf"))
    assert done.returncode != 0 and b"embedded pair" not in done.stderr


def test_fit_says_so() -> None:
    assert b"\nIt fits: " in wsd("fit").stdout
    complains(wsd("fit", "--ctx", "100000000"), 4, "GiB are missing")


def test_goals_are_for_those_who_ask() -> None:
    options = ("--tokens", "16", "--prompt-tokens", "40", "--repeat", "1", "--threads", "1")
    assert wsd("bench", *options).stdout.decode().splitlines()[1].split() == ["what", "measured", "against", "ratio"]
    lines = wsd("bench", *options, "--goals").stdout.decode().splitlines()
    assert lines[1].split()[-2:] == ["goal", "met"]


def test_the_same_file_has_one_type(tmp_path: Path) -> None:
    made = tmp_path / "made.gguf"
    source = str(demo_dir() / "base-q8_0.gguf")
    done = wsd("models", "quantize", source, "q4_k_m", "--allow-requantize", "--output", str(made), "--threads", "1")
    assert done.returncode == 0, done.stderr
    shown = json.loads(wsd("models", "show", str(made), "--json").stdout)["quantization"]
    complains(wsd("models", "quantize", str(made), "q8_0", "--as", "again"), 2, f"is quantised already ({shown})")


def test_nothing_elsewhere_is_said(tmp_path: Path) -> None:
    empty = {"HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path / "ollama"), "HF_HOME": str(tmp_path / "hub")}
    done = wsd("models", "list", "--elsewhere", env=os.environ | empty)
    if shutil.which("ollama") is None:
        assert b"no model files of other programs were found" in done.stderr
        assert str(tmp_path / "ollama").encode() in done.stderr


def test_doctor_counts_the_threads_that_are_used(tmp_path: Path) -> None:
    assert b"1 thread used" in wsd("doctor", env=os.environ | {"WSD_LOCAL_THREADS": "1"}).stdout
    file = tmp_path / "file"
    file.touch()
    done = wsd("doctor", env=os.environ | {"WSD_LOCAL_CACHE": str(file / "cache")})
    assert done.returncode == 1 and b"cache: nothing can be written" in done.stdout
    assert unwritable(tmp_path / "a" / "b") is None
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(not Path("/proc/sys").exists(), reason="expected: no folder that nobody can write to")
def test_a_folder_that_cannot_be_written_to() -> None:
    assert unwritable(Path("/proc/sys/nope")) is not None


def test_replies_at_once_are_as_configured(tmp_path: Path) -> None:
    assert re.search(r"parallel +auto +default", wsd("config", "show").stdout.decode())
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "hi"}\n{"prompt": "hello"}\n', encoding="utf-8")
    options = ("--input", str(source), "--max-tokens", "4")
    done = wsd("run", *options, "--output", str(tmp_path / "out"), env=os.environ | {"WSD_LOCAL_PARALLEL": "2"})
    assert done.returncode == 0 and b"at once" not in done.stderr  # nothing was measured
