"""`wsd-local` as a person runs it: a process with arguments, streams and an exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import EGG, LONG, complains, started, wsd, wsd_process
from makers import damaged, embedding_model
from makers_more import random_lfm2


def test_a_prompt_is_answered_on_standard_output_alone() -> None:
    done = wsd("run", "How do I boil an egg?")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert done.stdout.endswith(b"\n")
    assert done.stderr == b""


@pytest.mark.parametrize("arguments", [[], ["eval"]])
def test_without_arguments_the_help_is_printed(arguments: list[str]) -> None:
    done = wsd(*arguments)
    assert done.returncode == 0
    assert b"Usage: " in done.stdout and b"Commands:" in done.stdout


def test_argument_file_and_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("What is the capital of France?\n", encoding="utf-8")
    cases = {
        "argument": wsd("run", "What is the capital of France?", "--json"),
        "file": wsd("run", "--file", str(file), "--json"),
        "stdin": wsd("run", "--json", stdin=b"What is the capital of France?\n"),
    }
    asked = {name: json.loads(done.stdout)["messages"] for name, done in cases.items()}
    assert len({json.dumps(messages) for messages in asked.values()}) == 1
    both = json.loads(wsd("run", "Answer this:", "--json", stdin=b"Which city?\n").stdout)
    assert both["messages"][0]["content"] == "Answer this:\n\nWhich city?"
    three = json.loads(wsd("run", "One.", "--file", str(file), "--json", stdin=b"\xef\xbb\xbfThree.").stdout)
    assert three["messages"][0]["content"] == "One.\n\nWhat is the capital of France?\n\nThree."


def test_json_has_the_promised_fields() -> None:
    reply = json.loads(wsd("run", "What is the capital of France?", "--json", "--tokens").stdout)
    promised = "messages text finish_reason draft base switch provenance timings tokens discarded"
    assert set(reply) >= set(promised.split())
    assert set(reply["draft"]) >= {"model", "text", "kept_tokens", "drafted_tokens"}
    assert set(reply["base"]) >= {"model", "text", "tokens"}
    assert set(reply["switch"]) == {"index", "reason", "confidence", "window", "threshold", "rule"}
    assert set(reply["timings"]) >= {
        "first_text_s",
        "switch_s",
        "total_s",
        "draft_tokens_per_s",
        "base_tokens_per_s",
        "draft_prompt_tokens",
        "base_prompt_tokens",
    }
    assert set(reply["tokens"][0]) == {"id", "text", "source", "prob", "window"}
    assert all(len(reply["provenance"][f"{role}_sha256"]) == 64 for role in ("draft", "base"))
    assert "".join(token["text"] for token in reply["tokens"]) == reply["text"]
    assert reply["draft"]["text"] + reply["base"]["text"] == reply["text"]
    assert all(token["prob"] is not None for token in reply["tokens"])


def test_switch_agrees_with_the_tokens() -> None:
    reply = json.loads(wsd("run", "What is the capital of France?", "--tokens").stdout)
    switch, tokens = reply["switch"], reply["tokens"]
    assert switch["reason"] == "threshold"
    assert reply["draft"]["kept_tokens"] == switch["index"] + 1
    assert tokens[switch["index"]]["window"] == switch["confidence"] >= switch["threshold"]
    assert all(token["window"] is None or token["window"] < 0.8 for token in tokens[: switch["index"]])
    assert [token["source"] for token in tokens].count("draft") == switch["index"] + 1


def test_messages_file_and_system(tmp_path: Path) -> None:
    file = tmp_path / "messages.json"
    file.write_text(json.dumps([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]))
    done = json.loads(wsd("run", "And you?", "--messages", str(file), "--system", "Be kind.", "--json").stdout)
    assert [message["role"] for message in done["messages"]] == ["system", "user", "assistant", "user"]


def test_trace_goes_to_standard_error_in_a_pipe() -> None:
    plain, traced = wsd("run", "hi"), wsd("run", "hi", "--trace")
    assert traced.stdout == plain.stdout
    assert b"opened by" in traced.stderr
    assert traced.stderr.count(b"\n") == 1


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal of 100 columns is sent, standard error included."""
    pty = pytest.importorskip("pty", reason="expected: no pseudo-terminals here")
    terminal, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wsd_local", *arguments, "--threads", "1"],
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
    )
    os.close(child)
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
    os.close(terminal)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("no_color", [False, True])
