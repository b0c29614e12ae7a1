"""A converted draft on the real engine: each defect that a file can have is found, and a sound file has none.

What transformers would make of the checkpoint is computed here from the sound file itself, so that every difference is
the defect's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from altered import altered, weights_of
from makers import f32_copy, strings

from wsd_local.core.contexts import Question
from wsd_local.errors import RefusedError
from wsd_local.library.gguf import Array, read_header, read_model
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.prompts.draft_format import template_values
from wsd_local.prompts.templates import Template
from wsd_local.reports.draft_check import loaded, measuring
from wsd_local.reports.draft_check.conversations import ASKED, CONVERSATIONS, READ
from wsd_local.reports.draft_check.judging import Judgement, judge
from wsd_local.reports.draft_check.reference import POSITIONS, Prompt, Reference
from wsd_local.reports.verdicts import Finding

NOW = datetime(2026, 1, 2)
END = 1279
SYSTEM_REFUSED = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
QUERY, FACTORS = "blk.0.attn_q.weight", "rope_freqs.weight"


def rendered(model: Model) -> list[dict[str, Any]]:
    template, found = Template(), []
    assert model.chat_template is not None
    template.compile(model.chat_template, "the template")
    for one in CONVERSATIONS:
        try:
            values = {**template_values(model), "add_generation_prompt": one.generation}
            text, _ = template.render([one.messages], values, NOW)
            found.append({"text": text, "tokens": model.tokenize_template(text, "\ufdd0")})
        except RefusedError as error:
            found.append({"refused": str(error)})
    template.close()
    return found


def prompts(model: Model) -> tuple[Prompt, ...]:
    options = ContextOptions(n_ctx=512, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off", n_rows=16)
    context = Context(model, options, Cancellation())
    found = []
    for messages in READ:
        tokens = model.tokenize(messages[1]["content"])
        rows: list[Any] = []

        def answer(_: int, row: int, rows: list[Any] = rows) -> None:
            rows.append(np.log(context.distribution(row)).astype(np.float32))

        context.ask(Question(0, tokens, len(tokens) - POSITIONS, answer))
        found.append(Prompt(tokens, np.stack(rows)))
    context.close()
    return tuple(found)


@pytest.fixture(scope="module")
def sound(demo_q8: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return f32_copy(demo_q8[0], tmp_path_factory.mktemp("sound") / "sound.gguf")


@pytest.fixture(scope="module")
def reference(sound: Path) -> Reference:
    with Model(sound) as model:
        answer = {
            "has_template": True,
            "rendered": rendered(model),
            "ends": {"turn": END, "tokenizer": [END], "listed": [END], "spelled": {str(END): "<|im_end|>"}},
            "vocabulary": {"tokens": model.n_vocab, "rows": model.n_vocab},
            "tied": True,
            "positions": {"kind": "default", "theta": 10000.0, "factors": []},
        }
        return Reference("Tiny", answer, NOW, prompts(model))


def judged(reference: Reference, file: Path, unquantised: Path | None = None) -> Judgement:
    return judge(measuring.measured(reference, read_model(file), unquantised, threads=1))


def finding(found: Judgement, symptom: str) -> Finding:
    return next(one for one in found.findings if one.symptom.startswith(symptom))


def faults(found: Judgement) -> list[str]:
    return [one.symptom.split(" of ")[0] for one in found.findings if one.verdict == "fault"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short replies: they are no matter where a defect is looked for elsewhere."""
    monkeypatch.setattr(loaded, "REPLY", 2)
    monkeypatch.setattr(loaded, "ASKED", ASKED[:2])


def test_a_sound_file_is_as_trained(
    reference: Reference, sound: Path, demo_q8: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "REPLY", 64)
    found = judged(reference, demo_q8[0], sound)
    assert found.verdict == "as trained", [one.line() for one in found.findings]
    unquantised, quantised = found.figures.logits
    assert unquantised.divergence is not None and quantised.divergence is not None
    assert unquantised.divergence < 1e-7 < quantised.divergence < 0.01
    assert (round(unquantised.bits), round(quantised.bits, 1)) == (32, 8.5)
    assert unquantised.agreement == 1.0 and unquantised.positions == POSITIONS * len(READ)
    assert found.figures.endings.count == 20 and found.figures.endings.ended > 10


