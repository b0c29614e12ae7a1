"""What the models read for one reply: rendered and tokenised once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from exactness import exact_pair

import wsd_local as wsd
from wsd_local.datasets.batch import Batch
from wsd_local.datasets.items import DataSet, Item
from wsd_local.errors import FitError
from wsd_local.llama import Model
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.messages import conversation, turns
from wsd_local.prompts.templates import Template
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.prepare import ROOM_FOR_LATER, prepare
from wsd_local.settings import LoadSettings, ReplySettings

EGG = "How do I boil an egg?"
ONCE = {"template": 1, "draft tokens": 1, "base prompt": 1, "base tokens": 1}


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[wsd.Pair]:
    with exact_pair(demo_f32) as pair:
        pair.models.load()
        pair.reply(EGG, max_tokens=8)
        yield pair


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often prompts are rendered, and tokenised whole."""
    counts: Counter[str] = Counter()
    prompts: set[str] = set()

    def counting(owner: type, name: str, what: str, counts_it: Callable[..., bool] = lambda *_: True) -> None:
        real = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            counts[what] += counts_it(*arguments)
            found = real(*arguments, **named)
            if owner is BaseFormat:
                prompts.add(found)
            return found

        monkeypatch.setattr(owner, name, counted)

    counting(Template, "render", "template")
    counting(Model, "tokenize_template", "draft tokens")
    counting(BaseFormat, "prompt", "base prompt")
    counting(Model, "tokenize", "base tokens", lambda model, text: text in prompts)
    return counts


def test_a_plain_reply_renders_and_tokenises_its_prompts_once(pair: wsd.Pair, work: Counter[str]) -> None:
    reply = pair.reply(EGG, max_tokens=30)
    assert reply.draft.tokens and reply.base.tokens
    assert work == ONCE


def test_so_does_the_second_turn_of_a_session(pair: wsd.Pair, work: Counter[str]) -> None:
    chat = pair.session("Be kind.")
    chat.send(EGG, max_tokens=30)
    work.clear()
    chat.send("And how do I fry one?", max_tokens=30)
    assert work == ONCE


class Kept(dict[tuple[int, int], str]):
    """Replies of a data set, in memory."""

    @property
    def done(self) -> Mapping[tuple[int, int], str]:
        return self

    def append(self, key: tuple[int, int], values: Mapping[str, Any]) -> None:
        self[key] = values["text"]


def test_so_does_a_record_of_a_data_set(pair: wsd.Pair, work: Counter[str]) -> None:
    item = Item(0, "0", 1, conversation(EGG), (), {"prompt": EGG})
    kept = Kept()
    assert list(Batch(pair, DataSet(Path("data"), "jsonl", "", [item], []), kept).outcomes())
    assert kept[0, 0] and work == ONCE


@pytest.mark.parametrize(
    ("mode", "expected"), [("draft", ("template", "draft tokens")), ("base", ("base prompt", "base tokens"))]
)
def test_a_model_that_takes_no_part_reads_nothing(
    pair: wsd.Pair, work: Counter[str], mode: str, expected: tuple[str, ...]
) -> None:
    pair.reply(EGG, mode=mode, max_tokens=10)
    assert +work == dict.fromkeys(expected, 1)


def test_a_prompt_is_what_the_reply_says_it_was(pair: wsd.Pair) -> None:
    found = prepare(pair.models, conversation(EGG), pair.settings)
    assert found.ids() == pair.reply(EGG, max_tokens=8).prompt_ids
    assert found.prompts["base"].text == pair.models.base_format.prompt(conversation(EGG))
    assert (found.left_out, list(found.messages)) == (0, conversation(EGG))


def test_turns_are_left_out_until_the_prompt_fits(demo_f32: tuple[Path, Path]) -> None:
    messages: list[dict[str, str]] = []
    for _ in range(20):
        messages += [{"role": "user", "content": "word " * 20}, {"role": "assistant", "content": "word " * 20}]
    asked = conversation([*messages, {"role": "user", "content": EGG}])
    settings = ReplySettings()
    with LoadedModels(*demo_f32, LoadSettings(threads=1, ctx=512)) as models, models.ready("wsd"):
        few = prepare(models, asked, settings)
        many = prepare(models, asked, settings, left_out=1)
        with pytest.raises(FitError, match="the prompt is too long"):
            prepare(models, conversation("word " * 2000), settings)
    assert 0 < few.left_out < many.left_out < len(turns(asked))
    assert list(few.messages) == asked[2 * few.left_out :]
    assert max(len(tokens) for tokens in many.ids().values()) <= 512 * ROOM_FOR_LATER
