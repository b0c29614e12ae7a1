"""Exports: a run over a data set in the format that the judges of that data set read.

Contract: lines of a run in (`Reply.as_dict` with `index`, `id`, `turn` and `input`), one file out, in the order of the
records, whatever order the lines have; where a record was answered twice, the later line counts, and a line of a
record that failed (`error`, no `text`) counts for nothing. The same lines make the same bytes. JSON is written as
ASCII, because some judges read files in the encoding of the machine.

- `alpaca_eval`: what `alpaca_eval --model_outputs` reads.
- `arena_hard`: model answers of Arena-Hard-Auto 0.1. `token_len` counts tokens of the base, where theirs are GPT's.
- `mt_bench`: model answers of FastChat's `llm_judge`.
- `truthfulqa`: the questions' CSV with a column of answers, which carries the generator's name.
- `hh`: the input with `prompt` as a transcript, up to `Assistant:`, and `response`. A system message is left out.
- `authors`: what the authors of Weak-to-Strong Decoding write, a file for each turn: the names of later ones have the
  turn's number. It needs the lines of a run with tokens, under a rule by which the draft does not come back. Where ours
  differ: the draft stops once a window passed, and `finish_reason` is then null; the draft model's own probabilities
  are null, as are the base's in the continuation unless the run computed them; of the draft,
  `drafted_prompt_token_ids` and `probs` of `target_input` reach to the switch and no further. `meta` names the record
  as their loaders do, `mt_bench_1:0` for the first turn of MT-Bench's first question, and `result_key` the result that
  their loader of its second turn takes the first answer from. That loader reads every line of the file it is given.
"""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any, Literal

from wsd_local.errors import UsageError, WsdError, nearest, reason
from wsd_local.files import replaced

Line = dict[str, Any]
ResultKey = Literal["target_result", "draft_result"]
Answer = list[Line]
"""The lines of one record, by turn."""

