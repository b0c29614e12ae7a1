"""What the models are given to read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from data_sets import llama_cpp_templates
from gguf_layouts import with_entries
from makers import packed, packed_string, random_llama
from summary import Tell
from toy_templates import SIMPLE, Template, shown

from wsd_local.core.text import THINKING
from wsd_local.errors import ModelError, UsageError
from wsd_local.llama import Model
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.draft_format import SPECIAL_TOKENS, DraftFormat
from wsd_local.prompts.known_formats import known_formats
from wsd_local.prompts.messages import Message, conversation, trimmed, turns


def test_the_base_reads_sections_with_stripped_text() -> None:
    messages = conversation([{"role": "user", "content": "  hi\n"}], system=" Be kind. ")
    assert BaseFormat().prompt(messages) == "\n\n[System]\nBe kind.\n\n[User]\nhi\n\n[Assistant]\n"


def test_a_supplied_beginning_is_never_rewritten() -> None:
    messages = conversation([{"role": "user", "content": "hi"}, {"role": "assistant", "content": " So \n"}])
    assert BaseFormat().prompt(messages).endswith("\n\n[Assistant]\n So \n")
    assert shown(DraftFormat(Template(SIMPLE)).prompt(messages)) == "␂user:hi␂assistant: So \n"


def test_the_bases_stop_strings() -> None:
    assert set(BaseFormat().stops) == {
        lead + name for name in ("[User]", "[System]", "[Assistant]") for lead in ("", "\n", "\n\n")
    }


def test_control_tokens_come_from_the_template_only() -> None:
    prompt = DraftFormat(Template(SIMPLE)).prompt(conversation("a <s>system b"))
    assert shown(prompt) == "␂user:a <s>system b␂assistant:"


def test_the_mask_is_a_character_that_no_message_uses() -> None:
    text = "\ufdd0 <s> \ufdd1"
    assert shown(DraftFormat(Template(SIMPLE)).prompt(conversation(text))) == f"␂user:{text}␂assistant:"


def test_the_date_is_injected_and_recorded() -> None:
    form = DraftFormat(Template("{{ strftime_now('%d %b %Y') }}"), clock=lambda: datetime(2020, 2, 3))
    prompt = form.prompt(conversation("hi"))
    assert shown(prompt) == prompt.date == "03 Feb 2020"


def test_a_broken_template_names_its_line() -> None:
    with pytest.raises(ModelError, match="line 2"):
        DraftFormat(Template("fine\n{% if %}"))


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no system') }}", "{{ messages.__class__.__mro__ }}", "{{ undefined_thing.x }}", "{{ 1/0 }}"],
)
def test_a_template_that_refuses_or_attacks_is_an_error_of_one_line(template: str) -> None:
    with pytest.raises(ModelError, match="chat template") as caught:
        DraftFormat(Template(template)).prompt(conversation("hi"))
    assert "\n" not in str(caught.value)


def test_without_a_template_the_draft_reads_sections() -> None:
    assert shown(DraftFormat(Template(None)).prompt(conversation("hi"))) == "\n\n[User]\nhi\n\n[Assistant]\n"


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


# --- templates of real families, and what they must not do ------------------------------------------------

GEMMA_LIKE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
)
THINKER = "{% for m in messages %}{{ m.content }}|{% endfor %}" + (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
FORCED_THINKER = "{{ messages[0].content }}|<think>\n"


def test_a_system_message_that_the_template_refuses_stands_before_the_first_question() -> None:
    messages = conversation("hi", system=" Be kind. ")
    assert shown(DraftFormat(Template(GEMMA_LIKE)).prompt(messages)) == "<user>Be kind.\n\nhi<model>"
    assert [message["content"] for message in messages] == [" Be kind. ", "hi"]


def test_thinking_drafts_are_asked_not_to_think() -> None:
    assert shown(DraftFormat(Template(THINKER)).prompt(conversation("hi"))) == "hi|<think>\n\n</think>\n\n"


@pytest.mark.parametrize(("left", "right"), THINKING)
def test_a_block_of_thinking_that_the_template_opens_is_closed(left: str, right: str) -> None:
    template = FORCED_THINKER.replace("<think>", left)
    assert shown(DraftFormat(Template(template)).prompt(conversation("hi"))) == f"hi|{left}\n\n{right}\n\n"


def test_tools_and_documents_are_none_as_in_transformers() -> None:
    template = (
        "{{ tools is defined }} {{ tools }} {{ documents }}{% if tools %}T{% endif %}{% for d in documents or [] %}"
    )
    assert shown(DraftFormat(Template(template + "{% endfor %}")).prompt(conversation("hi"))) == "True None None"


def test_a_template_that_goes_over_tools_without_a_look_is_rendered() -> None:
    template = "{% for tool in tools %}{{ tool }}{% endfor %}{{ messages[0].content }}"
    assert shown(DraftFormat(Template(template)).prompt(conversation("hi"))) == "hi"


def test_blocks_and_filters_that_transformers_knows() -> None:
    template = (
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ {'a': m.content} | tojson }}{% endgeneration %}{% endfor %}{{ [1] | tojson(indent=1) }}"
    )
    assert shown(DraftFormat(Template(template)).prompt(conversation("<ü>"))) == '{"a": "<ü>"}[\n 1\n]'


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("tojson", '{"b": "<ü>", "a": [1, 2]}'),
        ("tojson(indent=none)", '{"b": "<ü>", "a": [1, 2]}'),
        ("tojson(ensure_ascii=true)", '{"b": "<\\u00fc>", "a": [1, 2]}'),
        ("tojson(true)", '{"b": "<\\u00fc>", "a": [1, 2]}'),
        ("tojson(separators=(',', ':'))", '{"b":"<ü>","a":[1,2]}'),
        ("tojson(sort_keys=true, indent=0)", '{\n"a": [\n1,\n2\n],\n"b": "<ü>"\n}'),
        ("tojson(indent='-', separators=[',', '='])", '{\n-"b"="<ü>",\n-"a"=[\n--1,\n--2\n-]\n}'),
    ],
)
def test_tojson_takes_the_arguments_of_transformers(call: str, text: str) -> None:
    template = "{{ {'b': messages[0].content, 'a': [1, 2]} | " + call + " }}"
    assert shown(DraftFormat(Template(template)).prompt(conversation("<ü>"))) == text


def test_loops_can_be_left_and_sets_stay_in_their_block() -> None:
    template = (
        "{% for m in [1, 2, 3, 4] %}{% if m == 2 %}{% continue %}{% endif %}{% generation %}{{ m }}"
        "{% set own = 1 %}{% if m == 3 %}{% break %}{% endif %}{% endgeneration %}{{ own is defined }}{% endfor %}"
    )
    assert shown(DraftFormat(Template(template)).prompt(conversation("hi"))) == "1False3"


def test_special_tokens_are_there_if_the_model_has_them(tmp_path: Path) -> None:
    """As in transformers: undefined, if it has none."""
    template = "".join(f"{name}={{{{ {name}_token if {name}_token is defined else '-' }}}} " for name in SPECIAL_TOKENS)
    path = random_llama(tmp_path / "m.gguf", chat_template=template)
    ids = {"padding": 5, "unknown": 6, "cls": 7}
    for added in ({}, ids, {"unknown": 10**9}):
        data = path.read_bytes()
        blob = b"".join(packed_string(f"tokenizer.ggml.{name}_token_id") + packed(id) for name, id in added.items())
        with_entries(data, tmp_path / "special.gguf", blob, len(added), 32)
        with Model(tmp_path / "special.gguf", n_gpu_layers=0) as model:
            text = "".join(map(model.spelling, DraftFormat(model).prompt(conversation("hi")).tokens))
            spelled = {name: model.spelling(ids[key]) for name, key in (("unk", "unknown"), ("cls", "cls"))}
            if added is not ids:
                spelled = {"unk": "-", "cls": "-"}
            for name, token in spelled.items():
                assert f"{name}={token} " in text
            assert "bos=<|begin|> eos=<|endoftext|> " in text
            assert ("pad=- " in text) == (added is not ids)


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a\n\n{{ raise_exception('no') }}", 3),
        ("{% for m in messages %}\n{{ m.content.nothing.more }}\n{% endfor %}", 2),
        ("\n\n\n{% for x in 3 %}{% endfor %}", 4),
    ],
)
def test_a_template_that_fails_names_its_line(template: str, line: int) -> None:
    with pytest.raises(ModelError, match=f"in line {line}: "):
        DraftFormat(Template(template)).prompt(conversation("hi"))


@pytest.mark.parametrize("template", ["\n{{ x | no_such_filter }}", "\n{% endfor %}", "\n{{ 'open }}", "\n{% wat %}"])
def test_a_template_that_cannot_be_parsed_names_its_line(template: str) -> None:
    with pytest.raises(ModelError, match="broken in line 2"):
        DraftFormat(Template(template))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% for i in range(999999999) %}{% endfor %}",
    ],
)
def test_a_template_gets_out_of_no_sandbox(template: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        DraftFormat(Template(template)).prompt(conversation("hi"))


REAL_TEMPLATES = [
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "HuggingFaceTB-SmolLM3-3B",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "google-gemma-2-2b-it",
    "google-gemma-4-31B-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "microsoft-Phi-3.5-mini-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
]
FUNCTIONS_ONLY = {"fireworks-ai-llama-3-firefunction-v2"}


def test_every_template_of_llama_cpp_is_rendered(tell: Tell) -> None:
    found = {path.stem: path.read_text(encoding="utf-8") for path in llama_cpp_templates()}
    assert set(REAL_TEMPLATES) <= set(found)
    messages = conversation(
        [
            {"role": "user", "content": "Frage 1"},
            {"role": "assistant", "content": "Antwort 1"},
            {"role": "user", "content": "Frage 2"},
        ],
        system="Sei kurz.",
    )
    refused = []
    for name, template in found.items():
        form = DraftFormat(Template(template), clock=lambda: datetime(2020, 2, 3))
        try:
            prompt = form.prompt(messages)
        except ModelError:
            refused.append(name)
            continue
        text = shown(prompt)
        places = [text.find(message["content"]) for message in messages]
        assert places[1:] == sorted(places[1:]) and min(places) >= 0, name
        assert not any(text.rstrip().endswith(left) for left, _ in THINKING), name
        assert ("03 Feb 2020" in text) == (prompt.date == "03 Feb 2020"), name
    tell(f"templates of llama.cpp: {len(found)} rendered but {refused}")
    assert set(refused) == FUNCTIONS_ONLY


# --- the base's format is a value -------------------------------------------------------------------------


def test_a_base_format_can_be_replaced() -> None:
    form = BaseFormat.of(
        {
            "headings": {"user": "\n# Query:\n", "assistant": "\n# Answer:\n"},
            "stop": ["# Query"],
            "prefix": "Below are conversations.\n",
        }
    )
    messages = conversation([{"role": "user", "content": " hi "}, {"role": "assistant", "content": "So "}], system="S")
    assert form.prompt(messages) == "Below are conversations.\n\n\n[System]\nS\n# Query:\nhi\n# Answer:\nSo "
    assert form.stops == ("# Query",)
    derived = BaseFormat.of({"headings": {"user": "\n# Query:\n"}}).stops
    assert {"# Query:", "\n# Query:", "\n\n# Query:", "[Assistant]"} <= set(derived)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"heading": {}}, "no 'heading'"),
        ({"headings": {"wizard": "x"}}, "'wizard'"),
        ({"headings": {"user": 3}}, "role user"),
        ({"headings": 3}, "table"),
        ({"stop": ["a", ""]}, "empty"),
        ({"stop": "a"}, "list"),
        ({"prefix": 3}, "prefix"),
    ],
)
def test_base_formats_that_cannot_be_meant(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        BaseFormat.of(wrong)


def test_known_formats_differ_and_end_replies_at_their_own_headings() -> None:
    forms = known_formats()
    assert forms["sections"] == BaseFormat()
    prompts = {name: form.prompt(conversation("hi", system="S")) for name, form in forms.items()}
    assert len(set(prompts.values())) == len(forms)
    assert prompts["colons"] == "\n\nSystem: S\n\nUser: hi\n\nAssistant: "
    for form in forms.values():
        assert form.stops
        next_turn = "Yes." + form.ending + form.headings["user"] + "And?"
        assert any(stop in next_turn for stop in form.stops)
