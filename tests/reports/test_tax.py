"""`wsd-local eval tax`: marks equal to lm-evaluation-harness', and figures recounted from the files of replies."""

from __future__ import annotations

import json
import operator
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import wsd

from wsd_local.datasets import read
from wsd_local.errors import UsageError
from wsd_local.reports import gsm8k, humaneval
from wsd_local.reports.columns import columns_of
from wsd_local.reports.tax import asked, marked, measured
from wsd_local.system.untrusted import execute

PROBLEMS = [
    {"question": "What is 2 + 3?", "answer": "2 + 3 = 5.\n#### 5"},
    {"question": "Ten boxes of 120 nails?", "answer": "It is 1,200.\n#### 1,200"},
    {"question": "Four less than one?", "answer": "1 - 4 = -3\n#### -3"},
]
FUNCTIONS = [
    {
        "task_id": "Own/0",
        "prompt": 'def double(n: int) -> int:\n    """Twice n."""\n',
        "entry_point": "double",
        "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(-1) == -2\n",
    },
    {
        "task_id": "Own/1",
        "prompt": "from typing import List\n\n\ndef last(items: List[int]) -> int:\n    # The last one.\n",
        "entry_point": "last",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 2\n",
    },
]
ANSWERS = [
    "#### 5", "5", "It is 5.", "#### 5.", "#### 5 and then 7", "#### $5", "$5", "5,", "#### 1,200", "1200", "1,200.",
    "$1,200.00", "1,200.0", "#### -3", "-3", "- 3", "3-", "2-3", "--3", "-$3", "no number", "", " ", "....", "#### .",
    "####" + "5", "#### five", "## 5", "5 #### ", "#### 5\n#### 6", "6\n#### 5", "The answer is 5\n\n6", "5%", "5.0",
    "05",
    "５", "#### ５", "1e3", "5\u00a0", "#### 5\x00", "5/1", "$", "$$", ",,", "-", "#### -", "5...", "x5y", "5\n" * 50,
]  # fmt: skip
"""Ends of replies, ordinary ones and odd ones."""
COMPLETIONS = [
    "\n    return n * 2", "\n    return items[-1]", "    return n * 2\n",
    "\n    return n * 2\n```\nThat doubles it.",
    "\n    return items[-1]\n\n# Test\nprint(1 / 0)", "\n    return n", "\n    pass", "", "return n * 2",
    "\n    return (",
    "\n    import os\n    os._exit(0)", "\n    import sys\n    sys.exit(0)", "\n    raise SystemExit", "\n    exit()",
    "\n    while True: pass", "\n    return 'a' * (1 << 45)", "\n    return double(n)", "\n    return input()",
    "\n    class Any:\n        def __eq__(self, _): return True\n    return Any()", "```\n    return n * 2",
    "\n    return n * 2\n\ndef check(candidate): pass", "\n    print(n)\n    return n * 2", "\n    assert False",
    "\n    return n * 2\n\nif __name__ == '__main__':\n    raise ValueError", "\n\treturn n * 2", "\n    return n × 2",
]  # fmt: skip

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
ROOT = Path(__file__).parents[2]

HARNESS = """
import contextlib, importlib.util, io, json, os, sys, multiprocessing, yaml
from pathlib import Path
import numpy as np, evaluate, lm_eval
from lm_eval.filters.extraction import RegexFilter
from lm_eval.api.metrics import exact_match_fn

given = json.load(sys.stdin)
tasks = Path(lm_eval.__file__).parent / "tasks"
task = yaml.safe_load((tasks / "gsm8k" / "gsm8k.yaml").read_text())
options = ("regexes_to_ignore", "ignore_case", "ignore_punctuation")
metric = {k: task["metric_list"][0][k] for k in options}
marks = []
for text, answer in given["answers"]:
    row = {}
    for chain in task["filter_list"]:
        options = {k: v for k, v in chain["filter"][0].items() if k != "function"}
        (found,) = RegexFilter(**options).apply([[text]], [{}])
        row[chain["name"]] = bool(exact_match_fn(predictions=[found[0]], references=[answer], **metric)["exact_match"])
    marks.append([row["flexible-extract"], row["strict-match"]])

class Nothing:
    def compute(self, **_): return [None]
evaluate.load = lambda *_: Nothing()  # its metric code_eval is a download; below is how that executes a program
spec = importlib.util.spec_from_file_location("utils", tasks / "humaneval" / "utils.py")
utils = importlib.util.module_from_spec(spec)
spec.loader.exec_module(utils)

def passes(program, result):
    devnull = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(devnull, stream)
    for name in ("_exit", "kill", "system", "fork"):
        setattr(os, name, None)
    try:
        exec(program, {})
    except BaseException:
        return
    result.value = 1

verdicts = []
for record, completion in given["programs"]:
    ((program,),) = utils.build_predictions_instruct([[completion]], [record])
    reference = record["test"] + "\\ncheck(" + record["entry_point"] + ")"
    result = multiprocessing.Value("i", 0)
    process = multiprocessing.get_context("fork").Process(target=passes, args=(program + "\\n" + reference, result))
    process.start()
    process.join(3)
    if process.is_alive():
        process.kill()
        process.join()
    verdicts.append(bool(result.value))
json.dump([marks, verdicts], sys.stdout)
"""


