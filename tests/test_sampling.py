"""Sampling of draft and base apart, penalties, grammars and adapters, on the real engine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare import EXACT, Tally, exact_oracle, exact_pair, sampled
from data_sets import fixture_prompts, vocabularies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import kin_pair, random_llama
from makers_more import merged, random_lora
from scripted import Says

from wsd_local.errors import ModelError, UsageError, WsdError
from wsd_local.events import Notice
from wsd_local.llama import Cancellation, Context, ContextOptions, Grammar, Model, Question, Sampler
from wsd_local.pairs import Pair
from wsd_local.sampling import Sampling
from wsd_local.settings import LoadSettings, ReplySettings

PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]
HOT: dict[str, Any] = {"threshold": 0.3, "max_tokens": 50, "draft_max_tokens": 40}
JSON_TEXT = r"""root ::= "{" pair ("," pair)* "}"
pair ::= "\"" [a-z]+ "\":" [0-9]+
"""


@pytest.fixture(scope="module")
def pair(kin: tuple[Path, Path]) -> Iterator[Pair]:
    with exact_pair(kin) as pair:
        yield pair


# --- sampling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.9},
        {"draft_temperature": 0.9},
        {"temperature": 0.8, "draft_temperature": 1.2, "draft_top_k": 40, "top_p": 0.9, "min_p": 0.05},
        {"repeat_penalty": 1.3, "frequency_penalty": 0.4, "draft_presence_penalty": 0.5, "draft_temperature": 0.7},
    ],
)
def test_the_same_seed_gives_the_same_reply_whatever_the_chunk(pair: Pair, sampling: dict[str, Any]) -> None:
    replies = [pair.reply(PROMPTS[4], seed=7, check_chunk=chunk, **HOT, **sampling) for chunk in (1, 6, 8, 512)]
    assert len({(reply.text, reply.switch.index) for reply in replies}) == 1


def test_other_seeds_give_other_replies(pair: Pair) -> None:
    for name in ("temperature", "draft_temperature"):
        texts = {pair.reply(PROMPTS[4], seed=seed, **HOT, **{name: 1.0}).text for seed in range(6)}
        assert len(texts) > 2, name


def test_draft_and_base_are_sampled_apart(pair: Pair) -> None:
    greedy = pair.reply(PROMPTS[4], **HOT)
    hot_base = pair.reply(PROMPTS[4], temperature=1.5, seed=1, **HOT)
    hot_draft = pair.reply(PROMPTS[4], draft_temperature=1.5, seed=1, **HOT)
    assert hot_base.draft.text == greedy.draft.text
    assert hot_base.base.text != greedy.base.text
    assert hot_draft.draft.text != greedy.draft.text


def test_a_draft_seed_of_its_own(pair: Pair) -> None:
    asked: dict[str, Any] = {**HOT, "threshold": 0.0, "draft_temperature": 1.0, "temperature": 1.0}
    first = pair.reply(PROMPTS[4], seed=1, draft_seed=5, **asked)
    second = pair.reply(PROMPTS[4], seed=2, draft_seed=5, **asked)
    drafted = (first.draft.text + first.discarded, second.draft.text + second.discarded)
    assert drafted[0][: len(drafted[1])] == drafted[1][: len(drafted[0])]
    assert first.text != second.text
    assert (first.provenance["settings"]["seed"], first.provenance["settings"]["draft_seed"]) == (1, 5)


def test_the_check_uses_the_plain_distribution(kin: tuple[Path, Path]) -> None:
    """A sampled draft's probabilities are those of the base at temperature 1, whatever the base samples with."""
    oracle = exact_oracle(kin)
    with exact_pair(kin) as pair:
        reply = pair.reply(
            PROMPTS[4], temperature=0.3, top_k=3, repeat_penalty=1.5, draft_temperature=1.0, seed=3, **HOT
        )
    drafted = reply.draft.text + reply.discarded
    theirs = oracle.reply([{"role": "user", "content": PROMPTS[4]}], threshold=2.0, draft_text=drafted)
    oracle.close()
    ours = [token.prob for token in reply.tokens if token.source == "draft"]
    assert len(ours) > 5
    assert ours == pytest.approx(theirs.probs[: len(ours)], abs=1e-4)


def penalised(row: np.ndarray, before: list[int], sampling: Sampling) -> int:
    """What llama.cpp's documentation says of penalties, read off it: the favourite behind the last tokens."""
    logits = row.astype(np.float64).copy()
    last = before[-sampling.repeat_last_n :]
    for token in set(last):
        logit = logits[token]
        logits[token] = logit / sampling.repeat_penalty if logit > 0 else logit * sampling.repeat_penalty
        logits[token] -= last.count(token) * sampling.frequency_penalty + sampling.presence_penalty
    return int(logits.argmax())


