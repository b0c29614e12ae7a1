"""A model's file that becomes shorter while it is used: one line, and what was written stays."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from exactness import EXACT, PLAIN

from wsd_local.errors import ModelError, WsdError
from wsd_local.events import Text
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.llama.mapped import MappedFile
from wsd_local.runtime.pair import Pair

COMMAND = [sys.executable, "-m", "wsd_local"]
HAS_HANDLER = sys.platform == "linux" and sys.maxsize > 2**32
needs_handler = pytest.mark.skipif(not HAS_HANDLER, reason="expected: bus errors are mended on 64-bit Linux alone")


@pytest.fixture
def files(demo_f32: tuple[Path, Path], tmp_path: Path) -> dict[str, Path]:
    """Copies of the embedded pair in F32, whose weights are read where they are mapped."""
    return {
        role: Path(shutil.copy(path, tmp_path / path.name))
        for role, path in zip(("draft", "base"), demo_f32, strict=True)
    }


@pytest.fixture
def pair(files: dict[str, Path]) -> Iterator[Pair]:
    with Pair(draft=files["draft"], base=files["base"], reply=PLAIN, loading=EXACT) as pair:
        yield pair


def cut(path: Path) -> None:
    os.truncate(path, 20_000)


@needs_handler
@pytest.mark.parametrize("role", ["draft", "base"])
def test_a_file_that_is_cut_inside_an_evaluation_is_one_error(
    pair: Pair, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    pair.models.load()
    real, handle = llama_cpp.llama_decode, pair.models.context(role)._handle  # type: ignore[arg-type, attr-defined]
    evaluations = iter(range(100))

    def decode(context: Any, batch: Any) -> int:
        if context is handle and next(evaluations) == 3:
            cut(files[role])
        return int(real(context, batch))

    monkeypatch.setattr(llama_cpp, "llama_decode", decode)
    run, shown = pair.start("How do I boil an egg?", ignore_eos=True, max_tokens=60), ""
    with pytest.raises(ModelError, match=f"{files[role].name}: became shorter while it was in use") as error:
        for event in run:
            shown += event.text if isinstance(event, Text) else ""
    assert "\n" not in str(error.value)
    assert shown and run.reply.text == shown and run.reply.finish_reason == "cancelled"
    with pytest.raises(ModelError, match="shorter"):
        pair.reply("Hello!")


def test_a_file_that_was_cut_before_is_not_read(pair: Pair, files: dict[str, Path]) -> None:
    pair.reply("Hello!", max_tokens=3)
    cut(files["base"])
    with pytest.raises(ModelError, match="shorter"):
        pair.reply("How do I boil an egg?", mode="base")


@needs_handler
def test_a_file_that_is_cut_while_it_is_loaded_is_one_error(files: dict[str, Path]) -> None:
    def progress(_fraction: float) -> bool:
        cut(files["base"])
        return True

    with pytest.raises(ModelError, match=r"shorter|cannot be loaded"):
        Model(files["base"], n_gpu_layers=0, load_mode="mmap", progress=progress)


def test_another_file_in_its_place_does_no_harm(pair: Pair, files: dict[str, Path]) -> None:
    before = pair.reply("How do I boil an egg?").text
    small = files["base"].with_name("small")
    small.write_bytes(b"GGUF")
    small.replace(files["base"])
    files["draft"].unlink()
    assert pair.reply("How do I boil an egg?").text == before


def test_a_model_that_is_not_mapped_needs_no_file(files: dict[str, Path]) -> None:
    with Model(files["base"], n_gpu_layers=0, load_mode="none") as model:
        cut(files["base"])
        model.check_file()
        context = Context(model, ContextOptions(n_ctx=64, threads=1), Cancellation())
        assert len(context.logprobs(0, model.tokenize("How do I boil an egg?"), 1)) > 3
        context.close()


@needs_handler
def test_other_bus_errors_stay_what_they_are(tmp_path: Path) -> None:
    other, watched = tmp_path / "other", tmp_path / "watched"
    other.write_bytes(bytes(8192))
    watched.write_bytes(bytes(8192))
    program = (
        "import mmap, os, sys; from pathlib import Path; from wsd_local.llama.mapped import MappedFile\n"
        "kept = MappedFile([Path(sys.argv[1])])\n"
        "file = open(sys.argv[2], 'r+b'); view = mmap.mmap(file.fileno(), 8192); os.truncate(sys.argv[2], 0)\n"
        "print(view[5000])\n"
    )
    died = subprocess.run([sys.executable, "-c", program, watched, other], capture_output=True, check=False)
    assert died.returncode == -signal.SIGBUS
    other.write_bytes(bytes(8192))
    mended = subprocess.run([sys.executable, "-c", program, other, other], capture_output=True, check=False)
    assert (mended.returncode, mended.stdout) == (0, b"0\n")


def test_a_watched_file_says_which_part_is_short(tmp_path: Path) -> None:
    parts = [tmp_path / "one", tmp_path / "two"]
    for part in parts:
        part.write_bytes(bytes(100))
    file = MappedFile(parts)
    file.check()
    os.truncate(parts[1], 50)
    with pytest.raises(WsdError, match="two: became shorter while it was in use, 50 of 100 bytes"):
        file.check()


@needs_handler
@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_line_keeps_the_partial_reply(files: dict[str, Path], as_json: bool) -> None:
    options = [
        "--ignore-eos",
        "--max-tokens",
        "3000",
        "--threads",
        "1",
        "--mode",
        "base",
        *(["--json"] if as_json else []),
    ]
    command = [*COMMAND, "run", "Hello!", "--draft", str(files["draft"]), "--base", str(files["base"]), *options]
    program = (
        "import os, sys\n"
        "from wsd_local.cli.output import Printer\n"
        "show, seen = Printer.show, []\n"
        "def cutting(self, event):\n"
        "    show(self, event); seen.append(event)\n"
        f"    if len(seen) == 20: os.truncate({str(files['base'])!r}, 20000)\n"
        "Printer.show = cutting\n"
        f"sys.argv = {command[2:]!r}\n"
        "from wsd_local.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 3, done.stderr
    lines = done.stderr.decode().strip().splitlines()
    assert len(lines) == 1 and "became shorter while it was in use" in lines[0]
    out = done.stdout.decode()
    assert len(out) > 20 and out.endswith("\n") and ('"finish_reason": "cancelled"' in out) == as_json