def test_trace_marks_the_switch_on_a_terminal(no_color: bool) -> None:
    environment = {"NO_COLOR": "1"} if no_color else {}
    shown = on_a_terminal("run", "What is the capital of France?", "--trace", **environment)
    assert "threshold" in shown
    assert "opened by" in shown
    assert ("\x1b[3;36m" in shown) is not no_color


def test_nothing_on_a_terminal_erases_text() -> None:
    """A progress display that starts again after the first text would wipe its line."""
    shown = on_a_terminal("run", "What is the capital of France?", "--check-chunk", "1", "--threshold", "2")
    plain = wsd("run", "What is the capital of France?", "--check-chunk", "1", "--threshold", "2").stdout.decode()
    text = shown[shown.rindex("\x1b[2K") + 4 :] if "\x1b[2K" in shown else shown
    assert text.replace("\r\n", "\n").endswith(plain)


@pytest.mark.parametrize("mode", ["base", "draft", "fixed:1"])
def test_modes(mode: str) -> None:
    reply = json.loads(wsd("run", "What is the capital of France?", "--mode", mode, "--json").stdout)
    assert reply["text"]
    assert reply["draft"]["kept_tokens"] == {"base": 0, "fixed:1": 1}.get(mode, reply["draft"]["drafted_tokens"])


SETTINGS = {
    "--window": ("3", "window", 3),
    "--threshold": ("0.5", "threshold", 0.5),
    "--draft-max-tokens": ("9", "draft_max_tokens", 9),
    "--max-tokens": ("11", "max_tokens", 11),
    "--on-draft-end": ("stop", "on_draft_end", "stop"),
    "--temperature": ("0.5", "temperature", 0.5),
    "--top-k": ("5", "top_k", 5),
    "--top-p": ("0.9", "top_p", 0.9),
    "--min-p": ("0.1", "min_p", 0.1),
    "--seed": ("3", "seed", 3),
    "--ctx": ("512", "ctx", 512),
    "--threads": ("1", "threads", 1),
    "--ubatch": ("32", "ubatch", 32),
    "--n-gpu-layers": ("0", "n_gpu_layers", 0),
    "--draft-n-gpu-layers": ("1", "draft_n_gpu_layers", 1),
    "--base-n-gpu-layers": ("2", "base_n_gpu_layers", 2),
    "--cache-type-k": ("f32", "cache_type_k", "f32"),
    "--cache-type-v": ("f32", "cache_type_v", "f32"),
    "--flash-attn": ("off", "flash_attn", "off"),
    "--check-chunk": ("4", "check_chunk", 4),
    "--speculation": ("lookup", "speculation", "lookup"),
}


def test_every_option_reaches_the_settings() -> None:
    given = [part for option, (value, _, _) in SETTINGS.items() for part in (option, value)]
    reply = json.loads(wsd("run", "What is the capital of France?", "--json", *given).stdout)
    used = reply["provenance"]["settings"]
    assert {name: used[name] for _, name, _ in SETTINGS.values()} == {name: v for _, name, v in SETTINGS.values()}


