"""Quantising through llama.cpp: every type, every refusal, and nothing half-written is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
from command_line import complains, wsd
from makers import damaged, random_llama

from wsd_local.errors import CancelledError, ModelError, UsageError, WsdError
from wsd_local.library.gguf import read_header
from wsd_local.library.quantize import quantize
from wsd_local.library.quantizer import QuantizeJob, read_imatrix
from wsd_local.library.registry import known
from wsd_local.llama import Cancellation, Context, Model
from wsd_local.llama.logs import forward_logs
from wsd_local.llama.options import ContextOptions
from wsd_local.llama.quantize import file_type, file_types
from wsd_local.paths import made_models_dir
from wsd_local.system.child import Observer

NEED_MATRIX = {"IQ1_M", "IQ1_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_XS", "IQ3_XXS", "Q2_K_S"}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama in F32 whose rows are blocks of every type."""
    return random_llama(tmp_path_factory.mktemp("source") / "random-f32.gguf", n_embd=256, n_ff=512)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller one: some types take seconds for a million weights."""
    return random_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", n_embd=256, n_ff=256, n_layer=1, n_head=4)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """An importance matrix for it, in the form that llama-imatrix writes."""
    path = tmp_path_factory.mktemp("matrix") / "imatrix.gguf"
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_string("general.type", "imatrix")
    random = np.random.default_rng(0)
    for tensor in read_header(tiny).tensors:
        if tensor.layer is not None and len(tensor.shape) == 2:
            sums = random.random((1, tensor.shape[0]), dtype=np.float32) * 8
            writer.add_tensor(f"{tensor.name}.in_sum2", sums)
            writer.add_tensor(f"{tensor.name}.counts", np.full((1, 1), 8, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def likelihood(path: Path) -> float:
    """Mean log-probability that the model gives to a text of its vocabulary."""
    with Model(path) as model:
        options = ContextOptions(n_ctx=256, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
        context = Context(model, options, Cancellation())
        tokens = [model.bos or 0, *model.tokenize_text("The answer is that the user answers with a question." * 2)]
        found = context.logprobs(0, tokens, 1)
        context.close()
    return float(np.mean(found))


# -- types ---------------------------------------------------------------------------------------------------


FAMILIES = sorted({kind[:3] for kind in file_types()} - {"Q8_"})


@pytest.mark.parametrize("family", ["Q8_", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES)])
def test_every_type_gives_a_file_that_loads(family: str, tiny: Path, matrix: Path, tmp_path: Path) -> None:
    """By families: llama.cpp makes tables for each, once in a process, that take seconds."""
    forward_logs()
    kinds = [kind for kind in file_types() if kind.startswith(family)]
    assert kinds
    for kind in kinds:
        made = tmp_path / f"{kind}.gguf"
        if kind in NEED_MATRIX:
            assert not QuantizeJob(str(tiny), str(made), kind, 1).run()
        imatrix = str(matrix) if kind in NEED_MATRIX else None
        assert QuantizeJob(str(tiny), str(made), kind, 1, imatrix=imatrix).run()
        assert np.isfinite(likelihood(made))
        with Model(made) as model:
            assert model.metadata("general.file_type") == str(file_types()[kind])


def test_those_types_and_no_others_can_be_made(source: Path) -> None:
    numbers = {value for name, value in vars(llama_cpp).items() if name.startswith("LLAMA_FTYPE_")}
    assert set(file_types().values()) < numbers
    for number in numbers - set(file_types().values()):
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.dry_run = number, True
        assert llama_cpp.llama_model_quantize(os.fsencode(source), b"", params) != 0


def test_more_bits_stay_nearer_to_the_source(source: Path, tmp_path: Path) -> None:
    target = likelihood(source)
    errors, sizes = [], []
    for kind in ("F16", "Q8_0", "Q4_K_M", "Q2_K"):
        done = quantize(source, tmp_path / f"{kind}.gguf", kind, threads=1)
        errors.append(abs(likelihood(done.path) - target))
        sizes.append(done.bits)
    assert errors[0] < 0.01
    assert errors[1] < 0.1
    assert max(errors[:2]) < errors[3]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("said", "meant"),
    [("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("iq4-xs", "IQ4_XS"), ("bf16", "BF16"), ("f32", "F32")],
)
def test_types_are_understood_as_people_write_them(said: str, meant: str) -> None:
    assert file_type(said) == meant


@pytest.mark.parametrize("said", ["Q4_K_X", "", "banana", "NVFP4", "GUESSED", "4"])
def test_other_types_are_answered_with_all_there_are(said: str) -> None:
    with pytest.raises(UsageError, match=r"known are .*Q4_K_M.*Q8_0"):
        file_type(said)


def test_the_nearest_type_is_suggested() -> None:
    with pytest.raises(UsageError, match="did you mean 'Q6_K'"):
        file_type("Q6_KK")


# -- importance matrices -------------------------------------------------------------------------------------


def test_types_that_need_a_matrix_say_so(source: Path, tiny: Path, matrix: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"IQ1_S needs an importance matrix \(--imatrix\)"):
        quantize(source, tmp_path / "made.gguf", "IQ1_S", threads=1)
    assert list(tmp_path.iterdir()) == []
    done = quantize(tiny, tmp_path / "made.gguf", "IQ2_XXS", threads=1, imatrix=matrix)
    assert done.bits < 4


def test_a_matrix_is_read_as_means(matrix: Path) -> None:
    means = read_imatrix(matrix)
    assert len(means) == 7
    assert means["blk.0.ffn_down.weight"].shape == (256,)
    assert all(values.min() >= 0 and values.max() < 1 for values in means.values())


def test_a_matrix_changes_the_result(tiny: Path, matrix: Path, tmp_path: Path) -> None:
    plain, weighted = tmp_path / "plain.gguf", tmp_path / "weighted.gguf"
    quantize(tiny, plain, "Q4_K_S", threads=1)
    quantize(tiny, weighted, "Q4_K_S", threads=1, imatrix=matrix)
    assert plain.read_bytes() != weighted.read_bytes()


def test_a_model_is_no_matrix(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no importance matrix"):
        quantize(source, tmp_path / "made.gguf", "IQ2_XS", imatrix=source)


# -- refusals ------------------------------------------------------------------------------------------------


def test_a_quantised_source_is_asked_about(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"quantised already \(Q8_0\).*--allow-requantize"):
        quantize(demo_q8[0], tmp_path / "made.gguf", "Q4_0")
    done = quantize(demo_q8[0], tmp_path / "made.gguf", "Q4_0", threads=1, allow_requantize=True)
    assert done.after < done.before
    assert np.isfinite(likelihood(done.path))


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "wrong_magic"])
def test_damaged_sources_are_named(kind: str, source: Path, tmp_path: Path) -> None:
    path = damaged(source, tmp_path)[kind]
    with pytest.raises(ModelError, match=str(path)):
        quantize(path, tmp_path / "made.gguf", "Q4_0")
    assert not (tmp_path / "made.gguf").exists()


def test_damage_that_only_llama_cpp_sees_is_reported_in_its_words(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    whole = source.read_bytes()
    broken.write_bytes(
        whole.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight").replace(b"llama.block", b"llama.blork")
    )
    with pytest.raises(ModelError, match=r"broken\.gguf: cannot be quantised: .*block_count"):
        quantize(broken, tmp_path / "made.gguf", "Q4_0")
    assert list(tmp_path.iterdir()) == [broken]


def test_values_that_are_no_numbers_are_refused(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    whole = bytearray(source.read_bytes())
    whole[-4096:] = np.full(1024, np.nan, dtype=np.float32).tobytes()
    broken.write_bytes(whole)
    with pytest.raises(ModelError, match="cannot be quantised"):
        quantize(broken, tmp_path / "made.gguf", "Q4_0", threads=1)
    assert list(tmp_path.iterdir()) == [broken]


def test_nothing_is_overwritten_without_force(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "made.gguf"
    output.write_text("mine")
    with pytest.raises(UsageError, match="exists already; --force"):
        quantize(source, output, "Q8_0")
    assert output.read_text() == "mine"
    quantize(source, output, "Q8_0", threads=1, force=True)
    assert read_header(output).architecture == "llama"


def test_the_source_is_never_the_output(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copy(source, copy)
    link = tmp_path / "link.gguf"
    link.symlink_to(copy)
    for output in (copy, link):
        with pytest.raises(UsageError, match="is the file that is to be quantised"):
            quantize(copy, output, "Q8_0", force=True)
    assert copy.read_bytes() == source.read_bytes()


def test_a_full_disk_is_seen_before(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100, 0, 1_000_000))
    with pytest.raises(WsdError, match=r"1\.[0-9] MB are needed and 1\.0 MB are free"):
        quantize(source, tmp_path / "deep" / "made.gguf", "Q8_0")
    assert list(tmp_path.iterdir()) == []


# -- parts ---------------------------------------------------------------------------------------------------


def test_the_parts_of_a_split_model_become_one_file(source: Path, tmp_path: Path) -> None:
    parts = split(source, tmp_path)
    assert len(parts) > 1
    done = quantize(parts[0], tmp_path / "made.gguf", "Q8_0", threads=1)
    whole = quantize(source, tmp_path / "whole.gguf", "Q8_0", threads=1)
    assert done.before == sum(part.stat().st_size for part in parts)
    assert likelihood(done.path) == likelihood(whole.path)
    with pytest.raises(UsageError, match="is the file that is to be quantised"):
        quantize(parts[0], parts[1], "Q8_0", force=True)
    parts[1].unlink()
    with pytest.raises(ModelError, match="parts are missing"):
        quantize(parts[0], tmp_path / "again.gguf", "Q8_0")


def split(source: Path, folder: Path) -> list[Path]:
    """The model in parts, named as llama.cpp names them."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(folder / "parts.gguf", "llama", split_max_tensors=8)
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("parts-*.gguf"))


