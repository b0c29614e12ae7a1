"""Texts to test on: the public data folder, where it is there, and small fixtures of our own.

The public sets are not part of the project (their licences differ). A test that asks for one is skipped where
the whole folder is absent; a file that is missing from a folder that is there is an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

Conversation = list[dict[str, str]]

FIXTURES = Path(__file__).parent / "fixtures"
_DEFAULT = Path(__file__).parents[2] / "shared" / "data"
_LLAMA_CPP = Path(__file__).parents[1] / ".venv" / "llama.cpp"
_SYSTEM_MESSAGES = (
    "Answer in one short paragraph.",
    "You help people who are new to the subject. Avoid jargon.",
    "Reply in the language of the question.\n\nIf you are not sure, say so.",
)
_PREFIXES = ("Sure. ", "The short answer is", "First,\n\n1. ", "```python\ndef ", "**Answer**: ")


# --- public data ---------------------------------------------------------------------------------------


def shared(name: str) -> Path:
    """A file of the public data folder: `WSD_TEST_DATA`, else `../shared/data` beside the repository."""
    if "PYTEST_CURRENT_TEST" not in os.environ:
        raise RuntimeError(f"{name} is asked for while tests are collected, which fails where the folder is missing")
    folder = Path(os.environ.get("WSD_TEST_DATA") or _DEFAULT)
    if not folder.is_dir():
        pytest.skip(f"expected: no public data folder at {folder} (set WSD_TEST_DATA)")
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing from the public data folder")
    return path


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _mt_bench_turns() -> list[list[str]]:
    return [record["turns"] for record in _json_lines(shared("mt_bench/question.jsonl"))]


def mt_bench_first_turns() -> list[str]:
    """The 80 first questions of MT-Bench."""
    return [turns[0] for turns in _mt_bench_turns()]


def _alpaca(name: str) -> list[dict[str, str]]:
    path = shared(f"alpaca_eval/{name}.model_outputs.json")
    records: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return records


def alpaca_instructions(n: int) -> list[str]:
    """The first `n` instructions of AlpacaEval."""
    return [record["instruction"] for record in _alpaca("text_davinci_003")[:n]]


def llama3_replies(n: int) -> list[tuple[str, str]]:
    """`n` pairs of an AlpacaEval instruction and Llama-3-8B-Instruct's reply: real draft text."""
    return [(record["instruction"], record["output"]) for record in _alpaca("Meta-Llama-3-8B-Instruct")[:n]]


def shortened(text: str, limit: int) -> str:
    """The beginning of `text`, at most `limit` characters, ended at a space where there is one."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    return head[: head.rfind(" ")] if " " in head else head


def multi_turn(n: int) -> list[Conversation]:
    """`n` conversations of 2 to 4 user turns; every third has a system message, every fourth a prefix."""
    questions, pairs = _mt_bench_turns(), llama3_replies(805)
    return [_conversation(number, questions[number % len(questions)], pairs) for number in range(n)]


def _conversation(number: int, questions: list[str], pairs: list[tuple[str, str]]) -> Conversation:
    turns = 2 + number % 3
    exchanges = [pairs[(number * 7 + turn * 131) % len(pairs)] for turn in range(turns)]
    asked = [*questions, *(shortened(question, 300) for question, _ in exchanges)][:turns]
    messages: Conversation = []
    if number % 3 == 1:
        system = _SYSTEM_MESSAGES[number // 3 % len(_SYSTEM_MESSAGES)]
        messages.append({"role": "system", "content": system})
    for question, (_, reply) in zip(asked, exchanges, strict=True):
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": shortened(reply, 240)})
    messages.pop()
    if number % 4 == 3:
        messages.append({"role": "assistant", "content": _PREFIXES[number // 4 % len(_PREFIXES)]})
    return messages


VOCABULARIES = ("gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")
"""Names of the production tokenizers."""


def vocabularies() -> list[Path]:
    """The production tokenizers, as GGUF files without weights."""
    return sorted(shared("vocabs").glob("ggml-vocab-*.gguf"))


def vocabulary(name: str) -> Path:
    """One production tokenizer by its name, one of `VOCABULARIES`."""
    return shared(f"vocabs/ggml-vocab-{name}.gguf")


def vocab_cases(vocab: Path) -> list[tuple[str, list[int]]]:
    """llama.cpp's own test cases of one vocabulary: text and the expected token ids."""
    texts = Path(f"{vocab}.inp").read_bytes().decode("utf-8").split("\n__ggml_vocab_test__\n")
    lines = Path(f"{vocab}.out").read_text(encoding="utf-8").splitlines()
    if len(texts) == len(lines) + 1 and not texts[-1]:
        texts.pop()
    return [(text, [int(token) for token in line.split()]) for text, line in zip(texts, lines, strict=True)]


