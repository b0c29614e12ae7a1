"""The look before loading: damaged files give one line, valid ones load, and what was found is remembered."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from damage import variants
from data_sets import VOCABULARIES, shared
from gguf_layouts import split_in_three, with_entries
from makers import embedding_model, packed, packed_string, random_llama, raw_entries
from makers_more import random_lfm2, random_lora, random_mamba, random_sliding
from summary import Tell

import wsd_local as wsd
from wsd_local.errors import CancelledError, ModelError, WsdError
from wsd_local.library import vetting
from wsd_local.library.gguf import Header
from wsd_local.library.vetting import amx_works, crash_cause, vet
from wsd_local.llama import Model
from wsd_local.reports import doctor as diagnosis
from wsd_local.runtime import llama_file
from wsd_local.system.child import Waiting
from wsd_local.units import MIB


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """A memory of its own, and the files that a child process was started for."""
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "verdicts"))
    return counted_trials(monkeypatch)


def counted_trials(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that a child process will have been started for."""
    tried: list[Path] = []
    really = vetting._try

    def counted(headers: Sequence[Header], waiting: Waiting | None, adapter: Header | None = None) -> None:
        tried.append(headers[0].path if adapter is None else adapter.path)
        really(headers, waiting, adapter)

    monkeypatch.setattr(vetting, "_try", counted)
    return tried