def run(source: str) -> tuple[bool, str]:
    found = execute(source)
    return found.succeeded, found.why


def line(index: int, record: dict[str, Any], text: str) -> dict[str, Any]:
    return {"index": index, "id": str(index), "input": record, "text": text}


def test_marks_are_those_of_lm_evaluation_harness() -> None:
    program = Path(os.environ.get("WSD_TEST_LM_EVAL") or ROOT / ".venv" / "lm-eval" / "bin" / "lm_eval")
    if not program.is_file():
        pytest.skip(f"expected: there is no {program} (set WSD_TEST_LM_EVAL)")
    answers = [(text, problem["answer"]) for text in ANSWERS for problem in PROBLEMS]
    programs = [(record, text) for text in COMPLETIONS for record in FUNCTIONS]
    done = subprocess.run(
        [program.parent / "python", "-c", HARNESS],
        input=json.dumps({"answers": answers, "programs": programs}),
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    theirs, verdicts = json.loads(done.stdout)
    for (text, answer), (flexible, strict) in zip(answers, theirs, strict=True):
        mark = marked("gsm8k", line(0, {"answer": answer}, text), run)
        assert (mark.right, mark.strict) == (flexible, strict), (text, answer)
    for (record, text), passed in zip(programs, verdicts, strict=True):
        assert marked("humaneval", line(0, record, text), run).right == passed, (record["task_id"], text)
    assert 0 < sum(verdicts) < len(verdicts)


@pytest.mark.parametrize(
    ("text", "last", "stated"),
    [
        ("It takes 2 + 3 = 5 days.\n#### 5", "5", "5"),
        ("#### 5\nor 7", "7", "5"),
        ("$1,200.50.", "$1,200.50.", None),
        ("none", None, None),
        ("-4", "-4", None),
    ],
)
def test_numbers_are_found_where_a_text_ends_and_where_it_states_them(
    text: str, last: str | None, stated: str | None
) -> None:
    assert (gsm8k.flexible(text), gsm8k.strict(text)) == (last, stated)


def test_every_example_is_right_by_its_own_answer() -> None:
    assert len(gsm8k.EXAMPLES) == 4
    for question, answer in gsm8k.EXAMPLES:
        assert question.endswith("?")
        assert gsm8k.is_right(gsm8k.flexible(answer), answer) and gsm8k.is_right(gsm8k.strict(answer), answer)
        sums = re.findall(r"([\d.]+) ([-+*/]) ([\d.]+) = \$?(\d+)", answer)
        assert len(sums) == answer.count("=")
        for left, sign, right, result in sums:
            assert OPERATIONS[sign](float(left), float(right)) == float(result)


def test_a_program_is_the_prompt_the_completion_and_the_test() -> None:
    record = FUNCTIONS[0]
    assert run(humaneval.program(record, "\n    return 2 * n\n```\nfree text"))[0]
    assert run(humaneval.program(record, "\n    return n")) == (False, "AssertionError")


def test_records_without_what_a_task_needs_are_bad(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in [*PROBLEMS, {"question": "What?"}]))
    found = asked("gsm8k", read(path))
    assert [item.index for item in found.items] == [0, 1, 2]
    assert [(one.index, "answer" in one.reason) for one in found.bad] == [(3, True)]
    assert [len(item.messages) for item in found.items] == [9, 9, 9]
    assert found.items[0].messages[-1] == {"role": "user", "content": "What is 2 + 3?"}