def test_options_reach_llama_cpp() -> None:
    types = ["--cache-type-k", "f32", "--cache-type-v", "q8_0"]
    options = ["--ctx", "512", *types, "--flash-attn", "on", "--ubatch", "48", "--verbose"]
    log = wsd_process("run", "hi", *options).stderr.decode()
    assert re.search(r"n_ubatch +: 48|n_ubatch += 48", log)
    assert re.search(r"n_ctx +: 512|n_ctx += 512", log)
    assert "K (f32)" in log and "V (q8_0)" in log
    assert re.search(r"flash_attn += enabled", log)


@pytest.mark.parametrize(
    ("options", "flash"),
    [([], "disabled"), (["--flash-attn", "on"], "enabled"), (["--cache-type-v", "q8_0"], "enabled")],
)
def test_flash_attention_is_used_where_it_is_asked_for_or_needed(options: list[str], flash: str) -> None:
    log = wsd_process("run", "hi", "--n-gpu-layers", "0", "--max-tokens", "2", "--verbose", *options).stderr.decode()
    assert set(re.findall(r"flash_attn += (\w+)", log)) == {flash}


def test_options_change_the_reply() -> None:
    ask = ["run", "What is the capital of France?", "--json"]
    assert len(json.loads(wsd(*ask, "--tokens", "--max-tokens", "11").stdout)["tokens"]) == 11
    assert json.loads(wsd(*ask, "--threshold", "0", "--window", "3").stdout)["switch"]["index"] == 2
    short = json.loads(wsd(*ask, "--threshold", "2", "--draft-max-tokens", "9").stdout)
    assert (short["switch"]["reason"], short["draft"]["drafted_tokens"]) == ("draft_limit", 9)
    stopped = json.loads(wsd(*ask, "--threshold", "2", "--on-draft-end", "stop").stdout)
    assert (stopped["switch"]["reason"], stopped["base"]["tokens"]) == ("draft_end", 0)
    hot = ["--mode", "base", "--temperature", "3", "--seed"]
    texts = {wsd(*ask[:2], *hot, str(seed), "--max-tokens", "20").stdout for seed in (1, 2, 3, 1)}
    assert len(texts) == 3
    calm = {wsd(*ask[:2], *hot, str(seed), "--top-k", "1", "--max-tokens", "20").stdout for seed in (1, 2)}
    assert len(calm) == 1


# -- streams -------------------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = started("run", "hi", *LONG)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == b""
    process.stderr.close()


ENDLESS = ["--mode", "draft", "--ignore-eos", "--ctx", "100000", "--max-tokens", "99000"]


def test_ctrl_c_keeps_the_partial_reply() -> None:
    process = started("run", "hi", *ENDLESS)
    assert process.stdout is not None
    begun = process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate()
    assert (process.returncode, error) == (130, b"")
    assert begun.strip()
    assert rest.endswith(b"\n")


def test_ctrl_c_keeps_the_partial_reply_as_json() -> None:
    process = started("run", "hi", "--json", "--verbose", *ENDLESS)
    assert process.stderr is not None
    while b"graph: nodes" not in process.stderr.readline():
        """The context is made once the log says so: the reply begins."""
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert not out or json.loads(out)["finish_reason"] == "cancelled"


def test_ctrl_c_while_models_load() -> None:
    process = started("run", "hi", "--verbose", *ENDLESS)
    assert process.stderr is not None
    while b"llama_model_loader" not in process.stderr.readline():
        """The first line of the loader: loading has begun."""
    process.send_signal(signal.SIGINT)
    out, error = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in error
    assert len(out) < 2000


def test_timeout_keeps_the_partial_reply() -> None:
    done = wsd("run", "hi", "--json", "--timeout", "2", *ENDLESS)
    reply = json.loads(done.stdout)
    assert (done.returncode, reply["finish_reason"]) == (1, "cancelled")
    assert reply["text"]
    assert b"--timeout" in done.stderr


# -- what the continuation must be, and what the base reads ---------------------------------------------------