# -- stopping ------------------------------------------------------------------------------------------------


def test_a_stopped_quantisation_leaves_nothing(source: Path, tmp_path: Path) -> None:
    stops: list[Callable[[], None]] = []
    seen: list[float] = []

    def progress(_what: str, fraction: float) -> None:
        seen.append(fraction)
        assert len([*tmp_path.iterdir()]) == 1
        stops[-1]()

    with pytest.raises(CancelledError):
        quantize(source, tmp_path / "made.gguf", "Q4_K_M", threads=1, observer=Observer(progress, stops.append))
    assert seen
    assert list(tmp_path.iterdir()) == []


def test_progress_rises_with_every_tensor(source: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    quantize(source, tmp_path / "made.gguf", "Q8_0", threads=1, observer=Observer(lambda _what, now: seen.append(now)))
    assert seen == sorted(seen)
    assert len(seen) == len(read_header(source).tensors)


def test_a_signal_ends_the_command_and_leaves_nothing(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="expected: no pseudo-terminals here")
    large = random_llama(tmp_path / "large.gguf", n_embd=1024, n_ff=4096, n_layer=2)
    output = tmp_path / "out" / "made.gguf"
    output.parent.mkdir()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "wsd_local", "models", "quantize", str(large), "IQ3_S", "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--output", str(output)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while b"quantising" not in shown:
        shown += os.read(ours, 1 << 16)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.read() == b""
    assert process.wait() == 130
    process.stdout.close()
    os.close(ours)
    assert list(output.parent.iterdir()) == []
    assert "made" not in known()


def test_a_child_whose_parent_is_gone_ends(source: Path, tmp_path: Path) -> None:
    job = QuantizeJob(str(source), str(tmp_path / "made.gguf"), "Q4_K_M", 1)
    child = subprocess.Popen(
        [sys.executable, "-m", "wsd_local.library.quantizer", job.as_json()], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.wait() == 1


# -- the command ---------------------------------------------------------------------------------------------


def test_the_command_makes_remembers_and_tells(source: Path) -> None:
    done = wsd("models", "quantize", str(source), "q4_k_m", "--threads", "1")
    assert done.returncode == 0, done.stderr
    name, path, size = done.stdout.decode().rstrip("\n").split("\t")
    assert (name, Path(path)) == ("random-Q4_K_M", made_models_dir() / "random-Q4_K_M.gguf")
    assert size == f"{Path(path).stat().st_size / 1e3:.1f} kB"
    assert done.stderr.decode().startswith("6.0 MB -> ")
    assert "bits per weight" in done.stderr.decode()
    entry = known()[name]
    assert (entry.path, entry.origin) == (Path(path), "made")
    complains(wsd("models", "quantize", str(source), "q4_k_m"), 2, "exists already", "--force")
    assert wsd("models", "quantize", str(source), "q4_k_m", "--force", "--threads", "1").returncode == 0
    answered = wsd("run", "--draft", name, "--base", name, "--max-tokens", "4", "Hello")
    assert answered.returncode == 0, answered.stderr


def test_names_and_outputs_are_the_users(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "a folder" / "small {x}.gguf"
    output.parent.mkdir()
    done = wsd("models", "quantize", str(source), "Q8_0", "--as", "tiny-q8", "--output", str(output), "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert known()["tiny-q8"].path == output
    complains(wsd("models", "quantize", str(source), "Q8_0", "--as", "tiny-q8"), 2, "there is a model tiny-q8 already")
    complains(wsd("models", "quantize", str(source), "Q8_0", "--as", "a/b"), 2, "'a/b' cannot be a model's name")


def test_the_command_says_what_is_wrong_in_one_line(source: Path, tmp_path: Path) -> None:
    complains(wsd("models", "quantize", str(source), "Q4_K_X"), 2, "there is no type 'Q4_K_X'", "did you mean 'Q4_K_")
    complains(wsd("models", "quantize", "no-such-model", "Q4_0"), 3, "no-such-model")
    complains(wsd("models", "quantize", str(tmp_path / "no.gguf"), "Q4_0"), 3, "no.gguf: no such file")
    complains(wsd("models", "quantize", "demo-draft", "Q4_0"), 2, "quantised already (Q8_0)", "--allow-requantize")
    complains(wsd("models", "quantize", str(source), "Q8_0", "--threads", "0"), 2, "threads is 0")
    complains(wsd("models", "quantize", str(source), "IQ2_XXS"), 2, "importance matrix", "--imatrix")
