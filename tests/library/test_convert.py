"""Converting a checkpoint: the same tokens and the same logits as its own library, and every refusal."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import importlib
import importlib.metadata
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEMPLATE, WORDS, logprobs, named_converter, needed, tiny_checkpoint, write_safetensors
from command_line import complains, wsd, wsd_process
from hub_stand_in import COMMIT, Fault, HubStandIn, Repo

from wsd_local.errors import CancelledError, ModelError, UsageError, WsdError
from wsd_local.library import convert as making
from wsd_local.library.checkpoint import Checkpoint, chosen_kind, local_checkpoint, weights
from wsd_local.library.convert import ARCHIVES, convert, converter
from wsd_local.library.gguf import read_header
from wsd_local.library.registry import known
from wsd_local.llama import Model
from wsd_local.paths import made_models_dir
from wsd_local.system.child import Observer

TEXTS = (
    "Keep the bread in a paper bag, away from damp air.",
    " two  spaces,\ttabs\n\nand lines\n",
    "How do I boil an egg? Eight minutes: 8 x 60 = 480 s.",
    "Straße, 你好, 🙂 and a family 👨‍👩‍👧",
    "",
    "</s> is text here",
)
LONG = " ".join(random.Random(1).choices(WORDS, k=150))
"""Longer than what the model's positions were made for before they were stretched."""
Usage = namedtuple("Usage", "total used free")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def llama_cpp_source(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the converter is, named to the program."""
    return named_converter(monkeypatch)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Tiny-Llama")


@pytest.fixture
def hand_made(tmp_path: Path) -> Path:
    """What reads like a checkpoint before the converter sees it; made without torch."""
    folder = tmp_path / "Hand-Made"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["NoSuchForCausalLM"], "model_type": "nosuch"}))
    write_safetensors(folder / "model.safetensors", {"w": np.zeros((4, 8), dtype=np.float32)})
    return folder


def started_command(*arguments: str, stderr: int) -> subprocess.Popen[bytes]:
    """The command with its standard error on a terminal."""
    command = [sys.executable, "-m", "wsd_local", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "300"}
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=environment
    )


# -- the same model ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("llama_cpp_source")
def test_a_converted_checkpoint_is_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    torch, transformers = needed("torch"), needed("transformers")
    done = wsd("models", "convert", str(checkpoint), "--type", "f32")
    assert done.returncode == 0, done.stderr
    name, path, size = done.stdout.decode().rstrip("\n").split("\t")
    made = made_models_dir() / "tiny-llama-f32.gguf"
    assert (name, Path(path), size) == ("tiny-llama-f32", made, f"{made.stat().st_size / 1e6:.1f} MB")
    assert "wsd-local models quantize tiny-llama-f32 Q4_K_M" in done.stderr.decode()
    assert (known()[name].path, known()[name].origin, known()[name].repo) == (made, "made", None)
    assert [file.name for file in made.parent.glob("*tiny*")] == [made.name]

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    pieces = needed("sentencepiece").SentencePieceProcessor(str(checkpoint / "tokenizer.model"))
    with Model(made) as model:
        assert model.chat_template == TEMPLATE
        assert (model.name, model.n_ctx_train) == ("Tiny-Llama", 2048)
        for text in TEXTS:
            assert model.tokenize(text) == pieces.encode(text, add_bos=True)
            # transformers alone puts no space before a leading space.
            if not text.startswith(" "):
                assert model.tokenize(text) == tokenizer(text, split_special_tokens=True).input_ids

    tokens, ours = logprobs(made, LONG)
    assert tokens == tokenizer(LONG).input_ids
    assert len(tokens) > 128
    with torch.inference_mode():
        theirs = transformers.LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
        rows = torch.log_softmax(theirs(torch.tensor([tokens])).logits[0].double(), -1)
    wanted = rows[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].numpy()
    assert np.abs(ours - wanted).max() < 1e-3
    assert wanted.std() > 0.5

    for kind, nearness in (("Q8_0", 0.1), ("Q4_K_M", 2.0)):
        small = tmp_path / f"{kind}.gguf"
        done = wsd("models", "quantize", name, kind, "--output", str(small), "--threads", "1")
        assert done.returncode == 0, done.stderr
        again, near = logprobs(small, LONG)
        assert again == tokens
        assert 1e-5 < np.abs(near - wanted).mean() < nearness


@pytest.mark.usefixtures("llama_cpp_source")
def test_types_names_and_outputs(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "a folder" / "made {x}.gguf"
    output.parent.mkdir()
    done = wsd("models", "convert", str(checkpoint), "--as", "my-draft", "--output", str(output), "--type", "q8_0")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert known()["my-draft"].path == output
    assert {tensor.type for tensor in read_header(output).tensors} == {"F32", "Q8_0"}
    auto = convert(Checkpoint(checkpoint, "Owner/Some-Model"), tmp_path / "auto.gguf")
    header = read_header(auto)
    assert {tensor.type for tensor in header.tensors} == {"F32", "F16"}
    assert header.text("general.name") == "Some-Model"


@pytest.mark.usefixtures("llama_cpp_source")
def test_a_stopped_conversion_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    stops: list[Callable[[], None]] = []
    seen: list[tuple[str, float]] = []

    def progress(what: str, fraction: float) -> None:
        seen.append((what, fraction))
        if what == "converting":
            stops[-1]()

    with pytest.raises(CancelledError):
        convert(Checkpoint(checkpoint), tmp_path / "made.gguf", observer=Observer(progress, stops.append))
    assert seen[-1][0] == "converting"
    assert list(tmp_path.iterdir()) == []


# -- what the converter refuses ------------------------------------------------------------------------------


@pytest.mark.usefixtures("llama_cpp_source")
def test_an_architecture_that_llama_cpp_does_not_know_is_named(hand_made: Path) -> None:
    done = wsd("models", "convert", str(hand_made))
    complains(done, 3, str(hand_made), "cannot be converted", "NoSuchForCausalLM is not supported")
    assert not (made_models_dir() / "hand-made-f16.gguf").exists()


@pytest.mark.usefixtures("llama_cpp_source")
def test_no_code_of_a_checkpoint_is_run(checkpoint: Path, tmp_path: Path) -> None:
    """The converter, left alone, has transformers run it."""
    folder, marker = tmp_path / "With-Code", tmp_path / "was-here"
    shutil.copytree(checkpoint, folder)
    (folder / "tokenizer.model").unlink()
    code: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {
            "tokenizer_class": "OwnTokenizer",
            "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
        },
        "config.json": {"architectures": ["LLaDAModelLM"]},
    }
    for name, changes in code.items():
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**settings, **changes}))
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass OwnTokenizer: pass\n")
    with pytest.raises(ModelError, match=r"With-Code: cannot be converted: it brings code of its own, and no code"):
        convert(Checkpoint(folder), tmp_path / "made.gguf")
    assert not marker.exists()
    assert not (tmp_path / "made.gguf").exists()


@pytest.mark.usefixtures("llama_cpp_source")
def test_no_code_of_a_pickle_is_run(checkpoint: Path, tmp_path: Path) -> None:
    torch = needed("torch")
    folder, marker = tmp_path / "Pickled", tmp_path / "was-here"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(marker),))

    torch.save({"model.embed_tokens.weight": Evil(), "w": torch.zeros(64)}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="Pickled: cannot be converted: "):
        convert(Checkpoint(folder), tmp_path / "made.gguf")
    assert not marker.exists()
    assert not (tmp_path / "made.gguf").exists()


# -- what is refused before ----------------------------------------------------------------------------------


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "EXTRA", ("json", "no_such_module_a", "no_such_module_b"))
    with pytest.raises(
        WsdError, match=r'needs no_such_module_a, no_such_module_b; .*pip install .*("transformers|\[convert\]")'
    ) as no:
        making.require_extra()
    assert no.value.exit_code == 1


def test_the_command_says_what_is_no_checkpoint(tmp_path: Path) -> None:
    complains(wsd("models", "convert", str(tmp_path / "none")), 3, "none: no such folder", "OWNER/NAME")
    complains(wsd("models", "convert", "a/b/c"), 3, "a/b/c: no such folder")
    complains(wsd("models", "convert", str(tmp_path)), 3, str(tmp_path), "holds no config.json")
    (tmp_path / "model.gguf").touch()
    complains(wsd("models", "convert", str(tmp_path / "model.gguf")), 3, "is a file", "models quantize")
    complains(wsd("models", "convert", str(tmp_path), "--type", "q4_0"), 2, "q4_0")


@pytest.fixture
def no_converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The extra is there, and a folder that looks like llama.cpp's."""
    monkeypatch.setattr(making, "EXTRA", ())
    folder = tmp_path / "llama.cpp"
    for name in ("conversion", "gguf-py"):
        (folder / name).mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").touch()
    monkeypatch.setenv("WSD_LOCAL_LLAMA_CPP", str(folder))


@pytest.mark.usefixtures("no_converter")
def test_nothing_is_overwritten_without_force(hand_made: Path, tmp_path: Path) -> None:
    output = tmp_path / "made.gguf"
    output.write_text("mine")
    with pytest.raises(UsageError, match=r"made\.gguf: exists already; --force"):
        convert(local_checkpoint(str(hand_made)), output)
    assert output.read_text() == "mine"
    with pytest.raises(UsageError, match="is a folder"):
        convert(local_checkpoint(str(hand_made)), tmp_path, force=True)


@pytest.mark.usefixtures("no_converter")
def test_a_full_disk_is_seen_before(hand_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1000, 937, 63))
    with pytest.raises(WsdError, match="64 B are needed and 63 B are free"):
        convert(local_checkpoint(str(hand_made)), tmp_path / "deep" / "made.gguf")
    assert not (tmp_path / "deep").exists()


