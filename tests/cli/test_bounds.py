"""Numbers that nobody can mean: refused in one line, and what is accepted works."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from wsd_local.core.resources import MOST_THREADS
from wsd_local.core.rule_settings import by_itself
from wsd_local.errors import UsageError
from wsd_local.fields import spelled
from wsd_local.library.quantize import quantize
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings, ReplySettings, changed

HUGE = (2**31, 2**32, 2**63 - 1, 10**20)
NO_NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308)


def of_kind(kind: type) -> list[tuple[Any, str]]:
    """Settings that are numbers of a kind, with the values that they belong to."""
    found = []
    for values in (ReplySettings(), LoadSettings()):
        hints = get_type_hints(type(values))
        for field in fields(values):
            if kind in (get_args(hints[field.name]) or (hints[field.name],)):
                found.append((values, field.name))
    return found


@pytest.mark.parametrize(("values", "name"), of_kind(int), ids=lambda part: part if isinstance(part, str) else "")
@pytest.mark.parametrize("number", HUGE)
def test_no_count_is_without_an_upper_bound(values: Any, name: str, number: int) -> None:
    if name.endswith("seed") and number < 2**32 - 1:
        assert getattr(changed(values, {name: number}), name) == number
        return
    with pytest.raises(UsageError, match=name.replace("_", "-")) as error:
        changed(values, {name: number})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("values", "name"), of_kind(float), ids=lambda part: part if isinstance(part, str) else "")
@pytest.mark.parametrize("number", NO_NUMBERS)
def test_no_amount_is_without_bounds(values: Any, name: str, number: float) -> None:
    if name == "threshold" and number > 1:  # never, which is legal
        assert changed(values, {name: number}).threshold == number
        return
    with pytest.raises(UsageError, match=spelled(name)):
        changed(values, by_itself(name, number))


@pytest.mark.parametrize("name", ["n_gpu_layers", "draft_n_gpu_layers", "base_n_gpu_layers"])
def test_layers_are_minus_one_or_more(name: str) -> None:
    assert changed(LoadSettings(), {name: -1})
    with pytest.raises(UsageError, match="gpu-layers is -2: it must be -1"):
        changed(LoadSettings(), {name: -2})


@pytest.mark.parametrize("number", [0, -1, MOST_THREADS + 1, 100_000, 2**31 - 1, 2**63])
def test_threads_are_what_llama_can_take(number: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads"):
        LoadSettings(threads=number)
    with pytest.raises(UsageError, match="threads"):
        quantize(tmp_path / "model.gguf", tmp_path / "made.gguf", "Q4_0", threads=number)


@pytest.fixture(scope="module")
def pair(demo_q8: tuple[Path, Path]) -> Iterator[Pair]:
    with Pair(draft=demo_q8[0], base=demo_q8[1], loading=LoadSettings(threads=1)) as pair:
        yield pair


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 1000.0},
        {"temperature": 1e-320},
        {"temperature": 1.0, "top_k": 2**31 - 1},
        {"temperature": 1.0, "top_p": 0.0, "min_p": 1.0},
        {"repeat_penalty": 1000.0, "repeat_last_n": 1 << 20},
        {"repeat_penalty": 0.001},
        {"frequency_penalty": 1000.0, "presence_penalty": -1000.0},
        {"draft_max_tokens": 2**31 - 1, "check_chunk": 2**31 - 1},
        {"threshold": math.inf},
    ],
    ids=str,
)
def test_the_largest_that_is_accepted_works(pair: Pair, settings: dict[str, Any]) -> None:
    reply = pair.reply("Hello!", max_tokens=12, seed=1, **settings)
    assert reply.finish_reason in ("stop", "length")


def test_a_setting_of_loading_is_no_setting_of_one_reply(pair: Pair) -> None:
    with pytest.raises(UsageError, match="ctx is a setting of loading: it cannot be given for one reply"):
        pair.reply("Hello!", ctx=512)
