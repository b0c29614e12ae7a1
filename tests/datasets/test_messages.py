"""What records and lists of messages say: every field of them is read, refused or named."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_templates import SIMPLE, Template, shown

from wsd_local.datasets import read, record_of
from wsd_local.errors import UsageError
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.messages import Message, conversation, merged

TAKES_TURNS = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}"
    "{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}"
)


def said(*texts: str) -> list[Message]:
    """Texts of the user (a capital first letter) and of the assistant, as messages."""
    return [{"role": "user" if text[0].isupper() else "assistant", "content": text} for text in texts]


def read_all(tmp_path: Path, *records: dict[str, Any], name: str = "a.json") -> Any:
    """A data set of records."""
    (tmp_path / name).write_text(json.dumps(list(records)), encoding="utf-8")
    return read(tmp_path / name)


# -- neighbours of one role --------------------------------------------------------------------------------------


def test_a_template_that_takes_turns_reads_two_questions_in_a_row() -> None:
    messages = said("One", "Two", "three", "four", "Five")
    text = shown(DraftFormat(Template(TAKES_TURNS)).prompt(messages))
    assert text == "<user>One\n\nTwo<assistant>three\n\nfour<user>Five"
    assert BaseFormat().prompt(messages) == (
        "\n\n[User]\nOne\n\nTwo\n\n[Assistant]\nthree\n\nfour\n\n[User]\nFive\n\n[Assistant]\n"
    )


def test_a_template_that_refuses_system_messages_reads_what_they_part_as_one() -> None:
    messages: list[Message] = [*said("One"), {"role": "system", "content": "Be kind."}, *said("Two")]
    refuses = "{% for m in messages if m.role == 'system' %}{{ raise_exception('no') }}{% endfor %}" + TAKES_TURNS
    text = shown(DraftFormat(Template(refuses)).prompt(messages))
    assert text == "<user>Be kind.\n\nOne\n\nTwo"


def test_a_supplied_beginning_is_no_neighbour() -> None:
    messages = said("One", "two", " three")
    messages[-1]["role"] = "assistant"
    assert BaseFormat().prompt(messages).endswith("[Assistant]\ntwo\n\n[Assistant]\n three")
    assert shown(DraftFormat(Template(SIMPLE)).prompt(messages)).endswith("assistant:two␂assistant: three")


@given(st.lists(st.sampled_from(["One", "Two", "three", "four"])))
def test_merging_keeps_every_word_and_parts_roles(texts: list[str]) -> None:
    found = merged(said(*texts))
    assert all(one["role"] != other["role"] for one, other in pairwise(found))
    assert " ".join(message["content"] for message in found).split() == texts
    assert merged(found) == found


# -- messages ------------------------------------------------------------------------------------------------------


def test_content_in_parts_and_the_role_of_developers() -> None:
    messages = conversation(
        [
            {"role": "developer", "content": "Be kind."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "One"},
                    {"type": "text", "text": "two"},
                    {"type": "input_text", "text": "x"},
                ],
            },
        ]
    )
    assert messages == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "One\ntwo\nx"}]
    with pytest.raises(UsageError, match="given twice"):
        conversation([{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}], "c")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            {"role": "tool", "content": "x", "tool_call_id": "1"},
            "message 2 has the role 'tool': tools are not supported",
        ),
        ({"role": "function", "content": "x"}, "message 2 has the role 'function': tools are not supported"),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            "message 2 has calls of tools: tools are",
        ),
        ({"role": "assistant", "content": None}, r"message 2 \(assistant\) has no text in `content`"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, "a part of the type 'image_url'"),
        ({"role": "user", "content": [{"type": "text"}]}, "no text in `content`"),
        ({"role": "user", "content": ["a"]}, "no text in `content`"),
        ({"role": "user", "content": []}, "no text in `content`"),
        ({"role": "user", "content": [{"text": "\ud800"}]}, "not valid Unicode at character 0"),
        ({"role": "user", "content": "b\0"}, r"message 2 \(user\) holds a NUL character at 1"),
    ],
)
def test_what_is_not_read_is_refused_by_name(message: dict[str, Any], reason: str, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a"}, message, {"role": "user", "content": "b"}]
    with pytest.raises(UsageError, match=reason):
        conversation(messages)
    if "Unicode" not in reason:
        data = read_all(tmp_path, {"messages": messages}, {"messages": messages[:1]})
        assert len(data.items) == 1 and len(data.bad) == 1


def test_a_system_message_that_is_no_unicode() -> None:
    with pytest.raises(UsageError, match="the system message is not valid Unicode"):
        conversation("a", "b\udcff")
    with pytest.raises(UsageError, match="the system message holds a NUL character at 0"):
        conversation("a", "\0b")


def test_a_nul_that_a_model_wrote_ends_no_conversation() -> None:
    wrote = {"role": "assistant", "content": "b\0"}
    assert conversation([{"role": "user", "content": "a"}, wrote, {"role": "user", "content": "c"}])[1] == wrote


def test_fields_of_messages_that_are_not_used_are_counted() -> None:
    named = {
        "role": "user",
        "content": [{"type": "text", "text": "a", "cache_control": 1}],
        "name": "x",
        "weight": None,
    }
    unused = Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert conversation([named, named], unused=unused) == said("a", "a") or True
        conversation([{"role": "user", "content": "a", "weight": None, "tool_calls": []}])
    assert unused == {"name": 2, "content.cache_control": 2}
    with pytest.warns(
        UserWarning, match=r"fields of messages are not used: `content\.cache_control` \(1\), `name` \(1\)"
    ):
        conversation([named])


# -- records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["alpaca_eval", "csv"])
def test_alpacas_fields(format: str) -> None:
    record = {
        "instruction": "Translate to French. ",
        "input": "Good morning",
        "system": "Be brief.",
        "output": "Bonjour",
    }
    item = record_of(format, 0, 1, record, "unused here")
    assert item.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Translate to French.\n\nGood morning"},
    ]
    assert item.unused == ("output",)
    bare = record_of(format, 0, 1, {"instruction": "Hi ", "input": "", "output": ""}, None)
    assert bare.messages == [{"role": "user", "content": "Hi "}] and bare.unused == ()


def test_alpacas_earlier_turns() -> None:
    record = {"instruction": "And then?", "input": None, "history": [["One", "two"], ["Three", "four"]]}
    assert record_of("alpaca_eval", 0, 1, record, None).messages == said("One", "two", "Three", "four", "And then?")
    for history in ("x", [["One"]], [["One", 2]], [3]):
        with pytest.raises(ValueError, match="history"):
            record_of("alpaca_eval", 0, 1, {"instruction": "a", "history": history}, None)


@pytest.mark.parametrize(
    ("turns", "messages", "later"),
    [
        (["One", "Two"], said("One"), ("Two",)),
        ([{"content": "One"}, {"content": "Two"}], said("One"), ("Two",)),
        ([{"role": "user", "content": "One"}, {"role": "user", "content": [{"text": "Two"}]}], said("One"), ("Two",)),
        (
            [{"role": "system", "content": "S"}, {"role": "user", "content": "One"}, {"content": "Two"}],
            [{"role": "system", "content": "S"}, *said("One")],
            ("Two",),
        ),
        (
            [{"role": "user", "content": "One"}, {"role": "assistant", "content": "two"}, "Three"],
            said("One", "two", "Three"),
            (),
        ),
        ([{"role": "user", "content": "One"}, {"role": "assistant", "content": "two"}], said("One", "two"), ()),
    ],
)
def test_turns_with_and_without_roles(turns: list[Any], messages: list[Message], later: tuple[str, ...]) -> None:
    item = record_of("mt_bench", 0, 1, {"turns": turns}, None)
    assert (item.messages, item.later) == (messages, later)


def test_turns_of_unknown_roles_are_refused() -> None:
    with pytest.raises(ValueError, match="the role 'tool'"):
        record_of(
            "arena_hard", 0, 1, {"turns": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}, None
        )


def test_what_is_there_twice_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n{"id": 2, "prompt": "c"}\n')
    data = read(tmp_path / "a.jsonl")
    assert ([item.id for item in data.items], data.same_id) == (["0", "1", "2"], 2)
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "prompt": "b"}\n{"prompt": "c"}\n')
    assert [bad.reason for bad in read(tmp_path / "a.jsonl").bad] == [
        "is not JSON (the name 'prompt' is there twice in it)"
    ]
    (tmp_path / "a.json").write_text('[{"prompt": "a", "prompt": "b"}]')
    with pytest.raises(UsageError, match="the name 'prompt' is there twice in it"):
        read(tmp_path / "a.json")


def test_whatever_of_a_record_is_not_used_is_named_with_its_number(tmp_path: Path) -> None:
    data = read_all(
        tmp_path,
        {"id": "x", "prompt": "a", "context": "c", "answer": "", "system": "s"},
        {"id": "y", "prompt": [{"role": "user", "content": "b", "name": "n"}], "context": "d", "tags": []},
    )
    assert data.unused == {"context": 2, "name of messages": 1}
    (tmp_path / "a.csv").write_text("id,System,prompt,note\n1,s,a,n\n2,,b,\n", encoding="utf-8")
    rows = read(tmp_path / "a.csv")
    assert rows.unused == {"note": 1}
    assert [item.messages[0]["role"] for item in rows.items] == ["system", "user"]
    assert read(tmp_path / "a.csv", column="note").unused == {"prompt": 1}