@pytest.mark.parametrize(
    "asked",
    [
        {"repeat_penalty": 1.5},
        {"frequency_penalty": 0.7, "repeat_last_n": 20},
        {"presence_penalty": 2.0, "repeat_last_n": 8},
    ],
)
def test_penalties_look_at_the_last_tokens_of_prompt_and_reply(pair: Pair, asked: dict[str, Any]) -> None:
    plain = pair.reply(PROMPTS[5], **HOT)
    reply = pair.reply(PROMPTS[5], **HOT, **asked)
    context, sampling = pair.context("base"), Sampling(**asked)
    prompt = pair.model("base").tokenize(pair.base_format.prompt([{"role": "user", "content": PROMPTS[5]}]))
    tokens = prompt + [token.id for token in reply.tokens]
    assert reply.text != plain.text
    for end in range(len(prompt) + reply.draft.tokens, len(tokens)):
        assert penalised(logits(context, tokens[:end]), tokens[:end], sampling) == tokens[end]


def logits(context: Context, tokens: list[int]) -> Any:
    """The logits behind `tokens`."""
    rows: list[Any] = []
    context.ask(Question(0, tokens, len(tokens) - 1, lambda _, row: rows.append(np.array(context._logits(row)))))
    return rows[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"repeat_penalty": 0.0}, "repeat-penalty is 0.0"),
        ({"draft_repeat_penalty": -1.0}, "draft-repeat-penalty is -1.0"),
        ({"frequency_penalty": math.nan}, "frequency-penalty is nan"),
        ({"repeat_last_n": -1}, "repeat-last-n is -1"),
        ({"draft_top_p": 1.5}, "draft-top-p is 1.5"),
        ({"draft_seed": 2**32}, "draft-seed is 4294967296"),
        ({"seed": 2**32 - 1}, "seed is 4294967295"),  # llama.cpp draws one for this
        ({"temperature": math.inf}, "temperature is inf"),
        ({"grammar": "root ::= x", "json_schema": "{}"}, "leave one out"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"json_schema": '{"type": "elephant"}'}, "cannot be made a grammar"),
        ({"json_schema": '{"$ref": "https://localhost/x.json"}'}, "cannot be made a grammar"),
        ({"grammar": "root ::= x", "ignore_eos": True}, "leave one out"),
        ({"base_lora_scale": math.nan}, "base-lora-scale is nan"),
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, Any], said: str) -> None:
    kind = LoadSettings if "base_lora_scale" in wrong else ReplySettings
    with pytest.raises(UsageError, match=said):
        kind(**wrong)


# --- grammars --------------------------------------------------------------------------------------------


def follows(text: str) -> bool:
    """Whether `text` is JSON of the grammar's shape, as a JSON parser sees it."""
    value = json.loads(text)
    return isinstance(value, dict) and all(isinstance(number, int) for number in value.values())


@pytest.mark.parametrize("asked", [{}, {"temperature": 1.0, "seed": 3}, {"repeat_penalty": 1.4}])
def test_the_base_alone_follows_a_grammar(pair: Pair, asked: dict[str, Any]) -> None:
    grammar = JSON_TEXT.replace("[a-z]+", "[a-z] [a-z]? [a-z]?").replace("[0-9]+", "[1-9] [0-9]?").replace(")*", ")?")
    reply = pair.reply(PROMPTS[1], mode="base", grammar=grammar, max_tokens=200, **asked)
    assert reply.finish_reason == "stop"
    assert follows(reply.text)


def test_a_schema_is_a_grammar(pair: Pair) -> None:
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}, "n": {"enum": [1, 2]}},
        "required": ["yes", "n"],
        "additionalProperties": False,
    }
    value = json.loads(pair.reply(PROMPTS[1], mode="base", json_schema=schema, max_tokens=200).text)
    assert value["yes"] in (True, False)
    assert value["n"] in (1, 2)


def scripted(pair: Pair, text: str, **asked: Any) -> tuple[Any, list[str]]:
    """A reply whose draft says `text`, and the notices on the way."""
    run = pair.start(PROMPTS[1], **asked)
    model = pair.model("draft")
    run.job.draft_sampler = Says(model, model.tokenize_text(text))  # type: ignore[assignment]
    notices = [event.message for event in run.events() if isinstance(event, Notice)]
    return run.reply, notices


@pytest.mark.parametrize("opening", ['{"ab":1', '{"ab":12,"c', "{", '{"a":1}'])
@pytest.mark.parametrize("chunk", [1, 8])
def test_a_kept_draft_that_begins_the_text_is_completed(pair: Pair, opening: str, chunk: int) -> None:
    short = JSON_TEXT.replace("[a-z]+", "[a-z] [a-z]? [a-z]?").replace("[0-9]+", "[1-9] [0-9]?").replace(")*", ")?")
    reply, notices = scripted(pair, opening, grammar=short, threshold=2.0, check_chunk=chunk, max_tokens=200)
    assert (reply.draft.text, notices) == (opening, [])
    assert reply.text.startswith(opening)
    assert follows(reply.text)


def test_any_other_opening_leaves_the_grammar_to_the_continuation_and_says_so(pair: Pair) -> None:
    short = JSON_TEXT.replace("[a-z]+", "[a-z]").replace("[0-9]+", "[1-9]").replace(")*", ")?")
    reply, notices = scripted(pair, "Sure! Here it is:", grammar=short, threshold=2.0, max_tokens=200)
    assert reply.draft.text == "Sure! Here it is:"
    assert len(notices) == 1 and "continuation alone" in notices[0]
    assert follows(reply.base.text)