_ANSWER = "\n\nAssistant:"
_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_TRUTHFULQA = ("Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source")
_FINISHED = {"draft_end": "stop", "stop": "stop", "draft_limit": "length", "length": "length"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LINE = {"index": int, "turn": int, "text": str, "input": dict, "messages": list}
_TOKENS = ("tokens", "discarded", "prompt_ids", "draft_ids")


def write_export(
    kind: str, lines: Iterable[Line], target: Path, *, generator: str, result_key: ResultKey = "target_result"
) -> dict[Path, int]:
    """Write one of `EXPORTS`, each file whole or not at all; returns the files with their numbers of records.

    `generator` is the name that the judge knows the answers by, `result_key` that of the result in `authors`.

    Raises:
        UsageError: there is no such export, or a line lacks what it needs.
        WsdError: the file cannot be written.
    """
    if kind not in _WRITERS:
        raise UsageError(f"there is no export {kind!r}{nearest(kind, list(EXPORTS))}")
    answers, files = _answers(lines), {}
    for path, of_file in _by_turn(answers, target) if kind == "authors" else [(target, answers)]:
        records = list(_WRITERS[kind](of_file, result_key if kind == "authors" else generator))
        try:
            with replaced(path) as part, part.open("w", encoding="utf-8", newline="") as file:
                _write(kind, records, file, generator)
        except OSError as error:
            raise WsdError(f"{path}: cannot be written: {reason(error)}") from error
        files[path] = len(records)
    return files


def _by_turn(answers: list[Answer], target: Path) -> Iterator[tuple[Path, list[Answer]]]:
    """Each turn alone, and the file for it."""
    for turn in range(max([1, *map(len, answers)])):
        path = target.with_name(f"{target.stem}.{turn + 1}{target.suffix}") if turn else target
        yield path, [[answer[turn]] for answer in answers if turn < len(answer)]


def formulas(target: Path) -> int:
    """The number of cells of a CSV export that a spreadsheet would evaluate as formulas; 0 for other exports.

    They stay as they are: the judges' programs read the text of an answer, and not what is displayed.
    """
    if target.suffix != ".csv":
        return 0
    with target.open(encoding="utf-8", newline="") as file:
        return sum(cell.startswith(_FORMULA) for row in csv.reader(file) for cell in row)


def export_path(output: Path, kind: str) -> Path:
    """Where an export belongs: beside the run's own file, whose name it continues."""
    stem = output.stem if output.suffix in (".json", ".jsonl") else output.name
    return output.with_name(f"{stem}.{kind}{_SUFFIXES.get(kind, '.jsonl')}")


# -- lines ---------------------------------------------------------------------------------------------------


def _answers(lines: Iterable[Line]) -> list[Answer]:
    """Lines by record: turns in their order, from the first to the first that is missing."""
    records: dict[int, dict[int, Line]] = {}
    for number, line in enumerate(lines, 1):
        if "text" not in line and "error" in line:
            continue
        for key, kind in _LINE.items():
            if not isinstance(line.get(key), kind):
                raise UsageError(f"line {number} of the run has no {key!r}: export what `run` has written")
        records.setdefault(line["index"], {})[line["turn"]] = line
    answers = ([turns[turn] for turn in takewhile(turns.__contains__, count())] for _, turns in sorted(records.items()))
    return [answer for answer in answers if answer]


def _question_id(line: Line) -> Any:
    return line["input"].get("question_id", line.get("id", str(line["index"])))


def _question(line: Line) -> str:
    """The user's last message."""
    asked = [message["content"] for message in line["messages"] if message["role"] == "user"]
    return str(asked[-1]) if asked else ""


# -- judges --------------------------------------------------------------------------------------------------


def _alpaca_eval(answers: list[Answer], generator: str) -> Iterator[Line]:
    for first, *_ in answers:
        given = first["input"]
        instruction = _question(first) if given.get("input") else given.get("instruction", _question(first))
        dataset = {"dataset": given["dataset"]} if "dataset" in given else {}
        yield {**dataset, "instruction": instruction, "output": first["text"], "generator": generator}


def _arena_hard(answers: list[Answer], generator: str) -> Iterator[Line]:
    for answer in answers:
        turns = [{"content": line["text"], "token_len": _tokens(line)} for line in answer]
        yield _model_answer(answer, turns, generator)


def _mt_bench(answers: list[Answer], generator: str) -> Iterator[Line]:
    for answer in answers:
        yield _model_answer(answer, [line["text"] for line in answer], generator)


def _model_answer(answer: Answer, turns: Sequence[Any], generator: str) -> Line:
    question, last = _question_id(answer[0]), answer[-1]
    seed = json.dumps([generator, question, [line["text"] for line in answer]])
    return {
        "question_id": question,
        "answer_id": str(uuid.uuid5(uuid.NAMESPACE_OID, seed)),
        "model_id": generator,
        "choices": [{"index": 0, "turns": turns}],
        "tstamp": last.get("finished_at") or 0,
    }


def _tokens(line: Line) -> int:
    return int(line["draft"]["kept_tokens"]) + int(line["base"]["tokens"])


def _truthfulqa(answers: list[Answer], generator: str) -> Iterator[Line]:
    for first, *_ in answers:
        row = {_column(key): _cell(value) for key, value in first["input"].items()}
        if generator in row:
            raise UsageError(f"the data set has a column {generator!r} already: choose another name for the generator")
        row.setdefault("Question", _question(first))
        yield {**row, generator: first["text"]}


def _column(key: str) -> str:
    """TruthfulQA's own name of a column, also where it is written as in the set's JSON."""
    usual = key.replace("_", " ").title()
    return usual if usual in _TRUTHFULQA else key


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "; ".join(value)
    return "" if value is None else json.dumps(value)


def _hh(answers: list[Answer], generator: str) -> Iterator[Line]:
    for first, *_ in answers:
        yield {**first["input"], "prompt": _transcript(first), "response": first["text"]}


def _transcript(line: Line) -> str:
    chosen = line["input"].get("chosen")
    if isinstance(chosen, str) and _ANSWER in chosen:
        return "".join(chosen.rpartition(_ANSWER)[:2])
    spoken = [message for message in line["messages"] if message["role"] in _SPEAKERS]
    text = "".join(f"\n\n{_SPEAKERS[message['role']]}: {message['content']}" for message in spoken)
    return text if spoken and spoken[-1]["role"] == "assistant" else text + _ANSWER


# -- the authors ---------------------------------------------------------------------------------------------


def _authors(answers: list[Answer], result_key: str) -> Iterator[Line]:
    for answer in answers:
        for line in answer:
            if missing := [key for key in _TOKENS if key not in line]:
                raise UsageError(
                    f"record {line['index']} was written without {missing[0]!r}, which the export for the authors' "
                    "programs needs: run again with --tokens"
                )
            if len(line.get("turns", ())) > 2:
                raise UsageError(
                    f"in record {line['index']} the models changed places {len(line['turns']) - 1} times, and the "
                    "authors' files have room for one switch: leave the export out, or take the rule window or entropy"
                )
            yield {
                "meta": _meta(line),
                **line["input"],
                "context": line["messages"],
                **_results(line),
                "result_key": result_key,
            }


def _meta(line: Line) -> str:
    """The name of a record as the authors' loaders make it, unless the input has one."""
    run = line.get("run")
    kind = run.get("format") if isinstance(run, dict) else None
    if kind is None:
        kind = "mt_bench" if "turns" in line["input"] else "naive"
    if kind == "hh":
        return f"hh_{line['index']}"
    named = {"mt_bench": f"mt_bench_{line['turn'] + 1}", "truthfulqa": "truthfulQA"}.get(kind, kind)
    return f"{named}:{line['index']}"


def _results(line: Line) -> Line:
    prompts, tokens = line["prompt_ids"], line["tokens"]
    prompt = list(prompts.get("base") or ())
    kept = [token for token in tokens if token["source"] == "draft"]
    ids = [token["id"] for token in kept]
    draft = {
        "text": line["draft"]["text"] + line["discarded"],
        "token_ids": line["draft_ids"],
        "probs": None,
        "finish_reason": _FINISHED.get(line["switch"]["reason"]),
    }
    checked = {
        "origin_prompt_token_ids": prompt,
        "drafted_prompt_token_ids": prompt + ids,
        "accept_index": len(prompt) + len(ids) - 1,
        "partial_accept_index": len(ids) - 1,
        "token_ids": ids,
        "text": line["draft"]["text"],
        "probs": [token["prob"] for token in kept],
    }
    whole = {
        "text": line["text"],
        "token_ids": [token["id"] for token in tokens],
        "probs": [token["prob"] for token in tokens],
        "finish_reason": line["finish_reason"],
    }
    return {
        "draft_result": {"prompt_token_ids": prompts.get("draft"), "prompt_probs": None, "outputs": [draft]},
        "target_input": [checked],
        "target_result": {"outputs": [whole]},
    }


# -- files ---------------------------------------------------------------------------------------------------


def _write(kind: str, records: list[Line], file: IO[str], generator: str) -> None:
    if kind == "alpaca_eval":
        json.dump(records, file, indent=1)
        file.write("\n")
    elif kind == "truthfulqa":
        columns = [name for name in dict.fromkeys(name for row in records for name in row) if name != generator]
        writer = csv.DictWriter(file, [*columns, generator], restval="")
        writer.writeheader()
        writer.writerows(records)
    else:
        file.writelines(json.dumps(record) + "\n" for record in records)


_WRITERS: dict[str, Callable[[list[Answer], str], Iterator[Line]]] = {
    "alpaca_eval": _alpaca_eval,
    "arena_hard": _arena_hard,
    "mt_bench": _mt_bench,
    "truthfulqa": _truthfulqa,
    "hh": _hh,
    "authors": _authors,
}
_SUFFIXES = {"alpaca_eval": ".json", "truthfulqa": ".csv"}

EXPORTS: tuple[str, ...] = tuple(_WRITERS)
