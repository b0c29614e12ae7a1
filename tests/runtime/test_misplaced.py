"""Models in each other's place: what is noticed, and what is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from wsd_local.events import Notice
from wsd_local.runtime.misplaced import misplaced
from wsd_local.runtime.pair import load


@dataclass
class Stub:
    """A model by its file's name and its template."""

    path: Path
    chat_template: str | None = None

    def metadata(self, key: str) -> str | None:
        return None


def model(name: str, template: str | None = None) -> Stub:
    return Stub(Path(f"{name}.gguf"), template)


TUNED = model("Qwen2.5-Coder-1.5B-Instruct-Q4_K_M", "{{ messages }}")


def test_a_pair_in_order_is_not_remarked_on() -> None:
    assert misplaced(TUNED, model("gemma-3-270m-q4_k_m")) == ()


def test_swapped_models_are_one_notice() -> None:
    (notice,) = misplaced(model("gemma-3-270m"), TUNED)
    assert "exchange --draft and --base" in notice and "gemma-3-270m" in notice and "Instruct" in notice


def test_a_draft_without_template() -> None:
    (notice,) = misplaced(model("gemma-3-270m"), model("Llama-3-70B"))
    assert "gemma-3-270m has no chat template" in notice and "--draft" in notice


@pytest.mark.parametrize("name", ["gemma-3-1b-it", "Llama-3.1-8B-Instruct", "mistral_chat", "x.SFT.Q8_0"])
def test_an_instruct_model_as_base(name: str) -> None:
    (notice,) = misplaced(TUNED, model(name, "{{ messages }}"))
    assert "is an instruct model by its name" in notice and "--base" in notice


@pytest.mark.parametrize("name", ["Qwen3-8B-Base", "gemma-2-27b", "Bitnet-2B", "Llama-3-70B-Italian", "orchestra"])
def test_a_plain_base_with_a_template_is_none(name: str) -> None:
    assert misplaced(TUNED, model(name, "{{ messages }}")) == ()


def test_a_notice_comes_once(demo_q8: tuple[Path, Path]) -> None:
    draft, base = demo_q8
    with load(draft=base, base=draft, threads=1, max_tokens=8) as pair:
        first, second = ([event for event in pair.stream("Hi") if isinstance(event, Notice)] for _ in range(2))
    assert len([notice for notice in first if "chat template" in notice.message]) == 1
    assert not [notice for notice in second if "chat template" in notice.message]