def test_a_grammar_that_cannot_be_parsed_is_one_line(pair: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    for wrong, said in (
        ('root ::= "a" nothing', "nothing"),
        ("root ::= [a-", ""),
        ('other ::= "a"', "root"),
        ('root ::= root "a" | "b"', "recursion"),
        (" \n", "empty"),
    ):
        with pytest.raises(UsageError, match="the grammar") as caught:
            pair.reply(PROMPTS[1], mode="base", grammar=wrong, max_tokens=5)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def model(kin: tuple[Path, Path]) -> Iterator[Model]:
    with Model(kin[1]) as model:
        yield model


GRAMMARS = [JSON_TEXT, 'root ::= "ü" [^a]* "🙂"', "root ::= [0-9] | other\nother ::= .*"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(GRAMMARS), st.data())
def test_no_grammar_is_ever_fed_what_it_refuses(model: Model, gbnf: str, data: st.DataObject) -> None:
    """llama.cpp ends the process at a token that a grammar refuses: that this test ends at all is the point."""
    grammar, tokens = Grammar(gbnf, model), st.integers(0, model.n_vocab - 1)
    for _ in range(12):
        grammar.begins_with(data.draw(st.lists(tokens, max_size=4)))
        token = data.draw(tokens)
        if grammar.allows(token):
            grammar.accept(token)
        else:
            with pytest.raises(WsdError):
                grammar.accept(token)


def test_a_grammar_over_a_real_vocabulary(tmp_path: Path) -> None:
    vocabulary = next(path for path in vocabularies() if "llama-spm" in path.stem)
    options = ContextOptions(n_ctx=256, threads=1)
    with Model(random_llama(tmp_path / "spm.gguf", vocabulary, n_embd=32, n_layer=1, n_head=2, n_ff=64)) as model:
        context = Context(model, options, Cancellation())
        sampler = Sampler(Sampling(), model, grammar=Grammar('root ::= "ü🙂" [a-c]? "!"', model))
        tokens, text = model.tokenize("Say it: "), b""
        while not model.is_eog(token := sampled(context, tokens, sampler)):
            tokens.append(token)
            text += model.piece(token)
        context.close()
    assert text.decode()[:2] == "ü🙂" and text.decode()[-1] == "!"


# --- adapters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["draft", "base"])
def test_an_adapter_is_worth_its_merged_model(role: str, tmp_path: Path) -> None:
    files = dict(zip(("draft", "base"), kin_pair(tmp_path), strict=True))
    adapter = random_lora(tmp_path / "lora.gguf", files[role], alpha=2.0)
    with_merged = {**files, role: merged(tmp_path / "merged.gguf", files[role], adapter)}
    oracle = exact_oracle((with_merged["draft"], with_merged["base"]))
    tally, plain = Tally(), []
    loading = LoadSettings(
        ctx=EXACT.ctx,
        threads=1,
        cache_type_k="f32",
        cache_type_v="f32",
        flash_attn="off",
        **{f"{role}_lora": str(adapter)},  # type: ignore[arg-type]
    )
    with exact_pair((files["draft"], files["base"])) as pair:
        plain = [pair.reply(prompt, **HOT).text for prompt in PROMPTS[:4]]
    with Pair(draft=files["draft"], base=files["base"], loading=loading) as pair:
        for prompt in PROMPTS[:4]:
            tally.compare(pair, oracle, [{"role": "user", "content": prompt}], **HOT)
        adapted = [pair.reply(prompt, **HOT).text for prompt in PROMPTS[:4]]
        pair.hash_models()
        assert len(pair.reply(PROMPTS[0], **HOT).provenance[f"{role}_lora_sha256"]) == 64
    oracle.close()
    assert not tally.different, "\n".join(tally.different)
    assert adapted != plain


def test_an_adapter_of_no_strength_changes_nothing(tmp_path: Path) -> None:
    draft, base = kin_pair(tmp_path)
    adapter = str(random_lora(tmp_path / "lora.gguf", base))
    loading = LoadSettings(ctx=2048, threads=1, base_lora=adapter, base_lora_scale=0.0)
    plain = LoadSettings(ctx=2048, threads=1)
    with Pair(draft=draft, base=base, loading=loading) as one, Pair(draft=draft, base=base, loading=plain) as other:
        assert one.reply(PROMPTS[0], **HOT).text == other.reply(PROMPTS[0], **HOT).text


def test_files_that_are_no_adapter(kin: tuple[Path, Path], tmp_path: Path) -> None:
    other = random_llama(tmp_path / "other.gguf", n_embd=96, n_head=6)
    wrong = {
        tmp_path / "none.gguf": "no such file",
        kin[0]: "is no adapter for",
        random_lora(tmp_path / "lora.gguf", other): "is no adapter for",
    }
    for path, said in wrong.items():
        with (
            pytest.raises(ModelError, match=said),
            Pair(draft=kin[0], base=kin[1], loading=LoadSettings(threads=1, base_lora=str(path))) as pair,
        ):
            pair.warm()
