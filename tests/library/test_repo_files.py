"""Which files of a repository are meant, told from their names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsd_local.errors import ModelError, UsageError
from wsd_local.library.catalog import catalog_models
from wsd_local.library.registry import Known
from wsd_local.library.repo_files import (
    checked_repository,
    checkpoint_files,
    choose,
    is_safe,
    models_in,
    name_for,
    names_repository,
)

REPO = "owner/Name-GGUF"
MANY = ["m.Q2_K.gguf", "m.Q4_K_S.gguf", "m.Q4_K_M.gguf", "m.Q8_0.gguf", "m.f16.gguf"]


@pytest.mark.parametrize(
    ("paths", "wanted", "files"),
    [
        (["x.gguf", "README.md"], None, ["x.gguf"]),
        (["x-F16.gguf", "mmproj-x-F16.gguf", "x.imatrix.gguf", "imatrix_a.gguf"], None, ["x-F16.gguf"]),
        (MANY, None, ["m.Q4_K_M.gguf"]),
        (["a-Q8_0.gguf", "a-Q4_0.gguf"], None, ["a-Q4_0.gguf"]),
        (["a-Q8_0.gguf", "a-BF16.gguf"], None, ["a-Q8_0.gguf"]),
        (MANY, "q8_0", ["m.Q8_0.gguf"]),
        (MANY, "F16", ["m.f16.gguf"]),
        (MANY, "m.Q2_K.gguf", ["m.Q2_K.gguf"]),
        (["d/m-Q8_0.gguf", "d/m-Q4_0.gguf"], "m-Q4_0.gguf", ["d/m-Q4_0.gguf"]),
        (["m-UD-Q4_K_XL.gguf", "m-Q4_K_M.gguf"], "Q4_K_XL", ["m-UD-Q4_K_XL.gguf"]),
        (["m.i1-IQ3_XXS.gguf", "m.i1-Q4_K_M.gguf"], "IQ3_XXS", ["m.i1-IQ3_XXS.gguf"]),
        (
            ["Q8_0/m-Q8_0-00002-of-00002.gguf", "Q8_0/m-Q8_0-00001-of-00002.gguf", "m-Q2_K.gguf"],
            "Q8_0",
            ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"],
        ),
        (["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"], "m-00002-of-00002.gguf", None),
    ],
)
def test_the_model_that_is_meant(paths: list[str], wanted: str | None, files: list[str] | None) -> None:
    assert choose(REPO, paths, wanted).files == tuple(files or paths)


def test_the_catalogs_choice_goes_before_the_usual_one() -> None:
    repo = "QuantFactory/Llama-3.2-3B-GGUF"
    ours = next(str(entry.file) for entry in catalog_models().values() if entry.repo == repo)
    assert choose(repo, [ours, "a.Q4_K_M.gguf", "b.Q8_0.gguf"]).files == (ours,)


@pytest.mark.parametrize(
    ("paths", "wanted", "said"),
    [
        (MANY, "Q8", "has no 'Q8'; it has Q8_0, "),
        (["a-F16.gguf", "a-BF16.gguf"], None, "several models; name one.* BF16, F16"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], None, "a-Q4_K_M.gguf, b-Q4_K_M.gguf"),
        (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], "Q4_K_M", "could be a-Q4_K_M.gguf, b-Q4_K_M.gguf"),
        (["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"], None, "3 parts, and some are not there"),
        (["m.Q8_0.gguf.part1of2", "m.Q8_0.gguf.part2of2"], None, "pieces"),
        (["m.Q8_0.gguf.part1of2", "m.Q8_0.gguf.part2of2", "m.Q2_K.gguf"], "Q8_0", "pieces .* another: Q2_K"),
        (["m.Q8_0.gguf.part1of2", "m.Q2_K.gguf"], "m.Q8_0.gguf.part1of2", "pieces"),
        (["model.safetensors", "config.json"], None, f"wsd-local models convert {REPO}"),
        (["README.md"], "Q4_K_M", "holds no GGUF file"),
        (["mmproj-F16.gguf", "a-Q4_0.gguf"], "mmproj-F16.gguf", "it has Q4_0"),
    ],
)
def test_nothing_that_could_be_meant(paths: list[str], wanted: str | None, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        choose(REPO, paths, wanted)


def test_pieces_of_one_quantisation_do_not_hinder_another() -> None:
    assert choose(REPO, ["m.Q8_0.gguf.part1of2", "m.Q4_K_M.gguf"]).files == ("m.Q4_K_M.gguf",)


def test_a_long_list_is_cut() -> None:
    with pytest.raises(ModelError, match="and 25 more"):
        choose(REPO, [f"m{i}.gguf" for i in range(40)])
    assert len(models_in([f"m{i}.gguf" for i in range(40)])) == 40


# -- checkpoints ---------------------------------------------------------------------------------------------

DESCRIBED = ["config.json", "chat_template.jinja", "tokenizer.json", "tokenizer.model", "merges.txt"]
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
OTHERS = ["own.py", "tokenizer_own.py", "README.md", "consolidated.safetensors", "original/model.safetensors", "x.pth"]


def test_of_a_checkpoint_only_what_the_converter_reads() -> None:
    found = checkpoint_files(REPO, [*OTHERS, *SHARDS, "pytorch_model.bin", *DESCRIBED])
    assert found == (*DESCRIBED, *SHARDS)
    found = checkpoint_files(REPO, [*OTHERS, *DESCRIBED, "pytorch_model.bin", "training_args.bin"])
    assert found == (*DESCRIBED, "pytorch_model.bin")


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["model-Q4_K_M.gguf", "config.json"],
        SHARDS,
        [*OTHERS, "config.json"],
        ["a/config.json", "model.safetensors"],
    ],
)
def test_a_repository_without_a_checkpoint(paths: list[str]) -> None:
    with pytest.raises(ModelError, match=f"{REPO}: holds no checkpoint: .*models pull"):
        checkpoint_files(REPO, paths)


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("songff/Pilot-3B", True),
        ("a/b/c", False),
        ("./a/b", False),
        ("/a/b", False),
        ("~/b", False),
        ("name", False),
        ("a/..", False),
        ("a b/c", False),
    ],
)
def test_names_of_repositories_are_distinguished_from_paths(text: str, meant: bool) -> None:
    assert names_repository(text) == meant
    if meant:
        assert checked_repository(text) == text
    else:
        with pytest.raises(UsageError, match="OWNER/NAME"):
            checked_repository(text)


@pytest.mark.parametrize(("path", "safe"), [("a/b.gguf", True), ("a/../b", False), ("/b", False), ("C:/b", False)])
def test_a_path_that_leaves_the_repository(path: str, safe: bool) -> None:
    assert is_safe(path) == safe


def test_a_name_that_nothing_else_has() -> None:
    (model,) = models_in(["Q4/Some Model-Q4_K_M.gguf"])
    path = (Path("Some Model-Q4_K_M.gguf"),)
    assert name_for(REPO, model, {}) == "some-model-q4_k_m"
    here = {"some-model-q4_k_m": Known("some-model-q4_k_m", path, "pulled", "other/Name")}
    assert name_for(REPO, model, here) == "some-model-q4_k_m-owner"
    here["some-model-q4_k_m-owner"] = Known("some-model-q4_k_m-owner", path, "pulled", REPO)
    assert name_for(REPO, model, here) == "some-model-q4_k_m-owner"
    here["some-model-q4_k_m-owner"] = Known("some-model-q4_k_m-owner", path, "imported")
    assert name_for(REPO, model, here) == "some-model-q4_k_m-owner-2"
