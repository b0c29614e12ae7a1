"""Preference pairs: the shapes that sets have, what is wrong with records, the split, and the trainers' formats."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.datasets.records import Record
from wsd_local.errors import UsageError
from wsd_local.prompts.messages import Message
from wsd_local.training.columns import Columns, detected_columns
from wsd_local.training.pairs import REASONS, Defect, PreferencePair, pair_of
from wsd_local.training.sifting import sift
from wsd_local.training.splitting import split
from wsd_local.training.trainers import (
    LLAMA_FACTORY_CONFIG,
    TRL_CONFIG,
    Recipe,
    folder_files,
    possible_files,
    template_of,
)

SHORT = PreferencePair(({"role": "user", "content": "One?"},), "Yes.", "No.")
LONG = PreferencePair(
    (
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ),
    "Yes.",
    "No.",
)
BRIEFED = PreferencePair(({"role": "system", "content": "Be brief."}, *SHORT.prompt), "Yes.", "No.")
RECIPE = Recipe("meta-llama/Llama-3.2-3B-Instruct", "llama3", 2048, 42)


def said(role: str, text: Any) -> dict[str, Any]:
    return {"role": role, "content": text}


def spoken(speaker: str, text: str) -> dict[str, str]:
    return {"from": speaker, "value": text}


HH = "\n\nHuman: One?\n\nAssistant: Two.\n\nHuman: Three?\n\nAssistant: "
YES, NO = said("assistant", "Yes."), said("assistant", "No.")
GPT_YES, GPT_NO = spoken("gpt", "Yes."), spoken("gpt", "No.")
TALK = [said("user", "One?"), said("assistant", "Two."), said("user", "Three?")]
SHAPES: list[tuple[str, dict[str, Any], PreferencePair]] = [
    ("texts", {"prompt": "One?", "chosen": "Yes.", "rejected": "No."}, SHORT),
    ("texts", {"question": "One?", "system": "Be brief.", "chosen": "Yes.", "rejected": "No."}, BRIEFED),
    ("texts", {"question": "One?", "system": "", "chosen": "Yes.", "rejected": "No."}, SHORT),
    ("texts", {"instruction": "One?", "input": "", "chosen": "Yes.", "rejected": "No."}, SHORT),
    ("texts", {"prompt": HH, "response": "Yes.", "chosen": "Yes.", "rejected": "No."}, LONG),
    ("messages", {"prompt": [said("user", "One?")], "chosen": [YES], "rejected": [NO]}, SHORT),
    ("messages", {"prompt": TALK, "chosen": [YES], "rejected": [NO]}, LONG),
    ("messages", {"prompt": TALK, "chosen": YES, "rejected": NO}, LONG),
    ("messages", {"chosen": [*TALK, YES], "rejected": [*TALK, NO]}, LONG),
    ("messages", {"prompt": "One?", "chosen": [*TALK, YES], "rejected": [*TALK, NO], "messages": [*TALK, YES]}, LONG),
    ("messages", {"prompt": "One?", "chosen": [YES], "rejected": [NO]}, SHORT),
    (
        "messages",
        {"chosen": [said("system", "Be brief."), *SHORT.prompt, YES], "rejected": [*BRIEFED.prompt, NO]},
        BRIEFED,
    ),
    ("messages", {"system": "Be brief.", "chosen": [*SHORT.prompt, YES], "rejected": [*SHORT.prompt, NO]}, BRIEFED),
    (
        "messages",
        {"prompt": [said("user", [{"type": "text", "text": "One?"}])], "chosen": [YES], "rejected": [NO]},
        SHORT,
    ),
    ("sharegpt", {"conversations": [spoken("human", "One?")], "chosen": GPT_YES, "rejected": GPT_NO}, SHORT),
    (
        "sharegpt",
        {
            "conversations": [spoken("system", "Be brief."), spoken("human", "One?")],
            "chosen": GPT_YES,
            "rejected": GPT_NO,
        },
        BRIEFED,
    ),
    ("sharegpt", {"prompt": "One?", "chosen": [spoken("human", "One?"), GPT_YES], "rejected": [GPT_NO]}, SHORT),
    ("transcripts", {"chosen": f"{HH}Yes.", "rejected": f"{HH}No."}, LONG),
]


@pytest.mark.parametrize(("shape", "record", "pair"), SHAPES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_shape_is_recognised_and_read(shape: str, record: dict[str, Any], pair: PreferencePair) -> None:
    columns = detected_columns([record])
    assert columns.shape == shape
    assert pair_of(record, columns) == pair


TEXTS = detected_columns([SHAPES[0][1]])
MESSAGES = Columns("messages", "chosen", "rejected")
TRANSCRIPTS = Columns("transcripts", "chosen", "rejected")
DEFECTS: list[tuple[str, object, Columns]] = [
    ("record", ["One?", "Yes.", "No."], TEXTS),
    ("column", {"prompt": "One?", "chosen": "Yes."}, TEXTS),
    ("column", {"prompt": "One?", "chosen": "Yes.", "rejected": None}, TEXTS),
    ("column", {"prompt": 5, "chosen": "Yes.", "rejected": "No."}, TEXTS),
    ("column", {"chosen": [], "rejected": []}, MESSAGES),
    ("column", {"chosen": f"{HH}Yes.", "rejected": "No."}, TRANSCRIPTS),
    (
        "column",
        {"prompt": "One?", "chosen": "Yes.", "rejected": "No.", "system": 5},
        Columns("texts", "chosen", "rejected", "prompt", "system"),
    ),
    ("role", {"chosen": [{"content": "One?"}, YES], "rejected": [{"content": "One?"}, NO]}, MESSAGES),
    ("role", {"chosen": [*TALK, said("tool", "5")], "rejected": [*TALK, NO]}, MESSAGES),
    ("message", {"chosen": ["One?", YES], "rejected": ["One?", NO]}, MESSAGES),
    ("message", {"chosen": [*TALK, {**YES, "tool_calls": [{}]}], "rejected": [*TALK, NO]}, MESSAGES),
    ("message", {"chosen": [*TALK, said("assistant", 5)], "rejected": [*TALK, NO]}, MESSAGES),
    ("message", {"chosen": [said("user", "a\0"), YES], "rejected": [said("user", "a\0"), NO]}, MESSAGES),
    ("message", {"prompt": "One?", "chosen": "\ud800", "rejected": "No."}, TEXTS),
    ("empty", {"prompt": " ", "chosen": "Yes.", "rejected": "No."}, TEXTS),
    ("empty", {"prompt": "One?", "chosen": "Yes.", "rejected": "\n"}, TEXTS),
    ("empty", {"chosen": HH, "rejected": f"{HH}No."}, TRANSCRIPTS),
    (
        "empty",
        {"chosen": [*TALK, said("assistant", [{"type": "text", "text": ""}])], "rejected": [*TALK, NO]},
        MESSAGES,
    ),
    ("ending", {"chosen": TALK, "rejected": [*TALK, NO]}, MESSAGES),
    ("ending", {"chosen": f"{HH}Yes.\n\nHuman: Four?", "rejected": f"{HH}No."}, TRANSCRIPTS),
    ("turns", {"chosen": [*TALK, TALK[2], YES], "rejected": [*TALK, TALK[2], NO]}, MESSAGES),
    ("turns", {"chosen": [YES], "rejected": [NO]}, MESSAGES),
    ("turns", {"chosen": [*TALK, said("system", "Be brief."), YES], "rejected": [*TALK, NO]}, MESSAGES),
    ("prompts", {"chosen": [*TALK, YES], "rejected": [TALK[0], NO]}, MESSAGES),
    (
        "prompts",
        {"prompt": "Four?", "chosen": [*TALK, YES], "rejected": [*TALK, NO]},
        Columns("messages", "chosen", "rejected", "prompt"),
    ),
    ("same", {"prompt": "One?", "chosen": "Yes.", "rejected": "Yes. "}, TEXTS),
]


@pytest.mark.parametrize(("reason", "record", "columns"), DEFECTS)
def test_each_defect_has_its_reason(reason: str, record: object, columns: Columns) -> None:
    with pytest.raises(Defect) as caught:
        pair_of(record, columns)
    assert caught.value.reason == reason


def test_every_reason_is_tried() -> None:
    assert {reason for reason, *_ in DEFECTS} | {"long", "twice", "reversed"} == set(REASONS)


def test_records_are_counted_by_their_reasons_and_the_first_of_a_kind_is_kept() -> None:
    record = {"prompt": "One?", "chosen": "Yes.", "rejected": "No.", "score": 5}
    values: list[Any] = [
        record,
        {**record, "chosen": "Yes. "},
        {**record, "chosen": "No.", "rejected": "Yes."},
        {**record, "chosen": "Perhaps."},
        {**record, "chosen": "word " * 3000},
        {**record, "rejected": "Yes."},
    ]
    found = sift([Record(line, value) for line, value in enumerate(values, 1)], TEXTS, 2048)
    assert [pair.chosen for pair in found.pairs] == ["Yes.", "Perhaps."]
    assert {reason: left.indices for reason, left in found.left_out.items()} == {
        "same": [5],
        "long": [4],
        "twice": [1],
        "reversed": [2],
    }
    assert found.unused == {"score": 6}


@pytest.mark.parametrize("cutoff", [25, 26])
def test_the_cutoff_counts_the_conversation_and_its_longer_reply(cutoff: int) -> None:
    """5 tokens, 5 tokens, and 8 for the markers around each of two messages."""
    record = {"prompt": "abcde", "chosen": "abcde", "rejected": "a"}
    assert len(sift([Record(1, record)], TEXTS, cutoff, len).pairs) == cutoff - 25


# -- columns -------------------------------------------------------------------------------------------------


def test_columns_can_be_named() -> None:
    record = {"ask": "One?", "good": "Yes.", "bad": "No.", "brief": "Be brief.", "prompt": "Something else"}
    columns = detected_columns([record], {"prompt": "ask", "chosen": "good", "rejected": "bad", "system": "brief"})
    assert columns.used == {"prompt": "ask", "system": "brief", "chosen": "good", "rejected": "bad"}
    assert pair_of(record, columns) == BRIEFED


def test_columns_are_those_of_the_first_record_that_has_them() -> None:
    assert detected_columns([5, {"prompt": "One?", "chosen": None}, SHAPES[0][1]]) == TEXTS


@pytest.mark.parametrize(
    ("record", "given", "words"),
    [
        ({"prompt": "One?", "good": "Yes."}, {}, ("chosen", "--chosen", "'prompt', 'good'")),
        ({"prompt": "One?", "chosen": "Yes."}, {}, ("rejected", "--rejected")),
        ({"chosen": "Yes.", "rejected": "No."}, {}, ("--prompt", "'chosen', 'rejected'")),
        ({"prompt": "One?", "chosen": "Yes."}, {"rejected": "bad"}, ("'bad'", "--rejected")),
    ],
)
def test_a_column_that_is_missing_is_named(
    record: dict[str, Any], given: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as caught:
        detected_columns([record], given)
    assert [word for word in words if word not in str(caught.value)] == []


# -- the split -----------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(str.strip)


@st.composite
def pairs(draw: st.DrawFn) -> PreferencePair:
    turns = draw(st.integers(0, 2))
    system: list[Message] = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    talk: list[Message] = []
    for _ in range(turns):
        talk += [{"role": "user", "content": draw(TEXT)}, {"role": "assistant", "content": draw(TEXT)}]
    chosen, rejected = draw(TEXT), draw(TEXT)
    if chosen.strip() == rejected.strip():
        rejected += "x"
    return PreferencePair((*system, *talk, {"role": "user", "content": draw(TEXT)}), chosen, rejected)


def numbered(count: int, kinds: int) -> list[PreferencePair]:
    return [
        PreferencePair(({"role": "user", "content": f"Question {place % kinds}"},), f"Yes {place}", "No")
        for place in range(count)
    ]


@given(st.integers(2, 60), st.integers(2, 30), st.floats(0.01, 0.5), st.integers(0, 5))
def test_no_conversation_is_on_both_sides(count: int, kinds: int, share: float, seed: int) -> None:
    given = numbered(count, kinds)
    sides = split(given, share, seed)
    openings = [{pair.opening for pair in side} for side in (sides.train, sides.validation)]
    assert all(openings) and not openings[0] & openings[1]
    assert sorted(pair.chosen for pair in [*sides.train, *sides.validation]) == sorted(pair.chosen for pair in given)
    backwards = split(given[::-1], share, seed)
    assert [backwards.train[::-1], backwards.validation[::-1]] == [sides.train, sides.validation]


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.1, 10), (0.25, 25), (0.5, 50)])
def test_the_share_is_kept(share: float, count: int) -> None:
    assert len(split(numbered(100, 100), share, 42).validation) == count


def test_another_seed_sets_others_aside() -> None:
    given = numbered(100, 100)
    assert split(given, 0.1, 1) == split(given, 0.1, 1) != split(given, 0.1, 2)


def test_longer_and_shorter_pieces_of_a_conversation_stay_together() -> None:
    for seed in range(20):
        others = numbered(4, 4)
        sides = split([SHORT, LONG, *others], 0.4, seed)
        assert (SHORT in sides.train) == (LONG in sides.train)


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="between 0 and"):
        split(numbered(4, 4), share, 1)


def test_conversations_that_all_begin_alike_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="--validation 0"):
        split(numbered(4, 1), 0.1, 1)


# -- the trainers' formats -----------------------------------------------------------------------------------


def read_back(records: list[dict[str, Any]]) -> list[PreferencePair]:
    columns = detected_columns(records)
    return [pair_of(record, columns) for record in records]


@given(st.lists(pairs(), min_size=2, max_size=6, unique_by=lambda pair: pair.opening))
def test_both_formats_hold_the_same_pairs(given: list[PreferencePair]) -> None:
    sides = split(given, 0.5, 1)
    files = folder_files(sides, RECIPE)
    assert set(files) == set(possible_files())
    for name, side in (("train", sides.train), ("validation", sides.validation)):
        assert read_back([json.loads(line) for line in files[f"data_trl/{name}.jsonl"].split("\n") if line]) == side
        assert read_back(json.loads(files[f"data_llamafactory/{name}.json"])) == side


def test_the_configurations_have_the_published_values() -> None:
    files = folder_files(split(numbered(10, 10), 0.2, 1), RECIPE)
    llama_factory, trl = yaml.safe_load(files[LLAMA_FACTORY_CONFIG]), yaml.safe_load(files[TRL_CONFIG])
    common = {
        "model_name_or_path": "meta-llama/Llama-3.2-3B-Instruct",
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 5e-6,
        "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine",
        "bf16": True,
    }
    rank = {"lora_rank": 8, "lora_target": "all", "pref_beta": 0.1, "warmup_ratio": 0.1, "cutoff_len": 2048}
    assert (common | rank | {"template": "llama3", "stage": "dpo"}).items() <= llama_factory.items()
    assert "max_samples" not in llama_factory
    for name, value in (common | {"lora_r": 8, "lora_alpha": 16, "beta": 0.1, "warmup_steps": 0.1}).items():
        assert trl[name] == value
    assert trl["lora_target_modules"] == ["all-linear"] and trl["max_length"] == 2048
    info = json.loads(files["data_llamafactory/dataset_info.json"])
    for name in (llama_factory["dataset"], llama_factory["eval_dataset"]):
        assert f"{llama_factory['dataset_dir']}/{info[name]['file_name']}" in files
        assert info[name]["ranking"] is True and info[name]["formatting"] == "sharegpt"
    for text in (files[LLAMA_FACTORY_CONFIG], files[TRL_CONFIG]):
        assert "authors of Weak-to-Strong Decoding trained their draft are not published" in text


def test_without_validation_nothing_is_evaluated() -> None:
    files = folder_files(split(numbered(4, 1), 0, 1), RECIPE)
    assert "data_trl/validation.jsonl" not in files and "data_llamafactory/validation.json" not in files
    for name in (LLAMA_FACTORY_CONFIG, TRL_CONFIG):
        assert not {"eval_dataset", "eval_strategy", "dataset_test_split"} & set(yaml.safe_load(files[name]))


@pytest.mark.parametrize("model", ["no", "1e3", "a: b # c", "~/models/mine", "Modell-Ä"])
def test_a_model_with_an_odd_name_stays_a_text(model: str) -> None:
    files = folder_files(split(numbered(4, 1), 0, 1), Recipe(model, "llama3", 2048, 1))
    assert yaml.safe_load(files[TRL_CONFIG])["model_name_or_path"] == model


@pytest.mark.parametrize(
    ("model", "template"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3_nothink"),
        ("google/gemma-3-1b-it", "gemma3"),
        ("models/llama-3.2-3b-instruct/", "llama3"),
    ],
)
def test_the_template_follows_from_the_model_s_name(model: str, template: str) -> None:
    assert template_of(model) == template


def test_a_model_of_no_known_family_needs_a_template() -> None:
    with pytest.raises(UsageError, match="--template"):
        template_of("someone/llama-3-merges/other")