def llama_cpp_templates() -> list[Path]:
    """Chat templates in the source archive of the pinned llama-cpp-python."""
    folder = Path(os.environ.get("WSD_TEST_LLAMA_CPP") or _LLAMA_CPP) / "models" / "templates"
    if not folder.is_dir():
        pytest.skip(f"expected: no source of llama.cpp at {folder.parents[1]} (set WSD_TEST_LLAMA_CPP)")
    return sorted(folder.glob("*.jinja"))


# --- our own -------------------------------------------------------------------------------------------


def fixture_prompts() -> list[dict[str, str]]:
    """Prompts with a reply each, in many scripts and shapes: `name`, `prompt`, `reply`."""
    return list(_json_lines(FIXTURES / "prompts.jsonl"))


def fixture_conversations() -> list[tuple[str, Conversation]]:
    """Named conversations: system messages, several turns, supplied assistant prefixes."""
    records = _json_lines(FIXTURES / "conversations.jsonl")
    return [(record["name"], record["messages"]) for record in records]


def fixture_texts() -> Iterator[str]:
    """Every text of the fixtures."""
    for record in fixture_prompts():
        yield from (record["prompt"], record["reply"])
    for _, messages in fixture_conversations():
        yield from (message["content"] for message in messages)


def texts_by_script() -> dict[str, list[str]]:
    """Short texts of our own, by what makes them hard to cut into tokens."""
    family, flag, scientist = "👨‍👩‍👧‍👦", "🏳️‍🌈", "👩🏽‍🔬"
    return {
        "Chinese": [
            "面包应该放在纸袋里，不要放进冰箱。冰箱会让它更快变硬。切开以后，把切面朝下放在木板上。",
            "好的，我来解释一下。首先，把水烧开；然后，加入面条，煮八分钟。最后关火，盖上盖子等一等。",
            "一二三四五六七八九十百千万亿，这些都是数字。「你好！」他说。……",
        ],
        "Japanese": [
            "パンは紙の袋に入れて、涼しい所に置いてください。冷蔵庫に入れると、早く固くなります。",
            "もちろんです！まず、お湯を沸かします。次に、卵をそっと入れて、八分待ちます。",
            "ヴァイオリンとチェロとコントラバスは、どれも弦楽器です。ーーーーーー",
        ],
        "Arabic": [
            "احفظ الخبز في كيس من الورق في مكان بارد وجاف، ولا تضعه في الثلاجة لأنه يجف بسرعة.",
            "بالتأكيد! أولاً، اغلِ الماء، ثم ضع البيضة فيه ثماني دقائق، وبعد ذلك بردها بالماء البارد.",
            "قَرَأَ الطَّالِبُ كِتَابًا طَوِيلًا فِي المَكْتَبَةِ. ١٢٣٤٥٦",
        ],
        "Indic, Thai": [
            "रोटी को कागज़ के थैले में रखें और फ्रिज में न रखें, क्योंकि वहाँ वह जल्दी सूख जाती है।",
            "เก็บขนมปังไว้ในถุงกระดาษในที่เย็นและแห้ง อย่าใส่ในตู้เย็นเพราะจะแข็งเร็ว",
        ],
        "emoji": [
            f"A family {family} and a flag {flag} met {scientist} on a boat {'🚣🏿‍♀️' * 3}, then left. {family * 4}",
            f"{flag * 6} {scientist * 6} 1️⃣2️⃣3️⃣ ❤️‍🔥 done!",
        ],
        "code, tabs": [
            "Sure:\n\n```python\ndef f(x):\n\tif x:\n\t\treturn [\n\t\t\t1,\n\t\t\t2,\n\t\t]\n\treturn None\n```",
            '```c\n#include <stdio.h>\n\nint main(void)\n{\n\t\tprintf("%d\\n", 0xFF);\n\t\treturn 0;\n}\n```',
            "a\tb\t\tc\t\t\td\n1\t2\t\t3\t\t\t4\n" + "\t" * 20 + "end of the table.",
        ],
        "blank lines": [
            "First.\n\n\nSecond.\n\n\n\n\nThird.\n \n \n\nFourth.\r\n\r\nFifth.\n\n\n\n\n\n\n\n\nLast.",
            "One" + "\n" * 30 + "two" + " " * 30 + "three" + "\n \n" * 10 + "four.",
        ],
        "no spaces": [
            "https://example.org/a/very/long/path/without/any/space?query=0123456789abcdef&other=" + "xyz" * 25,
            "-" * 90 + "|" + "=" * 90,
            "thequickbrownfoxjumpsoverthelazydog" * 5 + "!" + "ha" * 60,
        ],
    }