def test_columns_are_compared_on_what_all_of_them_answered() -> None:
    texts: dict[str, list[str | None]] = {"base": ["5", "1", "3"], "wsd": ["5", "1200", None]}
    marks = {
        name: [marked("gsm8k", line(n, PROBLEMS[n], text), run) for n, text in enumerate(found) if text is not None]
        for name, found in texts.items()
    }
    found = measured("gsm8k", 3, marks)
    assert (found.asked, found.answered) == (3, 2)
    assert (found.right["base"].value, found.right["wsd"].value) == (0.5, 1.0)
    (compared,) = found.comparisons
    assert (compared.test.only_first, compared.test.only_second, compared.difference.value) == (0, 1, 0.5)


def test_columns_have_names_with_numbers() -> None:
    found = {column.name: dict(column.settings) for column in columns_of("base, wsd@0.7,fixed:3,entropy@0.2,return")}
    assert found == {
        "base": {"mode": "base"},
        "wsd@0.7": {"rule": "window", "threshold": 0.7},
        "fixed:3": {"mode": "fixed:3"},
        "entropy@0.2": {"rule": "entropy", "entropy": 0.2},
        "return": {"rule": "return"},
    }


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("", "no column"),
        ("bas", "base"),
        ("wsd,wsd", "same"),
        ("wsd@0.8x", "no number"),
        ("base@0.5", "no threshold"),
        ("fixed:0", "fixed:K"),
        ("wsd,window", "same"),
    ],
)
def test_columns_that_are_none(names: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        columns_of(names)


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    files = {"gsm8k": PROBLEMS, "humaneval": FUNCTIONS}
    for name, records in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return [word for name in files for word in (f"--{name}", str(tmp_path / f"{name}.jsonl"))]


def evaluated(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    usual = ["--threads", "1", "--max-tokens", "12", "--parallel", "2", "--quiet", "--json"]
    done = wsd("eval", "tax", "demo", "--out", str(tmp_path / "out"), *usual, *arguments)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_marks_every_column_and_the_same_command_goes_on(tmp_path: Path, sets: list[str]) -> None:
    first = evaluated(tmp_path, *sets, "--limit", "1", "--allow-code-execution", "--columns", "base,wsd,entropy")
    out = tmp_path / "out"
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(kept) == {f"{task}.{way}.jsonl" for task in ("gsm8k", "humaneval") for way in ("base", "wsd", "entropy")}
    assert [one["answered"] for one in first["tasks"]] == [1, 1]
    whole = evaluated(tmp_path, *sets, "--allow-code-execution", "--columns", "base,wsd,entropy")
    assert [one["answered"] for one in whole["tasks"]] == [3, 2]
    for name, before in kept.items():
        assert (out / name).read_bytes().startswith(before)
    for one in whole["tasks"]:
        for way, marks in one["marks"].items():
            lines = [json.loads(text) for text in (out / f"{one['task']}.{way}.jsonl").read_text().splitlines()]
            assert [mark["right"] for mark in marks] == [marked(one["task"], values, run).right for values in lines]
            assert one["right"][way]["value"] == pytest.approx(sum(mark["right"] for mark in marks) / len(marks))
    assert any("executed" in note for note in whole["notes"])
    modes = {name: made["settings"]["mode"] for name, made in whole["runs"].items()}
    assert modes["gsm8k.base"] == "base" and modes["gsm8k.wsd"] == "wsd"


def test_shards_together_are_the_whole(tmp_path: Path, sets: list[str]) -> None:
    for shard in ("1/2", "2/2"):
        evaluated(tmp_path, *sets[:2], "--shard", shard, "--columns", "base,draft")
    whole = evaluated(tmp_path, *sets[:2], "--columns", "base,draft")
    assert [mark["index"] for mark in whole["tasks"][0]["marks"]["draft"]] == [0, 1, 2]


def test_nothing_is_executed_without_permission(tmp_path: Path, sets: list[str]) -> None:
    done = wsd("eval", "tax", "demo", "--out", str(tmp_path / "out"), *sets)
    assert done.returncode == 2 and b"--allow-code-execution" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_page_shows_the_tables(tmp_path: Path, sets: list[str]) -> None:
    page = tmp_path / "page.html"
    evaluated(tmp_path, *sets[:2], "--limit", "1", "--columns", "base,wsd", "--html", str(page))
    text = page.read_text()
    assert "GSM8K" in text and "base and wsd" in text and "McNemar" in text and "SHA-256" in text
