"""Runs as the judges read them: their own loaders, where they are installed, and what they ask of each record."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import pytest
from data_sets import shared
from hypothesis import given, settings
from hypothesis import strategies as st

from wsd_local.core.limits import Counts
from wsd_local.core.written import ReplyToken
from wsd_local.datasets import DataSet, Item, read
from wsd_local.datasets.exports import EXPORTS, ResultKey, export_path, formulas, write_export
from wsd_local.errors import UsageError, WsdError
from wsd_local.events import SwitchReason
from wsd_local.prompts.messages import Message
from wsd_local.runtime.reply import Part, Reply, Switch, Timings

NAME = "wsd-demo"
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def reply(messages: list[Message], kept: str, rest: str, reason: SwitchReason = "threshold") -> Reply:
    """A reply of two tokens for each word that the draft wrote, one for each word of the base."""
    tokens = [ReplyToken(i, text, "draft", 0.5, None) for i, text in enumerate(kept.split(" ")) if kept]
    tokens += [ReplyToken(100 + i, text, "base", None, None) for i, text in enumerate(rest.split(" ")) if rest]
    drafted = len([token for token in tokens if token.source == "draft"])
    return Reply(
        messages=tuple(messages),
        text=kept + rest,
        finish_reason="stop",
        draft=Part("draft.gguf", kept, drafted, 2 * drafted),
        base=Part("base.gguf", rest, len(tokens) - drafted),
        switch=Switch(drafted - 1, reason, 0.9, 6, 0.8),
        timings=Timings(),
        tokens=tuple(tokens),
        discarded=" and more",
        counts=Counts(),
    )


def line(item: Item, kept: str = "Sure, ", rest: str = "like this.", turn: int = 0, **more: Any) -> dict[str, Any]:
    """A line of a run with tokens."""
    messages = list(item.messages)
    reason: SwitchReason = more.pop("reason", "threshold")
    return {
        **reply(messages, kept, rest, reason).as_dict(tokens=True),
        "index": item.index,
        "id": item.id,
        "turn": turn,
        "input": item.record,
        "prompt_ids": {"draft": [1, 2], "base": [7, 8, 9]},
        "draft_ids": [3, 4, 5, 6],
        **more,
    }


def items(folder: Path, *values: Any) -> list[Item]:
    """Records as they are read from a file."""
    path = folder / "input.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    data = read(path)
    assert not data.bad
    return data.items


def exported(kind: str, lines: list[dict[str, Any]], folder: Path) -> Path:
    """The file of an export."""
    target = export_path(folder / "run.jsonl", kind)
    write_export(kind, lines, target, generator=NAME)
    return target


def objects(path: Path) -> list[dict[str, Any]]:
    """What a file of JSON lines holds."""
    return [json.loads(text) for text in path.read_text(encoding="ascii").split("\n") if text]


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


# -- files -----------------------------------------------------------------------------------------------------


def test_paths() -> None:
    names = [export_path(Path("a/out.v1.jsonl"), kind).as_posix() for kind in EXPORTS]
    assert names == [
        "a/out.v1.alpaca_eval.json",
        "a/out.v1.arena_hard.jsonl",
        "a/out.v1.mt_bench.jsonl",
        "a/out.v1.truthfulqa.csv",
        "a/out.v1.hh.jsonl",
        "a/out.v1.authors.jsonl",
    ]
    assert export_path(Path("out.v1"), "hh") == Path("out.v1.hh.jsonl")
    assert export_path(Path("out.json"), "alpaca_eval") == Path("out.alpaca_eval.json")


@pytest.mark.parametrize("kind", EXPORTS)
def test_the_same_lines_make_the_same_bytes_in_any_order(tmp_path: Path, kind: str) -> None:
    records = items(tmp_path, *({"prompt": f"p{i}", "id": i} for i in range(12)))
    lines = [line(item, rest=f"{item.index}") for item in records]
    first = exported(kind, lines, tmp_path).read_bytes()
    assert write_export(kind, iter(lines[::-1]), tmp_path / "again", generator=NAME) == {tmp_path / "again": 12}
    assert (tmp_path / "again").read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["again", "input.jsonl", export_path(Path("run"), kind).name]
    )


@pytest.mark.parametrize("kind", EXPORTS)
def test_nothing_to_write(tmp_path: Path, kind: str) -> None:
    assert write_export(kind, [], tmp_path / "empty", generator=NAME) == {tmp_path / "empty": 0}
    assert (tmp_path / "empty").is_file()


def test_lines_that_count(tmp_path: Path) -> None:
    one, two, three = items(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": "c"})
    failed = {"index": 1, "id": "1", "turn": 0, "input": {}, "error": "does not fit"}
    lines = [line(one, rest="old"), failed, line(three, turn=1), line(one, rest="new")]
    assert [record["response"] for record in objects(exported("hh", lines, tmp_path))] == ["Sure, new"]
    lines += [line(two), {**failed, "index": 0}]
    assert len(objects(exported("hh", lines, tmp_path))) == 2


def test_lines_of_something_else(tmp_path: Path) -> None:
    good = line(items(tmp_path, {"prompt": "a"})[0])
    for key in ("index", "turn", "text", "input", "messages"):
        for bad in ({name: value for name, value in good.items() if name != key}, {**good, key: None}):
            with pytest.raises(UsageError, match=f"line 2 of the run has no '{key}'"):
                write_export("hh", [good, bad], tmp_path / "a", generator=NAME)
    with pytest.raises(UsageError, match="there is no export 'mtbench'; did you mean 'mt_bench'"):
        write_export("mtbench", [], tmp_path / "a", generator=NAME)
    assert not (tmp_path / "a").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WsdError, match="cannot be written"):
        write_export("hh", [], tmp_path / "file" / "a.jsonl", generator=NAME)


# -- each judge ------------------------------------------------------------------------------------------------


def test_alpaca_eval(tmp_path: Path) -> None:
    records = items(tmp_path, {"dataset": "koala", "instruction": "Boil?", "output": "theirs"}, {"instruction": "Fry?"})
    path = exported("alpaca_eval", [line(item) for item in records], tmp_path)
    assert json.loads(path.read_text(encoding="ascii")) == [
        {"dataset": "koala", "instruction": "Boil?", "output": "Sure, like this.", "generator": NAME},
        {"instruction": "Fry?", "output": "Sure, like this.", "generator": NAME},
    ]
    other = items(tmp_path, {"messages": [{"role": "user", "content": "Hi"}], "id": "x"})
    (record,) = json.loads(exported("alpaca_eval", [line(other[0])], tmp_path).read_text())
    assert record["instruction"] == "Hi"


def test_arena_hard(tmp_path: Path) -> None:
    (item,) = items(tmp_path, {"question_id": "ab12", "turns": [{"content": "Boil?"}]})
    (record,) = objects(exported("arena_hard", [line(item, finished_at=1700000000.5)], tmp_path))
    assert record.pop("answer_id") == objects(exported("arena_hard", [line(item)], tmp_path))[0]["answer_id"]
    assert record == {
        "question_id": "ab12",
        "model_id": NAME,
        "choices": [{"index": 0, "turns": [{"content": "Sure, like this.", "token_len": 4}]}],
        "tstamp": 1700000000.5,
    }


def test_mt_bench(tmp_path: Path) -> None:
    records = items(tmp_path, *({"question_id": 81 + i, "turns": ["Boil?", "And fry?"]} for i in range(3)))
    lines = [line(item, rest=f"{item.id}:{turn}", turn=turn) for turn in (1, 0) for item in records]
    lines = [one for one in lines if (one["index"], one["turn"]) not in ((1, 1), (2, 0))]
    answers = objects(exported("mt_bench", lines, tmp_path))
    assert [(answer["question_id"], answer["choices"][0]["turns"]) for answer in answers] == [
        (81, ["Sure, 81:0", "Sure, 81:1"]),
        (82, ["Sure, 82:0"]),
    ]
    assert [answer["tstamp"] for answer in answers] == [0, 0] and answers[0]["model_id"] == NAME
    assert answers[0]["answer_id"] != answers[1]["answer_id"]


def test_answers_without_a_question_id(tmp_path: Path) -> None:
    records = items(tmp_path, {"prompt": "a", "id": "own"}, {"prompt": "b"})
    for kind in ("arena_hard", "mt_bench"):
        answers = objects(exported(kind, [line(item) for item in records], tmp_path))
        assert [answer["question_id"] for answer in answers] == ["own", "1"]


def test_truthfulqa(tmp_path: Path) -> None:
    source = tmp_path / "input.csv"
    source.write_bytes(b'Type,Question,Best Answer,Note\r\nAdversarial,"Why, ""then""?",None,\r\n')
    records = read(source).items
    path = exported("truthfulqa", [line(item, rest='a,\n"b"\rc') for item in records], tmp_path)
    row = {"Type": "Adversarial", "Question": 'Why, "then"?', "Best Answer": "None", "Note": ""}
    assert table(path) == [{**row, NAME: 'Sure, a,\n"b"\rc'}] and list(table(path)[0])[-1] == NAME
    with pytest.raises(UsageError, match="the data set has a column 'Note' already: choose another name"):
        write_export("truthfulqa", [line(item) for item in records], path, generator="Note")


def test_cells_that_a_spreadsheet_would_calculate_are_counted_and_left(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "'=1", "plain", " =1"]
    records = items(tmp_path, *({"question": f"Q{i}?"} for i in range(len(texts))))
    lines = [line(item, kept="", rest=text) for item, text in zip(records, texts, strict=True)]
    path = exported("truthfulqa", lines, tmp_path)
    assert [row[NAME] for row in table(path)] == texts
    assert formulas(path) == 5
    assert formulas(exported("hh", lines, tmp_path)) == 0


def test_truthfulqa_of_json(tmp_path: Path) -> None:
    value = {
        "question": "Why?",
        "best_answer": "So",
        "correct_answers": ["So", "Thus"],
        "source": None,
        "n": 3,
        "x y": [],
    }
    lines = [line(items(tmp_path, value)[0]), line(items(tmp_path, {"prompt": "What?"})[0], index=1)]
    first, second = table(exported("truthfulqa", lines, tmp_path))
    assert first == {
        "Question": "Why?",
        "Best Answer": "So",
        "Correct Answers": "So; Thus",
        "Source": "",
        "n": "3",
        "x y": "",
        "prompt": "",
        NAME: "Sure, like this.",
    }
    assert (second["Question"], second["prompt"], second["n"]) == ("What?", "What?", "")


def test_hh(tmp_path: Path) -> None:
    chosen = "\n\nHuman: Hi \n\nAssistant: Hello.\n\nHuman: An egg?"
    turns: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "An egg?"},
    ]
    begun = [*turns, {"role": "assistant", "content": "Take"}]
    values = [{"chosen": f"{chosen}\n\nAssistant: Boil.", "rejected": "x"}, {"raw_context": turns}, {"context": begun}]
    records = objects(exported("hh", [line(item) for item in items(tmp_path, *values[:1])], tmp_path))
    records += objects(exported("hh", [line(item) for item in items(tmp_path, *values[1:2])], tmp_path))
    records += objects(exported("hh", [line(item) for item in items(tmp_path, *values[2:])], tmp_path))
    assert [{key: record[key] for key in record if key not in ("prompt", "response")} for record in records] == values
    assert {record["response"] for record in records} == {"Sure, like this."}
    rebuilt = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: An egg?\n\nAssistant:"
    assert [record["prompt"] for record in records] == [f"{chosen}\n\nAssistant:", rebuilt, f"{rebuilt} Take"]


def test_the_authors(tmp_path: Path) -> None:
    (item,) = items(tmp_path, {"question_id": 81, "turns": ["Boil?", "And fry?"]})
    (record,) = objects(exported("authors", [line(item, kept="Sure, yes", rest=" do so")], tmp_path))
    draft = {"text": "Sure, yes and more", "token_ids": [3, 4, 5, 6], "probs": None, "finish_reason": None}
    assert record == {
        "meta": "mt_bench_1:0",
        "question_id": 81,
        "turns": ["Boil?", "And fry?"],
        "context": [{"role": "user", "content": "Boil?"}],
        "draft_result": {"prompt_token_ids": [1, 2], "prompt_probs": None, "outputs": [draft]},
        "target_input": [
            {
                "origin_prompt_token_ids": [7, 8, 9],
                "drafted_prompt_token_ids": [7, 8, 9, 0, 1],
                "accept_index": 4,
                "partial_accept_index": 1,
                "token_ids": [0, 1],
                "text": "Sure, yes",
                "probs": [0.5, 0.5],
            }
        ],
        "target_result": {
            "outputs": [
                {
                    "text": "Sure, yes do so",
                    "token_ids": [0, 1, 100, 101, 102],
                    "probs": [0.5, 0.5, None, None, None],
                    "finish_reason": "stop",
                }
            ]
        },
        "result_key": "target_result",
    }


@pytest.mark.parametrize(("result_key", "answer"), [("target_result", "Yes, do"), ("draft_result", "Yes, and more")])
def test_the_authors_loader_of_the_second_turn_reads_the_first(
    tmp_path: Path, result_key: ResultKey, answer: str
) -> None:
    """What it does, written anew: every line of the file is a first answer, the text of the result that is named."""
    found = items(tmp_path, *({"question_id": 81 + number, "turns": ["Boil?", "And fry?"]} for number in range(2)))
    path = tmp_path / "second.authors.jsonl"
    lines = [line(item, kept="Yes,", rest=" do") for item in found]
    lines += [line(item, turn=1, kept="No,", rest=" do not") for item in found]
    files = write_export("authors", lines, path, generator=NAME, result_key=result_key)
    assert files == {path: 2, tmp_path / "second.authors.2.jsonl": 2}
    assert [one["meta"] for one in objects(tmp_path / "second.authors.2.jsonl")] == ["mt_bench_2:0", "mt_bench_2:1"]
    for number, sample in enumerate(objects(path)):
        first = sample[sample["result_key"]]["outputs"][0]["text"].strip()
        asked = [sample["turns"][0], first, sample["turns"][1]]
        assert asked == ["Boil?", answer, "And fry?"]
        assert "mt_bench_2:{}".format(sample["meta"].replace("mt_bench_1:", "")) == f"mt_bench_2:{number}"
        assert sample["question_id"] == 81 + number


def test_records_are_named_as_the_authors_name_them(tmp_path: Path) -> None:
    (item,) = items(tmp_path, {"turns": ["a", "b"]})
    made = [line(item), line(item, turn=1), line(item) | {"run": {"format": "arena_hard"}}]
    metas = [objects(exported("authors", [one | {"turn": 0}], tmp_path))[0]["meta"] for one in made[::2]]
    assert metas == ["mt_bench_1:0", "arena_hard:0"]
    for kind, name in (("truthfulqa", "truthfulQA:0"), ("hh", "hh_0"), ("alpaca_eval", "alpaca_eval:0")):
        (one,) = objects(exported("authors", [line(item) | {"run": {"format": kind}}], tmp_path))
        assert one["meta"] == name
    (own,) = items(tmp_path, {"context": [{"role": "user", "content": "x"}], "meta": "mine:7"})
    assert objects(exported("authors", [line(own)], tmp_path))[0]["meta"] == "mine:7"


def test_the_authors_indices_mean_what_theirs_mean(tmp_path: Path) -> None:
    """Their continuation begins after `drafted_prompt_token_ids[: accept_index + 1]`."""
    (item,) = items(tmp_path, {"prompt": "x"})
    for kept in ("", "a", "a b c"):
        (record,) = objects(exported("authors", [line(item, kept=kept)], tmp_path))
        (checked,), (whole,) = record["target_input"], record["target_result"]["outputs"]
        prompt, place = checked["origin_prompt_token_ids"], checked["accept_index"]
        assert checked["drafted_prompt_token_ids"][len(prompt) : place + 1] == checked["token_ids"]
        assert place - len(prompt) == checked["partial_accept_index"] == len(checked["probs"]) - 1
        assert whole["token_ids"][: len(checked["token_ids"])] == checked["token_ids"]


@pytest.mark.parametrize(
    ("reason", "finished"),
    [("threshold", None), ("draft_end", "stop"), ("stop", "stop"), ("draft_limit", "length"), ("none", None)],
)
def test_how_the_draft_ended(tmp_path: Path, reason: SwitchReason, finished: str | None) -> None:
    (item,) = items(tmp_path, {"prompt": "x"})
    (record,) = objects(exported("authors", [line(item, reason=reason)], tmp_path))
    assert record["draft_result"]["outputs"][0]["finish_reason"] == finished


def test_the_authors_have_one_switch(tmp_path: Path) -> None:
    (item,) = items(tmp_path, {"prompt": "x"})
    turn = {"who": "draft", "from": 0, "to": 1, "reason": "threshold", "confidence": 0.9}
    changing = line(item) | {"turns": [turn] * 4}
    with pytest.raises(UsageError, match=r"record 0 the models changed places 3 times.*room for one switch"):
        exported("authors", [changing], tmp_path)
    assert objects(exported("authors", [line(item) | {"turns": [turn] * 2}], tmp_path))


def test_the_authors_need_tokens(tmp_path: Path) -> None:
    (item,) = items(tmp_path, {"prompt": "x"})
    for key in ("tokens", "discarded", "prompt_ids", "draft_ids"):
        short = {name: value for name, value in line(item).items() if name != key}
        with pytest.raises(UsageError, match=rf"record 0 was written without '{key}'.*run again with --tokens"):
            exported("authors", [short], tmp_path)
        for kind in EXPORTS:
            if kind != "authors":
                assert exported(kind, [short], tmp_path).is_file(), "the others need none"


def test_the_authors_records_of_one_model_alone(tmp_path: Path) -> None:
    (item,) = items(tmp_path, {"prompt": "x"})
    for prompts in ({"base": [7]}, {"draft": [1], "base": None}):
        lines = [line(item, kept="", prompt_ids=prompts, draft_ids=[])]
        (record,) = objects(exported("authors", lines, tmp_path))
        assert record["target_input"][0]["token_ids"] == []
        assert record["target_result"]["outputs"][0]["text"] == "like this."


def test_every_turn_is_a_record_of_the_authors(tmp_path: Path) -> None:
    (item,) = items(tmp_path, {"turns": ["a", "b"]})
    context: list[Message] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "b"},
    ]
    first = exported("authors", [line(item, turn=1, messages=context), line(item)], tmp_path)
    files = [objects(first), objects(first.with_name("run.authors.2.jsonl"))]
    assert [[len(record["context"]) for record in records] for records in files] == [[1], [3]]


# -- any text --------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(LINES.filter(str.strip), LINES, LINES), min_size=1, max_size=4))
def test_texts_come_back_as_they_were_written(texts: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = items(folder, *({"instruction": asked} for asked, _, _ in texts))
        lines = [line(item, kept, rest) for item, (_, kept, rest) in zip(records, texts, strict=True)]
        questions, answers = [asked for asked, _, _ in texts], [kept + rest for _, kept, rest in texts]
        alpaca = json.loads(exported("alpaca_eval", lines, folder).read_text(encoding="ascii"))
        assert [(one["instruction"], one["output"]) for one in alpaca] == list(zip(questions, answers, strict=True))
        arena = objects(exported("arena_hard", lines, folder))
        assert [one["choices"][0]["turns"][0]["content"] for one in arena] == answers
        bench = objects(exported("mt_bench", lines, folder))
        assert [one["choices"][0]["turns"] for one in bench] == [[answer] for answer in answers]
        asked = table(exported("truthfulqa", lines, folder))
        assert [(one["Question"], one[NAME]) for one in asked] == list(zip(questions, answers, strict=True))
        spoken = objects(exported("hh", lines, folder))
        assert [one["prompt"] for one in spoken] == [f"\n\nHuman: {question}\n\nAssistant:" for question in questions]
        assert [one["response"] for one in spoken] == answers
        authors = objects(exported("authors", lines, folder))
        assert [one["target_result"]["outputs"][0]["text"] for one in authors] == answers


# -- the judges' own loaders -----------------------------------------------------------------------------------


def judges_module(monkeypatch: pytest.MonkeyPatch, name: str, **stand_ins: dict[str, Any]) -> Any:
    """A module of a judge, without what its package imports for other work, which is large."""
    package, *path = name.split(".")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"expected: {package} is not installed")
    folder = found.submodule_search_locations[0]
    monkeypatch.setitem(sys.modules, package, importlib.util.module_from_spec(found))
    for other, values in stand_ins.items():
        module = types.ModuleType(other)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, other, module)
    spec = importlib.util.spec_from_file_location(name, Path(folder, *path).with_suffix(".py"))
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, loaded)
    spec.loader.exec_module(loaded)
    return loaded


def fastchat(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `fastchat.llm_judge` reads answers with."""
    adapter = dict.fromkeys(("get_conversation_template", "ANTHROPIC_MODEL_LIST", "OPENAI_MODEL_LIST"))
    stand_ins: dict[str, dict[str, Any]] = {"fastchat.model.model_adapter": adapter, "openai": {}, "anthropic": {}}
    return judges_module(monkeypatch, "fastchat.llm_judge.common", **stand_ins)


