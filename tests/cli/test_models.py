"""`wsd-local models list|show|import|rm`, `fit` and `doctor`, as a person runs them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import complains, wsd
from data_sets import vocabularies
from gguf_layouts import huge, split_in_three
from makers import damaged, random_llama

from wsd_local.errors import WsdError
from wsd_local.files import file_sha256
from wsd_local.library.catalog import catalog_models, catalog_pairs
from wsd_local.library.description import describe
from wsd_local.library.gguf import read_model
from wsd_local.library.local import found_elsewhere, import_model
from wsd_local.library.registry import Known, known, remember
from wsd_local.paths import demo_dir, package_models_dir
from wsd_local.placement.usage import usage
from wsd_local.reports.doctor import gpu_here, reinstall_command


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and folders of its own."""
    folders = {"HOME": "home", "WSD_LOCAL_DATA": "data", "WSD_LOCAL_CACHE": "cache", "HF_HOME": "hf"}
    for variable, name in folders.items():
        monkeypatch.setenv(variable, str(tmp_path / name))
    return tmp_path


# -- the catalog ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalog_models())
def test_each_model_of_the_catalog_is_well_formed(name: str) -> None:
    entry = catalog_models()[name]
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)
    assert entry.role in ("draft", "base")
    assert entry.licence and entry.quantization and entry.context > 0
    assert re.fullmatch(r"\d+(\.\d+)?[MB]", entry.parameters)
    if entry.path is not None:
        assert entry.repo is None and (package_models_dir() / entry.path).is_file()
        return
    assert entry.repo is not None and re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repo)
    assert entry.size is not None and 5 * 10**7 < entry.size < 10**11
    assert entry.file is None or (entry.file.endswith(".gguf") and entry.quantization.lower() in entry.file.lower())
    shape = entry.shape
    assert shape is not None and shape.kv % 32 == 0 and shape.embd % 32 == 0
    millions = float(entry.parameters[:-1]) * (1000 if entry.parameters[-1] == "B" else 1)
    counted = shape.layers * (3 * shape.embd * shape.ff + 2 * shape.embd * shape.kv + 2 * shape.embd**2)
    counted += shape.vocab * shape.embd
    assert 0.7 < counted / 1e6 / millions < 1.35, "shape and number of parameters belong together"


@pytest.mark.parametrize("name", catalog_pairs())
def test_each_pair_of_the_catalog_is_well_formed(name: str) -> None:
    entry, models = catalog_pairs()[name], catalog_models()
    assert models[entry.draft].role == "draft" and models[entry.base].role == "base"
    assert entry.description and name not in models


# -- list and show --------------------------------------------------------------------------------------------


def test_list_shows_what_is_here_and_what_there_is(tmp_path: Path) -> None:
    import_model(random_llama(tmp_path / "own.gguf"), "own")
    shown = wsd("models", "list").stdout.decode()
    for name in (*catalog_models(), *catalog_pairs(), "own"):
        assert re.search(rf"^{re.escape(name)} ", shown, re.MULTILINE), name
    told = json.loads(wsd("models", "list", "--json").stdout)
    rows = {row["name"]: row for row in told["models"]}
    assert rows["own"]["usable"] is True and rows["own"]["size"] == (tmp_path / "own.gguf").stat().st_size
    assert rows["llama-3.1-8b"]["usable"] is None
    assert {pair["name"]: pair["ready"] for pair in told["pairs"]}["demo"] is True


def test_a_damaged_file_is_listed_as_such(tmp_path: Path) -> None:
    remember(Known("broken", (damaged(random_llama(tmp_path / "m.gguf"), tmp_path)["truncated"],), "imported"))
    remember(Known("gone", (tmp_path / "none.gguf",), "imported"))
    rows = {row["name"]: row for row in json.loads(wsd("models", "list", "--json").stdout)["models"]}
    assert rows["broken"]["usable"] is False and "is damaged" in rows["broken"]["description"]
    assert rows["gone"]["usable"] is False and "no such file" in rows["gone"]["description"]