def _vet_damaged(base: Path, folder: Path) -> tuple[Counter[str], int]:
    """What became of each variant, and the peak in bytes of this process and of each child that it started."""
    os.environ["WSD_LOCAL_CACHE"] = str(folder / "verdicts")
    path, counts = folder / "variant.gguf", Counter[str]()
    with pytest.MonkeyPatch.context() as patch:
        tried = counted_trials(patch)
        for kind, content in variants(base, 90, seed=3):
            path.write_bytes(content)
            before = len(tried)
            try:
                vet(path)
            except ModelError as error:
                assert "\n" not in str(error) and "Traceback" not in str(error)
                counts[f"{kind}: {'llama.cpp' if len(tried) > before else 'header'} refuses"] += 1
                continue
            counts[f"{kind}: loads"] += 1
            with wsd.load("demo", base=path, threads=1, ctx=256) as pair:
                try:
                    pair.reply("hi", max_tokens=8)
                except WsdError as error:  # a vocabulary without its bytes, a context of nothing
                    assert "\n" not in str(error)
    peak = max(own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    return counts, peak


def own_peak() -> int:
    """Bytes that this process held at most. Its `ru_maxrss` begins with those of the process that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.slow
def test_damaged_variants_never_hurt(tmp_path: Path, demo_q8: tuple[Path, Path], tell: Tell) -> None:
    """More than 500: each is refused in one line, or loads here and answers.

    In a process of its own: Linux counts the peak of a parent as its children's.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        counts, peak = process.submit(_vet_damaged, demo_q8[1], tmp_path).result()
    assert sum(counts.values()) > 500
    assert peak < 1024 * MIB
    tell("damaged variants", *(f"{what} {count}" for what, count in sorted(counts.items())), f"peak {peak // MIB} MiB")


def test_a_contradiction_that_ends_llama_cpp_is_one_line(tmp_path: Path, trials: list[Path]) -> None:
    model = random_llama(tmp_path / "m.gguf", n_head=4)
    entry = raw_entries(model)["llama.block_count"]
    lie = tmp_path / "lie.gguf"
    lie.write_bytes(model.read_bytes().replace(entry, packed_string("llama.block_count") + packed(0), 1))
    with pytest.raises(ModelError, match="GGML_ASSERT") as error:
        vet(lie)
    assert "\n" not in str(error.value)


def test_valid_variants_still_load(tmp_path: Path, trials: list[Path]) -> None:
    plain = random_llama(tmp_path / "plain.gguf")
    split = split_in_three(plain, tmp_path / "split")
    files = [
        _with_extras(plain, tmp_path / "extras.gguf"),
        split[0],
        random_mamba(tmp_path / "mamba.gguf"),
        random_lfm2(tmp_path / "lfm2.gguf"),
        random_sliding(tmp_path / "sliding.gguf"),
    ]
    files += [_aligned(plain, tmp_path / f"aligned{alignment}.gguf", alignment) for alignment in (8, 64, 4096)]
    for file in files:
        vet(file)
    assert len(trials) == len(files)
    for base in (split[0], tmp_path / "aligned8.gguf"):
        for layers in ("auto", 0):
            with wsd.load("demo", base=base, threads=1, n_gpu_layers=layers) as pair:
                assert pair.reply("hi", mode="base", max_tokens=4, ignore_eos=True).text


@pytest.mark.slow
@pytest.mark.parametrize("name", VOCABULARIES)
def test_big_vocabularies_load(tmp_path: Path, name: str, trials: list[Path]) -> None:
    vocab = shared(f"vocabs/ggml-vocab-{name}.gguf")
    vet(random_llama(tmp_path / "model.gguf", vocab, n_embd=32, n_layer=1, n_head=2, n_ff=32))
    with pytest.raises(ModelError, match="only a vocabulary"):
        vet(vocab)


def _with_extras(source: Path, target: Path) -> Path:
    """Keys that nobody knows, of every type."""
    data = bytearray(source.read_bytes())
    extras: dict[str, str | bool | int | float | list[str]] = {
        "other.text": "x",
        "other.flag": True,
        "other.number": 7,
        "other.real": 0.5,
        "other.list": ["a", "b"],
    }
    blob = b"".join(packed_string(key) + packed(value) for key, value in extras.items())
    blob += packed_string("other.wide") + (10).to_bytes(4, "little") + (2**40).to_bytes(8, "little")
    return with_entries(bytes(data), target, blob, len(extras) + 1, 32)


def _aligned(source: Path, target: Path, alignment: int) -> Path:
    blob = packed_string("general.alignment") + packed(alignment)
    return with_entries(source.read_bytes(), target, blob, 1, alignment)


def test_what_was_found_is_remembered_until_the_file_changes(tmp_path: Path, trials: list[Path]) -> None:
    model = random_llama(tmp_path / "m.gguf")
    vet(model)
    vet(model)
    assert len(trials) == 1
    os.utime(model, ns=(1, 1))
    vet(model)
    assert len(trials) == 2
    status = model.stat()
    data = bytearray(model.read_bytes())
    at = data.index(b"random") if b"random" in data else 100
    data[at] ^= 1
    model.write_bytes(data)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    vet(model)
    assert len(trials) == 3, "the same size and time, another header"


def test_a_broken_memory_costs_another_look(tmp_path: Path, trials: list[Path]) -> None:
    model = random_llama(tmp_path / "m.gguf")
    vet(model)
    for content in ("", "[]", "{", '{"x": 1}'):
        (tmp_path / "verdicts" / "checked.json").write_text(content)
        vet(model)
    assert len(trials) == 5


def test_the_embedded_pair_needs_no_look(demo_q8: tuple[Path, Path], trials: list[Path]) -> None:
    for path in demo_q8:
        vet(path)
    assert trials == []


def test_models_that_cannot_answer_are_named(tmp_path: Path, trials: list[Path]) -> None:
    with pytest.raises(ModelError, match="embedding model"):
        vet(embedding_model(tmp_path / "bert.gguf"))
    llama = random_llama(tmp_path / "m.gguf")
    with pytest.raises(ModelError, match="LoRA adapter"):
        vet(random_lora(tmp_path / "lora.gguf", llama))


def test_it_can_be_stopped(tmp_path: Path, trials: list[Path]) -> None:
    with pytest.raises(CancelledError):
        vet(random_llama(tmp_path / "m.gguf"), lambda: False)


def test_a_process_that_hangs_is_ended(tmp_path: Path, trials: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting, "_SHORTEST", 0.05)
    with pytest.raises(ModelError, match="did not finish"):
        vet(random_llama(tmp_path / "m.gguf"))


def test_amx_that_crashes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[Path]) -> None:
    """Some compilers make of llama.cpp's AMX code what ends the process: tried once for each build."""
    ran: list[list[str]] = []
    features: set[str] = set()
    really, repacked = vetting._trial, list[bool]()

    def crashed(arguments: list[str], *_: object) -> tuple[int, str, str]:
        ran.append(arguments)
        return -11, "", ""

    def made(*arguments: Any, repack: bool, **options: Any) -> Model:
        repacked.append(repack)
        return Model(*arguments, repack=repack, **options)

    monkeypatch.setattr("wsd_local.llama.devices.cpu_features", lambda: features)
    monkeypatch.setattr(vetting, "_trial", crashed)
    monkeypatch.setattr(llama_file, "Model", made)
    assert amx_works() and ran == []
    features.add("AMX_INT8")
    for _ in range(2):
        with wsd.load("demo", threads=1) as pair:
            assert pair.reply("How do I boil an egg?", max_tokens=8).text
    assert repacked == [False] * 4
    assert len(ran) == 1 and ran[0][-1] == "repack"
    problems: list[str] = []
    diagnosis._library(problems)
    assert any("-U__AMX_INT8__" in problem for problem in problems)
    (tmp_path / "verdicts" / "checked.json").write_text('{"AMX": {"build": ["another", 1], "works": false}}')
    monkeypatch.setattr(vetting, "_trial", really)
    assert amx_works(), "the installed one, with its fast kernels"


def test_causes_of_crashes() -> None:
    assert crash_cause("a\n/x/y.cpp:12: GGML_ASSERT(n > 0) failed\n") == "GGML_ASSERT(n > 0) failed"
    assert crash_cause("terminate called\n  what():  vector::_M_default_append\n") == "vector::_M_default_append"
    assert crash_cause("first\nlast\n") == "last"
    assert crash_cause("") == ""