def texts_for(data: DataSet) -> dict[int, str]:
    """A reply to each record, with what is hard to keep."""
    marks = ["\u2028", '"', "\r\n", "👩🏽‍🔬", "\t,", "NULL", "\\n", "<|eot_id|>"]
    return {item.index: f"like {marks[item.index % len(marks)]} {item.index}" for item in data.items}


def lines_for(data: DataSet, turns: int = 1) -> list[dict[str, Any]]:
    """A run over a data set."""
    texts = texts_for(data)
    return [line(item, rest=f"{texts[item.index]} {turn}", turn=turn) for item in data.items for turn in range(turns)]


def test_alpaca_eval_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="expected: pandas is not installed")
    data = read(shared("alpaca_eval/text_davinci_003.model_outputs.json"))
    path = exported("alpaca_eval", lines_for(data), tmp_path)
    large: dict[str, dict[str, Any]] = {"datasets": {"Dataset": dict}, "pkg_resources": {}}
    judges_module(monkeypatch, "alpaca_eval.constants", **large)
    frame = judges_module(monkeypatch, "alpaca_eval.utils", **large).load_or_convert_to_dataframe(path)
    texts = texts_for(data)
    assert list(frame.columns) == ["dataset", "instruction", "output", "generator"]
    assert list(frame["instruction"]) == [item.record["instruction"] for item in data.items]
    assert list(frame["output"]) == [f"Sure, {texts[item.index]} 0" for item in data.items]
    assert set(frame["generator"]) == {NAME}


