"""The oracle on a tiny random model and scripted drafts, against facts that can be worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import jinja2
import makers
import numpy as np
import pytest
from data_sets import fixture_conversations, fixture_prompts, llama3_replies, shared
from oracle import (
    BASE_STOPS,
    Oracle,
    OracleError,
    base_prompt,
    split_prefix,
    stop_start,
    switch_index,
    tidy_draft,
    window_confidences,
)

ASK = [{"role": "user", "content": "Hello, what is the answer?"}]
DRAFT = "The answer is in the words of the user, and that is that."
NO_STOPS: tuple[str, ...] = ()
HARD_TEXTS = ("thai_no_spaces", "emoji_joiners", "combining", "code_tabs", "blank_lines", "control_spellings")
TEMPLATES = {
    "phi-3": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' }}",
    "llama-spm": "{{ bos_token }}{% for m in messages %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endfor %}",
    "llama-bpe": "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """Draft and base of kin, and a draft template that writes what the base reads."""
    folder = tmp_path_factory.mktemp("oracle")
    draft, base = makers.kin_pair(folder, seed=2, add_bos=True)
    made = Oracle(draft, base, n_ctx=1024, threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    path = makers.random_llama(tmp_path_factory.mktemp("chatml") / "model.gguf", seed=3)
    made = Oracle(path, path, n_ctx=1024, threads=1)
    yield made
    made.close()


# --- pure rules ----------------------------------------------------------------------------------------


def test_window_is_a_geometric_mean() -> None:
    logs = [math.log(p) for p in (0.5, 0.5, 0.125, 1.0)]
    assert window_confidences(logs, 2) == pytest.approx((0.5, 0.25, math.sqrt(0.125)))
    assert window_confidences(logs, 4) == pytest.approx(((0.5 * 0.5 * 0.125) ** 0.25,))
    assert window_confidences(logs, 5) == ()


def test_window_does_not_underflow() -> None:
    assert window_confidences([-700.0] * 6, 6) == pytest.approx((math.exp(-700.0),))
    assert window_confidences([-math.inf] * 6, 6) == (0.0,)


def test_switch_is_the_first_window_at_or_above_the_threshold() -> None:
    assert switch_index((0.1, 0.8, 0.9), 6, 0.8) == 6
    assert switch_index((0.1, 0.2), 6, 0.8) is None
    assert switch_index((0.0,), 3, 0.0) == 2
    assert switch_index((), 3, 0.0) is None


@pytest.mark.parametrize(
    ("text", "stops", "start"),
    [
        ("a\n\n[User]\nb", BASE_STOPS, 1),
        ("a\n[User]\nb", BASE_STOPS, 1),
        ("a [User] b", BASE_STOPS, 2),
        ("a [Use] b", BASE_STOPS, None),
        ("abcdef", ("def", "bc"), 1),
        ("abcdef", ("bcdef", "cd"), 2),
        ("ünï", ("ï",), 3),
        ("abc", ("",), None),
    ],
)
def test_stop_string_completed_first(text: str, stops: tuple[str, ...], start: int | None) -> None:
    assert stop_start(text.encode(), stops) == start


def test_base_prompt_is_written_as_the_rules_say() -> None:
    messages = (("system", " Be brief.\n"), ("user", "Hi"), ("assistant", "Yes? "), ("user", " Bye"))
    assert base_prompt(messages) == (
        "\n\n[System]\nBe brief.\n\n[User]\nHi\n\n[Assistant]\nYes?\n\n[User]\nBye\n\n[Assistant]\n"
    )
    assert base_prompt((*messages[:2], ("assistant", " Yes, "))).endswith("Hi\n\n[Assistant]\n Yes, ")


def test_draft_is_stripped_unless_it_goes_on_from_a_prefix() -> None:
    assert tidy_draft(" \n a b \n", "", "eog", BASE_STOPS) == ("a b", "eog")
    assert tidy_draft(" a b \n", "So", "eog", BASE_STOPS) == (" a b", "eog")
    assert tidy_draft(" \n", "", "limit", BASE_STOPS) == ("", "limit")
    assert tidy_draft("a\n\n[User]\nb", "", "eog", BASE_STOPS) == ("a", "stop")
    assert tidy_draft("\n\na\n\nb", "", "eog", ("\n\n",)) == ("a", "stop")


# --- probabilities and the switch ----------------------------------------------------------------------


def test_probabilities_are_those_of_one_token_at_a_time(oracle: Oracle) -> None:
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=2, max_tokens=40)
    prompt = oracle.prompt_tokens((("user", ASK[0]["content"]),))
    llama = oracle.base_model.llama
    kept = reply.tokens[: reply.kept_tokens]
    assert len(reply.probs) == len(kept) > 6
    llama.n_tokens = 0
    llama.eval(prompt)
    for token, probability in zip(kept, reply.probs, strict=True):
        row = llama.scores[llama.n_tokens - 1].astype(np.float64)
        weights = np.exp(row - row.max())
        assert weights[token] / weights.sum() == pytest.approx(probability, rel=1e-4)
        llama.eval([token])


def test_probabilities_differ_from_place_to_place(oracle: Oracle) -> None:
    probs = oracle.reply(ASK, draft_text=DRAFT, threshold=2, max_tokens=40).probs
    assert len(set(probs)) > len(probs) // 2
    assert all(0 < probability < 1 for probability in probs)


@pytest.mark.parametrize("window", [1, 2, 6])
def test_threshold_zero_switches_at_the_first_window(oracle: Oracle, window: int) -> None:
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=0, window=window, max_tokens=40)
    assert (reply.index, reply.kept_tokens, reply.reason) == (window - 1, window, "threshold")
    assert reply.confidence == reply.windows[0]


def test_threshold_above_one_never_switches(oracle: Oracle) -> None:
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=2, max_tokens=40)
    assert (reply.index, reply.reason, reply.confidence) == (None, "draft_end", None)
    assert reply.kept_tokens == len(reply.probs)
    assert reply.text.startswith(DRAFT)


def test_each_threshold_keeps_up_to_its_first_window(oracle: Oracle) -> None:
    windows = oracle.reply(ASK, threshold=2, draft_max_tokens=60, max_tokens=120).windows
    indices = []
    for threshold in sorted(set(windows)):
        reply = oracle.reply(ASK, threshold=threshold, draft_max_tokens=60, max_tokens=120)
        assert reply.index == next(i for i, g in enumerate(windows) if g >= threshold) + 5
        assert reply.kept_tokens == reply.index + 1
        indices.append(reply.index)
    assert indices == sorted(indices)
    assert len(set(indices)) > 2
    beyond = max(windows) + 1e-9
    assert oracle.reply(ASK, threshold=beyond, draft_max_tokens=60, max_tokens=120).index is None


@pytest.mark.parametrize("record", fixture_prompts(), ids=lambda record: record["name"])
def test_kept_text_begins_the_draft(oracle: Oracle, record: dict[str, str]) -> None:
    ask = [{"role": "user", "content": record["prompt"]}]
    whole = record["reply"].strip()
    for threshold, window in ((0, 1), (0, 6), (2, 6)):
        reply = oracle.reply(
            ask,
            draft_text=record["reply"],
            threshold=threshold,
            window=window,
            max_tokens=window + 4 if threshold == 0 else 400,
            on_draft_end="stop",
        )
        kept = oracle.base_model.bytes_of(reply.tokens[: reply.kept_tokens])
        assert whole.encode().startswith(kept)
        assert reply.draft_text == whole
        assert threshold == 0 or kept == whole.encode()
    assert reply.text == whole


# --- how it ends ---------------------------------------------------------------------------------------


def test_short_draft_is_kept_whole(oracle: Oracle) -> None:
    reply = oracle.reply(ASK, draft_text="The answer", threshold=0, max_tokens=20)
    assert (reply.index, reply.windows, reply.reason) == (None, (), "draft_end")
    assert reply.kept_tokens < 6
    assert reply.text.startswith("The answer")


@pytest.mark.parametrize("draft", ["", " \n\t "])
@pytest.mark.parametrize("on_draft_end", ["continue", "stop"])
def test_empty_draft_leaves_the_base_alone(oracle: Oracle, draft: str, on_draft_end: str) -> None:
    reply = oracle.reply(ASK, draft_text=draft, max_tokens=20, on_draft_end=on_draft_end)
    assert (reply.kept_tokens, reply.reason, reply.index, reply.probs) == (0, "draft_end", None, ())
    prompt = oracle.prompt_tokens((("user", ASK[0]["content"]),))
    assert reply.tokens == tuple(token for token, _ in _first(oracle, prompt, len(reply.tokens)))
    assert len(reply.tokens) > 0


def _first(oracle: Oracle, prompt: list[int], count: int) -> list[tuple[int, float]]:
    steps = oracle.base_model.greedy(prompt)
    return [next(steps) for _ in range(count)]


def test_draft_end_can_stop(oracle: Oracle) -> None:
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=2, on_draft_end="stop", max_tokens=40)
    assert (reply.text, reply.reason, reply.finish_reason) == (DRAFT, "draft_end", "stop")
    assert len(reply.tokens) == reply.kept_tokens
    assert reply.continuation_gaps == ()


def test_draft_at_its_limit_is_continued(oracle: Oracle) -> None:
    scripted = oracle.reply(
        ASK,
        draft_text=DRAFT,
        draft_ended="limit",
        threshold=2,
        on_draft_end="stop",
        max_tokens=40,
    )
    assert scripted.reason == "draft_limit"
    assert len(scripted.tokens) > scripted.kept_tokens
    live = oracle.reply(ASK, draft_max_tokens=5, threshold=2, max_tokens=40)
    assert (live.reason, len(live.draft_gaps)) == ("draft_limit", 5)


@pytest.mark.parametrize("mark", ["[User]", "\n[User]", "\n\n[User]", "\n\n[System]", "[Assistant]"])
def test_stop_string_in_the_draft_ends_the_reply(oracle: Oracle, mark: str) -> None:
    reply = oracle.reply(ASK, draft_text=f"{DRAFT}{mark}\nMore.", threshold=2, max_tokens=60)
    assert (reply.text, reply.draft_text) == (DRAFT, DRAFT)
    assert (reply.reason, reply.finish_reason, reply.index) == ("stop", "stop", None)
    assert len(reply.tokens) == reply.kept_tokens


def test_window_before_a_stop_string_in_the_draft_counts(oracle: Oracle) -> None:
    reply = oracle.reply(ASK, draft_text=f"{DRAFT}\n\n[User]\nMore.", threshold=0, max_tokens=60)
    assert (reply.reason, reply.index) == ("threshold", 5)
    assert reply.tokens == oracle.reply(ASK, draft_text=DRAFT, threshold=0, max_tokens=60).tokens


def test_stop_string_in_the_continuation_cuts_the_reply(oracle: Oracle) -> None:
    free = oracle.reply(ASK, draft_text=DRAFT, threshold=2, stop=NO_STOPS, max_tokens=40)
    tail = free.text[len(DRAFT) :]
    mark = tail[4:8]
    cut = oracle.reply(ASK, draft_text=DRAFT, threshold=2, stop=(mark,), max_tokens=40)
    assert cut.text == free.text[: len(DRAFT) + tail.index(mark)]
    assert cut.finish_reason == "stop"
    assert cut.reason == "draft_end"


def test_stop_string_may_begin_in_the_kept_text(oracle: Oracle) -> None:
    free = oracle.reply(ASK, draft_text=DRAFT, threshold=2, stop=NO_STOPS, max_tokens=40)
    mark = free.text[len(DRAFT) - 3 : len(DRAFT) + 1]
    cut = oracle.reply(ASK, draft_text=DRAFT, threshold=2, stop=(mark,), max_tokens=40)
    assert (cut.text, cut.finish_reason) == (DRAFT[:-3], "stop")


@pytest.mark.parametrize("max_tokens", [1, 5, 6, 7, 13, 40])
def test_max_tokens_is_exact(oracle: Oracle, max_tokens: int) -> None:
    reply = oracle.reply(
        ASK,
        draft_text=DRAFT,
        threshold=2,
        max_tokens=max_tokens,
        ignore_eos=True,
        stop=NO_STOPS,
    )
    assert len(reply.tokens) == max_tokens
    assert reply.finish_reason == "length"
    drafted = len(reply.probs)
    assert reply.reason == ("length" if drafted >= max_tokens else "draft_end")
    assert reply.kept_tokens == min(drafted, max_tokens)
    assert len(reply.windows) == max(0, min(drafted, max_tokens) - 5)


def test_draft_that_fills_the_budget_ends_for_length(oracle: Oracle) -> None:
    drafted = len(oracle.reply(ASK, draft_text=DRAFT, threshold=2, max_tokens=40).probs)
    for max_tokens, reason in ((drafted - 1, "length"), (drafted, "length"), (drafted + 1, "draft_end")):
        reply = oracle.reply(ASK, draft_text=DRAFT, threshold=2, max_tokens=max_tokens)
        assert (reply.reason, reply.kept_tokens) == (reason, min(drafted, max_tokens))


def test_windows_beyond_max_tokens_do_not_count(oracle: Oracle) -> None:
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=0, max_tokens=5)
    assert (reply.index, reply.reason, reply.kept_tokens) == (None, "length", 5)
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=0, max_tokens=6)
    assert (reply.index, reply.reason, reply.finish_reason) == (5, "threshold", "length")


def test_shorter_replies_begin_longer_ones(oracle: Oracle) -> None:
    whole = oracle.reply(ASK, draft_text=DRAFT, threshold=0, max_tokens=60, ignore_eos=True).tokens
    for count in (10, 59, 30):
        part = oracle.reply(ASK, draft_text=DRAFT, threshold=0, max_tokens=count, ignore_eos=True).tokens
        assert part == whole[:count]


def test_eog_ends_the_reply_unless_ignored(oracle: Oracle) -> None:
    for number in range(40):
        draft = f"{DRAFT} {number}"
        ended = oracle.reply(ASK, draft_text=draft, threshold=2, max_tokens=200, stop=NO_STOPS)
        if ended.finish_reason == "stop":
            break
    else:
        pytest.fail("no continuation came to an EOG token")
    longer = oracle.reply(ASK, draft_text=draft, threshold=2, max_tokens=200, stop=NO_STOPS, ignore_eos=True)
    assert len(ended.tokens) < len(longer.tokens) == 200
    assert longer.tokens[: len(ended.tokens)] == ended.tokens
    assert oracle.reply(ASK, draft_text=draft, threshold=2, max_tokens=200, stop=NO_STOPS) == ended


def test_ignore_eos_never_chooses_one(oracle: Oracle) -> None:
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=0, max_tokens=700, ignore_eos=True, stop=NO_STOPS)
    assert len(reply.tokens) == 700
    assert not set(reply.tokens) & set(oracle.base_model.eog)


def test_small_context_shrinks_the_budget_or_is_refused(oracle: Oracle) -> None:
    used = len(oracle.prompt_tokens((("user", ASK[0]["content"]),)))
    reply = oracle.reply(ASK, draft_text=DRAFT, threshold=0, max_tokens=2048, ignore_eos=True, stop=NO_STOPS)
    assert (len(reply.tokens), reply.finish_reason) == (1024 - used, "length")
    with pytest.raises(OracleError, match="too small"):
        oracle.reply([{"role": "user", "content": "x y " * 600}], draft_text=DRAFT)


# --- supplied prefixes and templates -------------------------------------------------------------------


def test_prefix_is_kept_and_not_counted(oracle: Oracle) -> None:
    prefix = "  Two fruits are "
    messages = [*ASK, {"role": "assistant", "content": prefix}]
    conversation = tuple((message["role"], message["content"]) for message in messages)
    assert base_prompt(conversation).endswith(f"[Assistant]\n{prefix}")
    reply = oracle.reply(messages, draft_text="apples and pears. ", threshold=2, max_tokens=60)
    assert reply.draft_text == "apples and pears."
    assert reply.text.startswith("apples and pears.")
    n0 = len(oracle.prompt_tokens(conversation))
    whole = oracle.score(conversation, reply.draft_text).tokens
    assert len(reply.probs) == len(whole) - n0


def test_left_space_after_a_prefix_stays(oracle: Oracle) -> None:
    messages = [*ASK, {"role": "assistant", "content": "The answer"}]
    reply = oracle.reply(messages, draft_text=" is that. \n", threshold=2, max_tokens=30)
    assert reply.draft_text == " is that."
    assert reply.text.startswith(" is that.")


def test_token_across_the_border_of_prefix_and_draft(oracle: Oracle) -> None:
    messages = [*ASK, {"role": "assistant", "content": "The ans"}]
    conversation = tuple((message["role"], message["content"]) for message in messages)
    model = oracle.base_model
    n0 = len(oracle.prompt_tokens(conversation))
    merged = oracle.score(conversation, "wer is")
    assert model.bytes_of(merged.tokens).endswith(b"The answer is")
    assert list(merged.tokens[:n0]) != oracle.prompt_tokens(conversation)
    for draft in ("w", "wer", "wer is that of the user."):
        assert oracle.reply(messages, draft_text=draft, threshold=2, max_tokens=40).text.startswith(draft)


def test_draft_prompt_ends_with_the_prefix(chatml: Oracle) -> None:
    conversation = (("user", "Hi"), ("assistant", " So <|im_end|> "))
    model = chatml.draft_model
    tokens = chatml.draft_prompt_tokens(conversation)
    start = model.control["<|im_start|>"][0]
    last = len(tokens) - tokens[::-1].index(start)
    assert model.bytes_of(tokens[last:]) == b"assistant\n So <|im_end|> "


@pytest.mark.parametrize(("name", "messages"), fixture_conversations())
def test_control_tokens_come_from_the_template_alone(
    chatml: Oracle,
    name: str,
    messages: list[dict[str, str]],
) -> None:
    conversation = tuple((message["role"], message["content"]) for message in messages)
    turns, prefix = split_prefix(conversation)
    model = chatml.draft_model
    tokens = chatml.draft_prompt_tokens(conversation)
    control = [token for token in tokens if model.spelling(token) in model.control]
    start, end = model.control["<|im_start|>"][0], model.control["<|im_end|>"][0]
    assert control == [start, end] * len(turns) + [start]
    spelled = "".join(f"{role}\n{content.strip()}\n" for role, content in turns)
    assert model.bytes_of(tokens).decode() == f"{spelled}assistant\n{prefix}"


def test_template_tokens_equal_the_parsed_whole_where_messages_are_harmless(chatml: Oracle) -> None:
    text = "<|im_start|>user\nHello, the answer?<|im_end|>\n<|im_start|>assistant\n"
    parsed = chatml.draft_model.llama.tokenize(text.encode(), add_bos=False, special=True)
    assert chatml.draft_prompt_tokens((("user", " Hello, the answer?\n"),)) == parsed


def test_bos_stands_in_front_once(tmp_path: Path) -> None:
    for number, lead in enumerate(("", "{{ bos_token }}")):
        template = lead + makers.CHATML_TEMPLATE
        path = makers.random_llama(tmp_path / f"{number}.gguf", chat_template=template, add_bos=True)
        made = Oracle(path, path, n_ctx=512, threads=1)
        (bos,) = made.base_model.bos
        assert made.draft_prompt_tokens((("user", "Hi"),)).count(bos) == 1
        assert made.prompt_tokens((("user", "Hi"),))[0] == bos
        assert made.draft_prompt_tokens((("user", "Hi"),))[0] == bos
        made.close()


def test_live_draft_stops_at_eog_and_its_text_is_scored(oracle: Oracle) -> None:
    """With kin models and one prompt the base agrees with much of what the draft says."""
    reply = oracle.reply(ASK, threshold=2, draft_max_tokens=40, max_tokens=80)
    assert reply.draft_text
    assert max(reply.windows) > 0.1
    assert len(reply.continuation_gaps) == len(reply.tokens) - reply.kept_tokens
    assert all(gap >= 0 for gap in reply.continuation_gaps)


# --- real vocabularies ---------------------------------------------------------------------------------


def around(vocab: str, folder: Path, template: str | None = None) -> Oracle:
    """An oracle whose two models are one random model around a production tokenizer."""
    path = makers.random_llama(
        folder / "model.gguf",
        shared(f"vocabs/ggml-vocab-{vocab}.gguf"),
        n_embd=32,
        n_layer=1,
        n_head=2,
        n_ff=32,
        chat_template=template,
    )
    return Oracle(path, path, n_ctx=512, threads=1)


@pytest.mark.parametrize("vocab", ["gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_whole_drafts_survive_real_vocabularies(vocab: str, tmp_path: Path) -> None:
    made = around(vocab, tmp_path)
    hard = [record for record in fixture_prompts() if record["name"] in HARD_TEXTS]
    pairs = [(record["prompt"], record["reply"]) for record in hard]
    pairs += [(prompt[:200], reply[:200]) for prompt, reply in llama3_replies(3)]
    assert len(pairs) > 3
    for prompt, draft in pairs:
        ask = [{"role": "user", "content": prompt}]
        reply = made.reply(ask, draft_text=draft, threshold=2, max_tokens=300, on_draft_end="stop")
        assert reply.text == draft.strip()
    made.close()


@pytest.mark.parametrize("vocab", TEMPLATES)
def test_harmless_template_text_is_tokenised_as_by_llama_cpp(vocab: str, tmp_path: Path) -> None:
    made = around(vocab, tmp_path, TEMPLATES[vocab])
    model, text = made.draft_model, "What is 3/4 of a day?\n\n\tHours, please."
    bos = model.spelling(model.bos[0])
    source = made.draft_model.llama.metadata["tokenizer.chat_template"]
    rendered = jinja2.Template(source).render(messages=[{"role": "user", "content": text}], bos_token=bos)
    expected = list(model.llama.tokenize(rendered.encode(), add_bos=False, special=True))
    expected = expected if expected[:1] == model.bos else model.bos + expected
    assert made.draft_prompt_tokens((("user", text),)) == expected
    made.close()