def test_files_of_other_programs_are_found(tmp_path: Path) -> None:
    home, model = tmp_path / "home", random_llama(tmp_path / "m.gguf")
    ollama = home / ".ollama" / "models"
    manifest = ollama / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "latest"
    layers = [
        {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:abc"},
        {"mediaType": "x", "digest": "y"},
    ]
    places = {
        "tiny:latest": ollama / "blobs" / "sha256-abc",
        "studio": home / ".lmstudio" / "models" / "owner" / "repo" / "studio.gguf",
        "server": home / ".cache" / "llama.cpp" / "server.gguf",
    }
    for place in (*places.values(), manifest):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(model.read_bytes())
    manifest.write_text(json.dumps({"layers": layers}))
    manifest.with_name("damaged").write_text("{")
    assert {found.name: found.path for found in found_elsewhere()} == places
    shown = wsd("models", "list", "--elsewhere").stdout.decode()
    assert "Ollama" in shown and "LM Studio" in shown and str(places["server"]) in shown
    done = wsd("models", "import", str(places["tiny:latest"]), "--as", "smallest")
    assert done.stdout.decode() == f"smallest\t{places['tiny:latest']}\n"
    assert wsd("run", "hi", "--base", "smallest", "--max-tokens", "3").returncode == 0


def test_show_tells_what_a_file_is(demo_q8: tuple[Path, Path]) -> None:
    shown = wsd("models", "show", "demo-base").stdout.decode()
    for words in ("llama, 4 layers of width 256", "Q8_0", "1,536 tokens", "fingerprint", "2,048 tokens", "apache-2.0"):
        assert words in shown
    told = json.loads(wsd("models", "show", str(demo_q8[0]), "--json", "--ctx", "512").stdout)
    assert told["memory_ctx"] == 512 and told["n_vocab"] == 1280
    assert wsd("models", "show", "demo-draft", "--template").stdout.decode().startswith("{%")
    complains(wsd("models", "show", "demo-base", "--template"), 2, "has no chat template")
    complains(wsd("models", "show", "demo-bass"), 3, "did you mean 'demo-base'?")
    complains(wsd("models", "show", "llama-3.1-8b"), 3, "wsd-local models pull llama-3.1-8b")
    complains(wsd("models", "show", "demo-base", "--ctx", "0"), 2, "ctx is 0")


def test_show_reads_the_header_only(tmp_path: Path) -> None:
    told = json.loads(wsd("models", "show", str(huge(tmp_path / "huge.gguf")), "--json").stdout)
    assert told["size"] > 40_000_000_000
    assert told["types"].keys() == {"F32"} and told["parameters"] > 10**10


def test_show_of_a_split_model(tmp_path: Path) -> None:
    whole = random_llama(tmp_path / "whole.gguf", n_layer=3)
    parts = split_in_three(whole, tmp_path / "split")
    one, three = describe(read_model(whole)), describe(read_model(parts[0]))
    assert (three.parts, three.parameters, three.fingerprint) == (3, one.parameters, one.fingerprint)
    assert three.per_layer == one.per_layer
    sizes = [usage(read_model(path)).parts["weights"] for path in (whole, parts[0])]
    assert sizes[0] == sizes[1]


def test_fingerprints_tell_vocabularies_apart(tmp_path: Path) -> None:
    prints = [describe(read_model(vocab)).fingerprint for vocab in vocabularies()]
    assert len(set(prints)) == len(prints)
    vocab = vocabularies()[0]
    other = random_llama(tmp_path / "m.gguf", vocab, n_embd=32, n_layer=1, n_head=2, n_ff=32)
    assert describe(read_model(other)).fingerprint == prints[0]


# -- import and rm ---------------------------------------------------------------------------------------------


def test_import_does_not_copy_and_rm_does_not_delete(tmp_path: Path) -> None:
    path = random_llama(tmp_path / "own.gguf")
    assert wsd("models", "import", str(path), "--as", "own").returncode == 0
    assert known()["own"].paths == (path,)
    dry = wsd("models", "rm", "own", "--dry-run")
    assert dry.stdout == b"own: would free 0 B\n" and "own" in known()
    done = wsd("models", "rm", "own")
    assert done.stdout == b"own: forgotten, 0 B freed\n" and f"keeps {path}" in done.stderr.decode()
    assert path.exists() and "own" not in known()


@pytest.mark.parametrize(
    ("name", "words"), [("demo-base", "already"), ("a/b", "name"), ("x.gguf", "name"), ("", "name"), ("own", "already")]
)
def test_names_that_cannot_be_given(tmp_path: Path, name: str, words: str) -> None:
    path = random_llama(tmp_path / "own.gguf")
    import_model(path, "own")
    done = wsd("models", "import", str(path), "--as", name)
    assert done.returncode == 2 and done.stdout == b""


def test_import_looks_at_the_file(tmp_path: Path) -> None:
    paths = damaged(random_llama(tmp_path / "m.gguf"), tmp_path)
    complains(wsd("models", "import", str(paths["truncated"]), "--as", "x"), 3, "is damaged")
    complains(wsd("models", "import", str(tmp_path / "none.gguf"), "--as", "x"), 3, "no such file")
    assert known() == {}


def test_rm_of_what_is_not_there() -> None:
    complains(wsd("models", "rm", "demo-base"), 2, "is a part of the program")
    complains(wsd("models", "rm", "nothing"), 2, "there is no model 'nothing'")


def test_a_damaged_registry_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.json").write_text("{")
    complains(wsd("models", "list"), 1, "models.json", "is damaged")


@pytest.mark.parametrize("key", ["name", "paths", "origin", "repo", "revision", "written"])
def test_a_registry_with_wrong_types_is_damaged(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path))
    row = {"name": "m", "paths": ["/m.gguf"], "origin": "made", "repo": None, "revision": None, "written": None}
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"models": [row]}))
    assert list(known()) == ["m"]
    wrong: list[object] = [5, True, [], {}, "", [None], [""], "a\0b", ["a\0b"], float("inf")]
    for value in wrong:
        if (key, value) == ("written", []):
            continue
        file.write_text(json.dumps({"models": [row | {key: value}]}))
        with pytest.raises(WsdError, match="is damaged"):
            known()