def test_stop_strings_end_the_reply_and_are_not_shown() -> None:
    whole = wsd("run", EGG).stdout.decode().strip()
    words = whole.split()
    for stop in (words[2], words[-3], "\u00e9"):
        done = wsd("run", EGG, "--stop", "never written", "--stop", stop)
        assert done.returncode == 0
        assert done.stdout.decode().rstrip() == whole.split(stop)[0].rstrip()


def test_the_same_seed_gives_the_same_reply() -> None:
    asked = ("run", EGG, "--temperature", "1.2", "--draft-temperature", "1.2", "--repeat-penalty", "1.1", "--tokens")
    replies = [json.loads(wsd(*asked, "--seed", seed).stdout) for seed in ("5", "5", "6")]
    assert replies[0]["text"] == replies[1]["text"] != replies[2]["text"]
    assert replies[0]["provenance"]["settings"]["draft_seed"] == 5


def test_the_base_reads_the_format_that_a_file_says(tmp_path: Path) -> None:
    file = tmp_path / "sections.toml"
    file.write_text('prefix = "Some text.\\n"\nstop = ["egg"]\n[headings]\nuser = "\\n\\n# Query:\\n"\n')
    done = wsd("run", EGG, "--base-format", str(file), "--json")
    plain = json.loads(wsd("run", EGG, "--json").stdout)
    reply = json.loads(done.stdout)
    assert "egg" not in reply["text"]
    assert reply["timings"]["base_prompt_tokens"] != plain["timings"]["base_prompt_tokens"]


def test_a_hybrid_base_says_how_it_goes_back(tmp_path: Path) -> None:
    base = random_lfm2(tmp_path / "hybrid.gguf")
    done = wsd_process(
        "run", EGG, "--base", str(base), "--threshold", "0", "--check-chunk", "16", "--max-tokens", "30", "--verbose"
    )
    assert done.returncode == 0
    assert b"snapshots are taken to go back to" in done.stderr
    assert b"back to a snapshot of" in done.stderr


# -- wrong input ---------------------------------------------------------------------------------------------


def test_model_files_that_cannot_be_used(tmp_path: Path, demo_q8: tuple[Path, Path]) -> None:
    files = damaged(demo_q8[1], tmp_path)
    complains(wsd("run", "hi", "--base", str(tmp_path / "none.gguf")), 3, "none.gguf", "no such file")
    complains(wsd("run", "hi", "--base", str(files["empty"])), 3, "is empty")
    complains(wsd("run", "hi", "--base", str(files["text"])), 3, "not a GGUF file")
    complains(wsd("run", "hi", "--base", str(files["wrong_magic"])), 3, "not a GGUF file")
    complains(wsd("run", "hi", "--draft", str(files["truncated"])), 3, "is damaged", "the end is missing")
    complains(wsd("run", "hi", "--base", str(tmp_path)), 3, "is not a file")
    complains(wsd("run", "hi", "--base", "demo-bose"), 3, "did you mean 'demo-base'")
    complains(wsd("run", "hi", "--base", "~nosuchuser/x.gguf"), 3, "no such file")
    complains(wsd("run", "hi", "--pair", "dmo"), 2, "did you mean 'demo'")
    complains(wsd("run", "hi", "--draft-lora", str(tmp_path / "none.gguf")), 3, "none.gguf", "no such file")
    complains(wsd("run", "hi", "--base-lora", str(demo_q8[0])), 3, "is no adapter for WSD demo base")
    complains(wsd("run", "hi", "--base-lora", str(files["truncated"])), 3, "the end is missing")


def test_an_embedding_model_is_no_base(tmp_path: Path) -> None:
    path = embedding_model(tmp_path / "bert.gguf")
    complains(wsd("run", "hi", "--base", str(path)), 3, "embedding model")
    complains(wsd("run", "hi", "--draft", str(path)), 3, "embedding model")


