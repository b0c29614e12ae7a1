"""What the models are given to read."""

from __future__ import annotations

from datetime import datetime

import pytest

from wsd_local.conversation import trimmed, turns
from wsd_local.errors import ModelError, UsageError
from wsd_local.prompts import BaseFormat, DraftFormat, Message, conversation


class Template:
    """A draft model that is only its template; tokens are the characters behind the control token `<s>` = 1."""

    def __init__(self, template: str | None) -> None:
        self.chat_template = template

    def mask_controls(self, text: str, mask: str) -> str:
        return text.replace("<s>", "<" + mask + "s>")

    def tokenize_template(self, text: str, mask: str) -> list[int]:
        parts = text.split("<s>")
        tokens = [ord(c) for c in parts[0].replace(mask, "")]
        for part in parts[1:]:
            tokens += [1, *(ord(c) for c in part.replace(mask, ""))]
        return tokens

    def special_spelling(self, name: str) -> str:
        return "<s>"


SIMPLE = "{% for m in messages %}{{ bos_token }}{{ m.role }}:{{ m.content | trim }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ bos_token }}assistant:{% endif %}"
)


def shown(tokens: list[int]) -> str:
    return "".join("␂" if token == 1 else chr(token) for token in tokens)


def test_the_base_reads_sections_with_stripped_text() -> None:
    messages = conversation([{"role": "user", "content": "  hi\n"}], system=" Be kind. ")
    assert BaseFormat().prompt(messages) == "\n\n[System]\nBe kind.\n\n[User]\nhi\n\n[Assistant]\n"


def test_a_supplied_beginning_is_never_rewritten() -> None:
    messages = conversation([{"role": "user", "content": "hi"}, {"role": "assistant", "content": " So \n"}])
    assert BaseFormat().prompt(messages).endswith("\n\n[Assistant]\n So \n")
    assert shown(DraftFormat(Template(SIMPLE)).tokens(messages)) == "␂user:hi␂assistant: So \n"


def test_the_bases_stop_strings() -> None:
    assert set(BaseFormat().stops) == {
        lead + name for name in ("[User]", "[System]", "[Assistant]") for lead in ("", "\n", "\n\n")
    }


def test_control_tokens_come_from_the_template_only() -> None:
    tokens = DraftFormat(Template(SIMPLE)).tokens(conversation("a <s>system b"))
    assert shown(tokens) == "␂user:a <s>system b␂assistant:"


def test_the_mask_is_a_character_that_no_message_uses() -> None:
    text = "\ufdd0 <s> \ufdd1"
    assert shown(DraftFormat(Template(SIMPLE)).tokens(conversation(text))) == f"␂user:{text}␂assistant:"


def test_the_date_is_injected_and_recorded() -> None:
    form = DraftFormat(Template("{{ strftime_now('%d %b %Y') }}"), clock=lambda: datetime(2020, 2, 3))
    assert shown(form.tokens(conversation("hi"))) == "03 Feb 2020"
    assert form.inserted_date == "03 Feb 2020"


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(ModelError, match="line 2"):
        DraftFormat(Template("fine\n{% if %}"))


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no system') }}", "{{ messages.__class__.__mro__ }}", "{{ undefined_thing.x }}", "{{ 1/0 }}"],
)
def test_a_template_that_refuses_or_attacks_is_an_error_of_one_line(template: str) -> None:
    with pytest.raises(ModelError, match="chat template") as caught:
        DraftFormat(Template(template)).tokens(conversation("hi"))
    assert "\n" not in str(caught.value)


def test_without_a_template_the_draft_reads_sections() -> None:
    assert shown(DraftFormat(Template(None)).tokens(conversation("hi"))) == "\n\n[User]\nhi\n\n[Assistant]\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ([], "empty"),
        ([{"role": "wizard", "content": "x"}], "message 1 has the role 'wizard'"),
        ([{"role": "user", "content": 3}], "no text"),
        (["hi"], "not an object"),
        ("broken \udcff argument", "not valid Unicode at character 7"),
        ([{"role": "system", "content": "x"}], "no user message"),
    ],
)
def test_conversations_that_cannot_be_meant(given: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        conversation(given)  # type: ignore[arg-type]


def test_two_system_messages_are_refused() -> None:
    with pytest.raises(UsageError, match="twice"):
        conversation([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], system="c")


def talk(*roles: str) -> list[Message]:
    return [{"role": role, "content": f"{role} {i}"} for i, role in enumerate(roles)]  # type: ignore[typeddict-item]


def test_turns_go_whole_oldest_first() -> None:
    messages = talk("system", "user", "assistant", "user", "assistant", "user")
    assert [len(turn) for turn in turns(messages)] == [2, 2, 1]
    for room in range(1, 7):
        kept, dropped = trimmed(messages, lambda trial, room=room: len(trial) <= room)  # type: ignore[misc]
        assert kept[0]["role"] == "system"
        assert kept[-1] == messages[-1]
        assert len(kept) == {6: 6, 5: 4, 4: 4}.get(room, 2)
        assert dropped == {6: 0, 5: 1, 4: 1}.get(room, 2)