def test_what_is_no_number_is_no_copy() -> None:
    theirs = np.log(np.array([0.25, 0.75], dtype=np.float32))
    assert loaded.compared(theirs, np.array([0.25, 0.75])) == pytest.approx((0.0, True, 0.0), abs=1e-6)
    divergence, same, largest = loaded.compared(theirs, np.array([0.75, 0.25]))
    assert (divergence, same, largest) == pytest.approx((0.5 * np.log(3), False, np.log(3)), rel=1e-5)
    assert np.isnan(loaded.compared(theirs, np.array([np.nan, 0.5]))[0])


# -- what a file can have --------------------------------------------------------------------------------------


def permuted(src: Path) -> dict[str, Any]:
    return {QUERY: weights_of(src, QUERY)[::-1].copy()}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("entries", "tensors", "symptom", "words"),
    [
        ({"tokenizer.chat_template": None}, None, "chat template", "the file has none"),
        ({"tokenizer.chat_template": "{{ messages[0].content }}"}, None, "chat template", "in transformers, "),
        ({"tokenizer.ggml.eos_token_id": 20, "tokenizer.ggml.eot_token_id": 20}, None, "end tokens", "none of the che"),
        ({"llama.rope.freq_base": 500000.0}, None, "positions", "another base"),
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, None, "positions", "another way"),
        (None, permuted, "logits", "not the checkpoint's"),
        (
            None,
            lambda src: {"output.weight": weights_of(src, "token_embd.weight")[::-1].copy()},
            "output layer",
            "uses",
        ),
        (None, lambda src: {FACTORS: np.linspace(1, 8, 16, dtype=np.float32)}, "positions", "other factors"),
    ],
    ids=["no template", "template", "eos", "base", "scaling", "permuted", "untied", "factors"],
)
def test_a_defect_of_the_file_is_found(
    entries: dict[str, Any] | None,
    tensors: Callable[[Path], dict[str, Any]] | None,
    symptom: str,
    words: str,
    reference: Reference,
    sound: Path,
    tmp_path: Path,
) -> None:
    file = altered(sound, tmp_path / "altered.gguf", entries, None if tensors is None else tensors(sound))
    found = judged(reference, file)
    assert found.verdict == "not as trained"
    assert symptom in faults(found) and words in finding(found, symptom).line()
    assert finding(found, symptom).remedy and finding(found, symptom).line().startswith("fault ")


@pytest.mark.usefixtures("quick")
def test_a_cut_vocabulary_is_found(reference: Reference, sound: Path, tmp_path: Path) -> None:
    """The first tokens are gone: llama.cpp loads it, and all others have other numbers."""
    header, gone = read_header(sound), 8
    tokens, kinds = (header.metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    assert isinstance(tokens, Array) and isinstance(kinds, Array)
    entries: dict[str, Any] = {
        "tokenizer.ggml.tokens": list(strings(tokens))[gone:],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds.numbers()[gone:]],
        "llama.vocab_size": tokens.count - gone,
    }
    for name in ("bos", "eos", "eot"):
        number = header.integer(f"tokenizer.ggml.{name}_token_id")
        assert number is not None
        entries[f"tokenizer.ggml.{name}_token_id"] = number - gone
    rows = weights_of(sound, "token_embd.weight")[gone:].copy()
    found = judged(reference, altered(sound, tmp_path / "cut.gguf", entries, {"token_embd.weight": rows}))
    assert {"vocabulary", "tokens", "logits"} <= set(faults(found))
    assert "1280 tokens and 1280 rows in the checkpoint (0 of padding), 1272 tokens" in finding(found, "vocab").figure
    assert "another vocabulary" in finding(found, "logits").figure