@pytest.mark.usefixtures("no_converter")
def test_an_unknown_type_is_refused(hand_made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no type 'q4_0'; known are auto, f32"):
        convert(local_checkpoint(str(hand_made)), tmp_path / "made.gguf", "q4_0")  # type: ignore[arg-type]


def test_the_16_bit_type_is_that_of_most_weights(hand_made: Path) -> None:
    assert chosen_kind("auto", weights(hand_made)) == "f16"
    halves = np.zeros((100, 100), dtype=np.float16)
    write_safetensors(hand_made / "model-2.safetensors", {"v": halves}, "BF16")  # type: ignore[dict-item]
    assert weights(hand_made) == {"F32": 32, "BF16": 10000}
    assert chosen_kind("auto", weights(hand_made)) == "bf16"
    assert chosen_kind("f32", weights(hand_made)) == "f32"


def test_weights_that_are_missing_or_damaged_are_named(hand_made: Path) -> None:
    path = hand_made / "model.safetensors"
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:20], b"", b"\xff" * 40, (4).to_bytes(8, "little") + b"[{}]"):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.safetensors: is damaged"):
            weights(hand_made)
    nested = b"[" * 100_000
    for offsets, shape in (([0, 128], [1 << 40]), ([128, 0], [1]), ([0, "x"], [1]), ([0, 128], [-1]), ([0.5, 1], [1])):
        lie = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
        path.write_bytes(len(lie).to_bytes(8, "little") + lie + bytes(128))
        with pytest.raises(ModelError, match=r"model\.safetensors: is damaged: its header cannot be read"):
            weights(hand_made)
    for header in (nested, b'{"a":' * 100_000):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ModelError, match=r"model\.safetensors: is damaged"):
            weights(hand_made)
    with path.open("wb") as sparse:
        sparse.write((1 << 40).to_bytes(8, "little"))
        sparse.truncate((1 << 40) + 8)
    with pytest.raises(ModelError, match=r"its header says that it is 1099511627776 bytes long"):
        weights(hand_made)
    path.write_bytes(whole)
    index = hand_made / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(ModelError, match=r"1 parts of the weights are missing: model-2\.safetensors"):
        weights(hand_made)
    for text in ("{}", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": [1]}}', "[" * 100_000):
        index.write_text(text)
        with pytest.raises(ModelError, match=r"index\.json: is damaged"):
            weights(hand_made)
    index.unlink()
    path.unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        weights(hand_made)


# -- the Hub -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("llama_cpp_source")
def test_a_checkpoint_of_the_hub_is_fetched_and_converted(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = needed("transformers")
    sharded = tmp_path / "sharded"
    shutil.copytree(checkpoint, sharded)
    (sharded / "model.safetensors").unlink()
    transformers.LlamaForCausalLM.from_pretrained(checkpoint).save_pretrained(sharded, max_shard_size="2MB")
    files = {path.name: path.read_bytes() for path in sharded.iterdir()}
    assert len([name for name in files if name.endswith(".safetensors")]) > 1
    with HubStandIn(**{"owner/Tiny": Repo({**files, "own.py": b"evil"})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        hub.next["get"] += [*(Fault() for name in files if not name.endswith(".safetensors")), Fault(cut=1000)]
        done = wsd_process("models", "convert", "owner/Tiny", "--as", "small")
        assert done.returncode == 0, done.stderr
        assert "bytes=1000-" in hub.ranges()
        entry = known()["small"]
        assert (entry.origin, entry.repo, entry.revision) == ("made", "owner/Tiny", COMMIT)
        asked = len(hub.log)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        again = tmp_path / "again.gguf"
        done = wsd_process("models", "convert", "owner/Tiny", "--as", "small-again", "--output", str(again))
        assert done.returncode == 0, done.stderr
        assert again.read_bytes() == entry.path.read_bytes()
        assert len(hub.log) == asked
        complains(
            wsd_process("models", "convert", "owner/Other"), 1, "owner/Other is not in the cache", "HF_HUB_OFFLINE"
        )


@pytest.mark.usefixtures("llama_cpp_source")
def test_a_terminal_shows_what_is_fetched(hand_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty", reason="expected: no pseudo-terminals here")
    with HubStandIn(**{"owner/Name": Repo({path.name: path.read_bytes() for path in hand_made.iterdir()})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        ours, theirs = pty.openpty()
        running = started_command("models", "convert", "owner/Name", stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so when nobody holds the other end any more.
            while block := os.read(ours, 1 << 16):
                shown += block
        os.close(ours)
        assert running.wait() == 3
    assert b"Name: download" in shown
    assert b"NoSuchForCausalLM is not supported" in shown


@pytest.mark.usefixtures("llama_cpp_source")
def test_names_that_the_catalog_has(hand_made: Path) -> None:
    """One that means a checkpoint is free for what is made here."""
    for name in ("llama-3.1-8b", "laptop"):
        complains(wsd("models", "convert", str(hand_made), "--as", name), 2, f"something named '{name}' already")
    with HubStandIn() as hub:
        done = wsd_process(
            "models", "convert", "songff/Pilot-3B", "--as", "pilot-3b", env={**os.environ, "HF_ENDPOINT": hub.url}
        )
    complains(done, 3, "songff/Pilot-3B does not exist, or is private or gated")


# -- llama.cpp's source --------------------------------------------------------------------------------------


class Index:
    """A package index on this machine with one source archive."""

    def __init__(self, version: str) -> None:
        self.archive = source_archive(version)
        self.sha = hashlib.sha256(self.archive).hexdigest()
        self.asked: list[str] = []
        name = f"llama_cpp_python-{version}.tar.gz"
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                link = f'<a href="../../files/{name}#sha256={index.sha}" data-requires-python="&gt;=3.8">{name}</a>'
                pages = {"/simple/llama-cpp-python/": link.encode(), f"/files/{name}": index.archive}
                page = pages.get(self.path)
                self.send_response(200 if page is not None else 404)
                self.send_header("Content-Length", str(len(page or b"")))
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(page or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Tests are quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"


def source_archive(version: str) -> bytes:
    """Like llama-cpp-python's, and with members that must not be unpacked."""
    inside = f"llama_cpp_python-{version}/vendor/llama.cpp"
    members = {
        f"{inside}/convert_hf_to_gguf.py": b"print('converter')",
        f"{inside}/convert_lora_to_gguf.py": b"print('converter')",
        f"{inside}/conversion/llama.py": b"# llama",
        f"{inside}/gguf-py/gguf/__init__.py": b"",
        f"{inside}/LICENSE": b"MIT",
        f"{inside}/src/llama.cpp": b"int main;",
        f"{inside}/conversion/../../../outside.py": b"evil",
        f"llama_cpp_python-{version}/llama_cpp/llama.py": b"",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo(f"{inside}/conversion/link.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return packed.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    version = importlib.metadata.version("llama-cpp-python")
    found = Index(version)
    monkeypatch.setitem(ARCHIVES, version, found.sha)
    monkeypatch.setenv("PIP_INDEX_URL", found.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WSD_LOCAL_LLAMA_CPP", raising=False)
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_the_converter_is_fetched_once(index: Index, tmp_path: Path) -> None:
    folder = converter()
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    scripts = {"convert_hf_to_gguf.py", "convert_lora_to_gguf.py"}
    assert files == {*scripts, "conversion/llama.py", "gguf-py/gguf/__init__.py", "LICENSE"}
    assert list((tmp_path / "cache").iterdir()) == [folder]
    assert not list(tmp_path.rglob("outside.py"))
    asked = len(index.asked)
    assert converter() == folder
    assert len(index.asked) == asked == 2


@pytest.mark.parametrize("page_agrees", [False, True])
def test_a_wrong_hash_leaves_nothing(index: Index, tmp_path: Path, page_agrees: bool) -> None:
    index.archive += b"x"
    if page_agrees:
        index.sha = hashlib.sha256(index.archive).hexdigest()
    with pytest.raises(WsdError, match=r"is not what its hash promises.*WSD_LOCAL_LLAMA_CPP"):
        converter()
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_hash_of_the_pinned_version_is_known() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", ARCHIVES[importlib.metadata.version("llama-cpp-python")])


def test_a_version_whose_hash_is_not_known_is_not_fetched(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ARCHIVES, importlib.metadata.version("llama-cpp-python"))
    with pytest.raises(WsdError, match=r"hash of llama-cpp-python .* is not known here; unpack"):
        converter()
    assert index.asked == []


def test_the_password_of_a_package_index_is_not_shown(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//someone:pass-canary@") + "/nowhere")
    with pytest.raises(WsdError, match="404") as caught:
        converter()
    assert "canary" not in str(caught.value) and "someone" not in str(caught.value)
    monkeypatch.setenv("PIP_INDEX_URL", index.url.replace("//", "//someone:pass-canary@"))
    index.archive += b"x"
    with pytest.raises(WsdError, match="hash promises") as caught:
        converter()
    assert "canary" not in str(caught.value)


def test_an_index_without_the_version_or_out_of_reach_is_named(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.sha = "none"
    with pytest.raises(WsdError, match=r"lists no llama_cpp_python-.*\.tar\.gz.*WSD_LOCAL_LLAMA_CPP"):
        converter()
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/nowhere")
    with pytest.raises(WsdError, match=r"cannot be fetched from .*/nowhere/llama-cpp-python/: .*404"):
        converter()


def test_an_archive_without_the_converter_is_refused(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz"):
        pass
    index.archive = packed.getvalue()
    index.sha = hashlib.sha256(index.archive).hexdigest()
    monkeypatch.setitem(ARCHIVES, importlib.metadata.version("llama-cpp-python"), index.sha)
    with pytest.raises(WsdError, match=r"holds no convert_hf_to_gguf\.py"):
        converter()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_folder_that_is_not_llama_cpps_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_LLAMA_CPP", str(tmp_path))
    with pytest.raises(WsdError, match=r"holds no convert_hf_to_gguf\.py: WSD_LOCAL_LLAMA_CPP must name"):
        converter()