def test_fastchat_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(shared("mt_bench/question.jsonl"))
    path = exported("mt_bench", lines_for(data, turns=2), tmp_path)
    answers = tmp_path / "model_answer"
    answers.mkdir()
    path.rename(answers / f"{NAME}.jsonl")
    judge = fastchat(monkeypatch)
    loaded = judge.load_model_answers(str(answers))
    questions = judge.load_questions(str(shared("mt_bench/question.jsonl")), None, None)
    assert list(loaded) == [NAME] and list(loaded[NAME]) == [question["question_id"] for question in questions]
    judge.check_data(questions, loaded, {}, [NAME], {})
    texts = texts_for(data)
    for item in data.items:
        turns = loaded[NAME][item.record["question_id"]]["choices"][0]["turns"]
        assert turns == [f"Sure, {texts[item.index]} {turn}" for turn in range(2)]


def test_arena_hard_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arena-Hard-Auto 0.1 is no package; its loader is FastChat's, and its result table sums `token_len`."""
    data = read(shared("arena_hard/question.jsonl"))
    answers = tmp_path / "model_answer"
    write_export("arena_hard", lines_for(data), answers / f"{NAME}.jsonl", generator=NAME)
    loaded = fastchat(monkeypatch).load_model_answers(str(answers))[NAME]
    texts = texts_for(data)
    for item in data.items:
        (turn,) = loaded[item.record["question_id"]]["choices"][0]["turns"]
        assert turn["content"] == f"Sure, {texts[item.index]} 0" and turn["token_len"] > 2


def test_truthfulqa_reads_it(tmp_path: Path) -> None:
    """TruthfulQA's evaluation is no package: it reads the CSV with pandas, and answers from the model's column."""
    pandas = pytest.importorskip("pandas", reason="expected: pandas is not installed")
    data = read(shared("truthfulqa/TruthfulQA.csv"))
    frame = pandas.read_csv(exported("truthfulqa", lines_for(data), tmp_path))
    frame = frame.dropna(axis=1, how="all")
    texts = texts_for(data)
    assert list(frame[NAME]) == [f"Sure, {texts[item.index]} 0" for item in data.items]
    theirs = pandas.read_csv(shared("truthfulqa/TruthfulQA.csv"))
    assert frame.drop(columns=[NAME]).equals(theirs)