@pytest.mark.usefixtures("quick")
def test_a_template_must_refuse_what_transformers_refuses(reference: Reference, sound: Path, tmp_path: Path) -> None:
    template = read_header(sound).text("tokenizer.chat_template") or ""
    strict = altered(sound, tmp_path / "strict.gguf", {"tokenizer.chat_template": SYSTEM_REFUSED + template})
    one_sided = finding(judged(reference, strict), "chat template")
    assert one_sided.verdict == "fault" and "a system message: the file's template refuses" in one_sided.figure
    with Model(strict) as model:
        refusing = replace(reference, answer={**reference.answer, "rendered": rendered(model)})
    both = finding(judged(refusing, strict), "chat template")
    assert both.verdict == "ok" and both.figure == "8 of 10 conversations rendered alike, 2 refused by both"
    other = finding(judged(refusing, sound), "chat template")
    assert other.verdict == "fault" and "transformers refuses it" in other.figure


# -- what a checkpoint can have ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("changes", "symptom", "verdict", "words"),
    [
        ({"tied": False}, "output layer", "fault", "instead of the output that was trained"),
        (
            {"positions": {"kind": "llama3", "theta": 10000.0, "factors": [1.0] * 8 + [8.0] * 8}},
            "positions",
            "fault",
            "factors of Llama 3's scaling are missing",
        ),
        ({"vocabulary": {"tokens": 1280, "rows": 1344}}, "vocabulary", "warning", "only padding differs"),
        (
            {"ends": {"turn": 30, "tokenizer": [30], "listed": [END], "spelled": {"30": "?", str(END): "<|im_end|>"}}},
            "end tokens",
            "fault",
            "llama.cpp does not end at ?",
        ),
        (
            {"ends": {"turn": None, "tokenizer": [END], "listed": [], "spelled": {str(END): "<|im_end|>"}}},
            "end tokens",
            "warning",
            "no end after a reply",
        ),
        (
            {"ends": {"turn": END, "tokenizer": [END], "listed": [7, END], "spelled": {"7": "(", str(END): "<e>"}}},
            "end tokens",
            "warning",
            "llama.cpp does not end at (",
        ),
        ({"has_template": False}, "chat template", "warning", "Tiny has none, the file has one"),
    ],
    ids=["untied", "llama3", "padding", "turn", "no end", "other end", "no template"],
)
def test_what_the_checkpoint_has_and_the_file_has_not(
    changes: dict[str, Any], symptom: str, verdict: str, words: str, reference: Reference, sound: Path
) -> None:
    found = judged(replace(reference, answer={**reference.answer, **changes}), sound)
    assert finding(found, symptom).verdict == verdict
    assert words in finding(found, symptom).line()


@pytest.mark.usefixtures("quick")
def test_a_token_in_front_is_a_warning_and_any_other_difference_a_fault(reference: Reference, sound: Path) -> None:
    without = copy.deepcopy(reference.answer["rendered"])
    for one in without:
        assert one["tokens"].pop(0) == 1277
    plain = finding(judged(replace(reference, answer={**reference.answer, "rendered": without}), sound), "tokens")
    assert plain.verdict == "warning" and "10 but for BOS in front" in plain.figure
    without[3]["tokens"][2] += 1
    wrong = finding(judged(replace(reference, answer={**reference.answer, "rendered": without}), sound), "tokens")
    assert wrong.verdict == "fault" and "in transformers, " in wrong.figure


def test_a_draft_that_never_ends_is_found(reference: Reference, sound: Path, tmp_path: Path) -> None:
    """A model whose weights do not belong together: it writes noise to the limit."""
    random = np.random.default_rng(0)
    noise = {"token_embd.weight": random.normal(0, 1, (1280, 128)).astype(np.float32)}
    found = finding(judged(reference, altered(sound, tmp_path / "noise.gguf", None, noise)), "endings")
    assert found.verdict == "fault" and found.figure.startswith("0 of 20 replies ended")