def test_a_prompt_beyond_the_context() -> None:
    complains(wsd("run", "--ctx", "256", stdin=b"word " * 2000), 4, "too long", "--ctx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "high"], ["--threshold", "a number"]),
        (["--threshold", "nan"], ["threshold", "nan"]),
        (["--threshold", "-1"], ["threshold"]),
        (["--window", "0"], ["window"]),
        (["--max-tokens", "0"], ["max-tokens"]),
        (["--mode", "fast"], ["mode", "fixed:K"]),
        (["--mode", "fixed:0"], ["mode"]),
        (["--top-p", "1.5"], ["top-p"]),
        (["--temperature", "-1"], ["temperature"]),
        (["--timeout", "0"], ["timeout"]),
        (["--timeout", "inf"], ["timeout"]),
        (["--cache-type-k", "f7"], ["--cache-type-k"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["--messages", "nowhere.json"], ["nowhere.json", "cannot be read"]),
        (["--file", "nowhere.txt"], ["nowhere.txt", "cannot be read"]),
        (["--grammar", "nowhere.gbnf"], ["nowhere.gbnf", "cannot be read"]),
        (["--json-schema", "nowhere.json"], ["nowhere.json", "cannot be read"]),
        (["--json-schema", "pyproject.toml"], ["json-schema", "is not JSON"]),
        (["--grammar", "pyproject.toml"], ["grammar: cannot be used"]),
        (["--base-format", "nowhere.toml"], ["nowhere.toml", "cannot be read"]),
        (["--base-format", "LICENSE"], ["LICENSE", "is not TOML"]),
        (["--base-format", "pyproject.toml"], ["pyproject.toml", "headings, ending, stop and prefix"]),
        (["--stop", ""], ["stop string is empty"]),
        (["--draft-top-k", "-1"], ["draft-top-k"]),
    ],
)
def test_options_that_cannot_be_meant(arguments: list[str], words: list[str]) -> None:
    complains(wsd("run", "hi", *arguments), 2, *words)


def test_input_that_is_not_text() -> None:
    complains(wsd("run", stdin=b"caf\xe9"), 2, "standard input", "not UTF-8", "byte 3")
    complains(wsd("run", stdin=b" \n"), 2, "no prompt")


def test_messages_that_are_no_messages(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    for text, word in (("{", "not JSON"), ("3", "list of messages"), ('[{"role": "user"}]', "message 1")):
        file.write_text(text)
        complains(wsd("run", "--messages", str(file)), 2, word)


def test_debug_shows_the_traceback() -> None:
    done = wsd("run", "hi", "--base", "none.gguf", "--debug")
    assert b"Traceback" in done.stderr
    assert done.returncode == 3


def test_verbose_shows_the_native_log_on_standard_error_only() -> None:
    done = wsd_process("run", "hi", "--verbose")
    assert b"llama_model_loader" in done.stderr
    assert b"llama_" not in done.stdout


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['wsd-local', 'run', '--help']\n"
        "from wsd_local.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'llama_cpp', 'numpy', 'textual', 'huggingface_hub', 'jinja2'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert b"heavy: []" in done.stdout
    assert b"--on-draft-end" in done.stdout
    assert wsd("--version").stdout.startswith(b"wsd-local 0.")


def test_wsd_chat_is_the_command_chat() -> None:
    def wsd_chat(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        code = "import sys; sys.argv[0] = 'wsd-chat'; from wsd_local.cli import chat_main; chat_main()"
        return subprocess.run([sys.executable, "-c", code, *arguments], input=b"", capture_output=True, check=False)

    complains(wsd_chat(), 2, "wsd-chat needs a terminal")
    complains(wsd_chat("--threshold", "high"), 2, "--threshold is 'high'", "See wsd-chat --help.")
    shown, same = wsd_chat("--help").stdout, wsd("chat", "--help").stdout
    assert shown.startswith(b"Usage: wsd-chat [OPTIONS]")
    assert set(re.findall(rb"--[a-z-]+", same)) <= set(re.findall(rb"--[a-z-]+", shown))
