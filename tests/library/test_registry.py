"""What a model may be called here."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsd_local.errors import UsageError
from wsd_local.library.registry import Known, remember
from wsd_local.library.resolve import checked_name


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a registry of its own."""
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path))


@pytest.mark.parametrize("name", ["a", "7b", "Name.Q4_K_M", "a+b", "a-b_c.d", "gguf"])
def test_names(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\\b", "x.gguf", "x.GGUF", "-x", ".x", "_x", "a b", "modèle", "a\n", "a:b"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be a model's name: give --as letters"):
        checked_name(name, replace=True)


@pytest.mark.parametrize("name", ["laptop", "llama-3-70b", "demo-base"])
def test_names_of_the_catalog(name: str) -> None:
    for repo in (None, "owner/Name", "QuantFactory/Meta-Llama-3-70B-GGUF"):
        with pytest.raises(UsageError, match="the catalog has something named"):
            checked_name(name, repo, replace=True)


def test_the_checkpoint_that_the_catalog_means_may_have_its_name() -> None:
    assert checked_name("pilot-3b", "songff/Pilot-3B") == "pilot-3b"
    assert checked_name("pilot-3b", replace=True) == "pilot-3b", "made of a folder"
    with pytest.raises(UsageError, match="the catalog has something named"):
        checked_name("pilot-3b", "owner/Name")


def test_a_name_that_another_model_has(tmp_path: Path) -> None:
    for origin in ("pulled", "imported", "made"):
        remember(Known(origin, (tmp_path / "a.gguf",), origin, "owner/Name"))
        assert checked_name(origin, replace=True) == origin
        for repo in (None, "other/Name"):
            with pytest.raises(UsageError, match=rf"there is a model '{origin}' already \(.*a\.gguf\).*--as"):
                checked_name(origin, repo)
    assert checked_name("pulled", "owner/Name") == "pulled"
    for origin in ("imported", "made"):
        with pytest.raises(UsageError):
            checked_name(origin, "owner/Name")