# -- fit ----------------------------------------------------------------------------------------------------------


def test_fit_shows_a_plan_before_anything_is_fetched() -> None:
    done = wsd("fit", "edge")
    assert done.returncode == 0 and "estimated from the catalog" in done.stderr.decode()
    assert "Memory by part" in done.stdout.decode()
    told = json.loads(wsd("fit", "--json").stdout)
    assert told["models"]["base"]["ctx"] == 2048 and told["given_up"] == []


def test_what_does_not_fit_ends_with_the_shortfall() -> None:
    done = wsd("fit", "paper", "--ctx", "2000000")
    complains(type(done)(done.args, done.returncode, done.stdout, done.stderr.splitlines()[-1]), 4, "GiB are missing")
    complains(wsd("run", "hi", "--ctx", "2000000000"), 4, "GiB are missing")
    complains(wsd("fit", "demmo"), 2, "did you mean 'demo'?")


# -- doctor -------------------------------------------------------------------------------------------------------


def test_doctor_tells_what_a_bug_report_needs(tmp_path: Path) -> None:
    done = wsd("doctor")
    text = done.stdout.decode()
    assert done.returncode == 0 and done.stderr == b""
    for words in (
        "wsd-local ",
        "Python 3",
        "llama-cpp-python",
        "back ends: CPU",
        "memory: ",
        "demo-base",
        "Paris",
        "none found",
    ):
        assert words in text
    assert str(tmp_path / "home") not in text, "the home folder is written as ~"
    assert set(json.loads(wsd("doctor", "--json").stdout)["facts"]) > {"versions", "self-test"}


def test_doctor_reports_what_is_wrong_and_goes_on(tmp_path: Path) -> None:
    remember(Known("gone", (tmp_path / "none.gguf",), "imported"))
    done = wsd("doctor")
    assert done.returncode == 1 and "model gone" in done.stdout.decode() and "Paris" in done.stdout.decode()
    (tmp_path / "data" / "models.json").write_text("{")
    assert "models.json" in wsd("doctor").stdout.decode()


def test_the_command_that_brings_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reinstall_command(can_offload=False, sees_device=False, kind=None) is None
    assert reinstall_command(can_offload=True, sees_device=True, kind="cuda") is None
    command = reinstall_command(can_offload=False, sees_device=False, kind="cuda")
    assert command is not None
    assert (
        'CMAKE_ARGS="-DGGML_RPC=on -DGGML_CUDA=on"' in command
        and "--force-reinstall" in command
        and "llama-cpp-python==" in command
    )
    metal = reinstall_command(can_offload=False, sees_device=False, kind="metal")
    assert metal is not None and "GGML_METAL=on" in metal


def test_a_gpu_is_seen_without_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: Simulated'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpu_here() == "cuda"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_here() != "cuda"


def test_a_file_whose_bytes_are_known_is_not_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes((demo_dir() / "draft-q8_0.gguf").read_bytes())
    assert "catalog   " in wsd("models", "show", str(path)).stdout.decode()
    entry = replace(catalog_models()["gemma-3-270m"], size=path.stat().st_size, sha256=file_sha256(path))
    monkeypatch.setattr("wsd_local.library.known_bytes.catalog_models", lambda: {entry.name: entry})
    shown = wsd("models", "show", str(path)).stdout.decode()
    assert "the bytes are those of gemma-3-270m" in shown and "catalog   " not in shown


def test_a_pair_that_is_not_here_is_fetched_with_one_command() -> None:
    complains(wsd("run", "hi", "--pair", "laptop"), 3, "the pair laptop is not on this machine", "models pull laptop (")
    one = wsd("run", "hi", "--pair", "laptop", "--draft", "demo-draft")
    complains(one, 3, "llama-3.1-8b is not on this machine", "models pull llama-3.1-8b")
    complains(wsd("run", "hi", "--pair", "paper"), 3, "models convert songff/Pilot-3B --as pilot-3b")
