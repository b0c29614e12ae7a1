"""Which types of quantisation are slow on this CPU: the arithmetic by hand, and one measurement on the real engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import wsd

from wsd_local.errors import ModelError
from wsd_local.library.catalog import catalog_models
from wsd_local.library.gguf import read_model
from wsd_local.paths import cache_dir, demo_dir
from wsd_local.placement import kernels
from wsd_local.placement.footprint import repacking
from wsd_local.placement.kernels import USUAL, SlowType, judged, measured, one_layer, slow_type

AVX2, NEON = frozenset({"AVX2"}), frozenset({"NEON", "DOTPROD"})
COSTS = {"Q4_0": 1.0, "Q4_K": 1.1, "Q8_0": 1.2, "Q4_1": 3.0, "Q6_K": 2.0}


def test_a_type_that_takes_three_times_as_long_is_slow() -> None:
    assert judged({"Q4_1": 1000}, COSTS, repacking(AVX2)) == SlowType("Q4_1", 3.0, "Q4_0", (False, True))
    assert judged({"Q4_0": 1000, "Q8_0": 1000}, COSTS, repacking(AVX2)) is None


def test_a_mix_counts_by_its_numbers() -> None:
    assert judged({"Q4_0": 900, "Q4_1": 100}, COSTS, repacking(AVX2)) is None, "1.2 times"
    mixed = judged({"Q4_0": 500, "Q6_K": 100, "Q4_1": 400}, COSTS, repacking(AVX2))
    assert mixed is not None and mixed.kind == "Q4_1"
    assert mixed.factor == pytest.approx(1.9)


def test_what_llama_cpp_rearranges_is_said_by_its_own_rule() -> None:
    slow = judged({"Q4_1": 1}, COSTS, repacking(AVX2))
    assert slow is not None
    assert slow.sentence() == (
        "Q4_1 is slow on this processor: reading a prompt takes 3.0 times as long as with Q4_0 (measured here, one "
        "thread); llama.cpp rearranges Q4_0 for this processor, and Q4_1 not"
    )
    other = judged({"Q4_1": 1}, COSTS, repacking(frozenset()))
    assert other is not None and "rearranges" not in other.sentence(), "nothing is claimed of other processors"
    faster = {**COSTS, "Q8_0": 0.5}
    on_arm = judged({"Q4_0": 1}, faster, repacking(NEON))
    assert on_arm is not None and on_arm.repacked == (True, True) and "rearranges" not in on_arm.sentence()


def test_types_are_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path))
    found = measured(["Q4_1"])
    assert set(found) == {*USUAL, "Q4_1"} and all(cost > 0 for cost in found.values())
    assert found[USUAL[0]] == 1.0
    (kept,) = json.loads((cache_dir() / "kernels.json").read_text()).values()
    assert kept == found
    monkeypatch.setattr(kernels, "_measure", lambda kinds, repack: pytest.fail("measured again"))
    assert measured(["Q4_1"]) == found
    assert measured([]) == {kind: found[kind] for kind in USUAL}


def test_what_cannot_be_measured_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path))

    def fails(kinds: object, repack: bool) -> dict[str, float]:
        raise ModelError("refused")

    monkeypatch.setattr(kernels, "_measure", fails)
    assert measured(["Q4_1"]) == {}
    assert slow_type(read_model(demo_dir() / "draft-q8_0.gguf")) is None
    with pytest.raises(ValueError, match="there is no type Q9_9"):
        one_layer(tmp_path / "none.gguf", "Q9_9")


def test_commands_name_a_slow_type(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowType("Q8_0", 2.5, "Q4_0", (False, True))
    monkeypatch.setattr(kernels, "slow_type", lambda headers: slow)
    shown = wsd("models", "show", "demo-draft").stdout.decode()
    assert "reading a prompt takes 2.5 times as long as with Q4_0" in " ".join(shown.split())
    assert json.loads(wsd("models", "show", "demo-draft", "--json").stdout)["slow_type"]["factor"] == 2.5
    fits = wsd("fit", "demo")
    assert b"draft: Q8_0 is slow on this processor" in fits.stderr and b"wsd-local tune" in fits.stderr
    assert set(json.loads(wsd("fit", "demo", "--json").stdout)["slow_types"]) == {"draft", "base"}
    assert "demo-base: Q8_0, 3.6M; Q8_0 is slow" in wsd("doctor").stdout.decode()


def test_the_catalog_prefers_types_that_common_processors_have_kernels_for() -> None:
    """The package index has one file of SmolLM2, in Q4_1; `tune` makes another type of it."""
    rearranged = {"Q4_0", "Q4_K_M", "Q4_K_S", "Q8_0", "Q2_K"}
    others = {name for name, entry in catalog_models().items() if entry.quantization not in rearranged}
    assert {name for name in others if catalog_models()[name].file is not None} == {"smollm2-135m-instruct"}
