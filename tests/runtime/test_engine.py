"""The engine on small random models: same decision as the oracle, nothing evaluated twice, stops anywhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from data_sets import fixture_conversations, fixture_prompts
from exactness import PLAIN, Tally, difference, exact_oracle, exact_pair
from oracle import BASE_STOPS, Oracle
from scripted import Says

from wsd_local.cli.output import summary
from wsd_local.core.requests import NextDraftToken, ScoreTokens
from wsd_local.errors import FitError, UsageError
from wsd_local.events import Notice, Reading, Text
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.run import Run
from wsd_local.settings import LoadSettings

PROMPTS = [record["prompt"] for record in fixture_prompts() if record.get("prompt", "").strip()]


@pytest.fixture(scope="module")
def pair(kin: tuple[Path, Path]) -> Iterator[Pair]:
    with exact_pair(kin) as pair:
        yield pair


@pytest.fixture(scope="module")
def oracle(kin: tuple[Path, Path]) -> Iterator[Oracle]:
    oracle = exact_oracle(kin)
    yield oracle
    oracle.close()


@pytest.mark.parametrize("chunk", [1, 6, 16, 512])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 2.0])
def test_long_drafts_of_random_models_equal_the_oracle(
    pair: Pair, oracle: Oracle, chunk: int, threshold: float
) -> None:
    tally = Tally()
    for prompt in PROMPTS[:8]:
        messages = [{"role": "user", "content": prompt}]
        tally.compare(
            pair, oracle, messages, threshold=threshold, check_chunk=chunk, draft_max_tokens=120, max_tokens=160
        )
    assert not tally.different, f"{tally}\n" + "\n".join(tally.different)
    assert tally.equal >= 7


@pytest.mark.parametrize("threshold", [0.65, 2.0])
def test_drafts_of_the_default_length_equal_the_oracle(pair: Pair, oracle: Oracle, threshold: float) -> None:
    tally = Tally()
    for prompt in PROMPTS[8:11]:
        tally.compare(pair, oracle, [{"role": "user", "content": prompt}], threshold=threshold, max_tokens=1200)
    assert not tally.different, "\n".join(tally.different)


@pytest.mark.parametrize("name", [name for name, _ in fixture_conversations()])
def test_conversations_with_system_messages_and_supplied_beginnings_equal_the_oracle(
    pair: Pair, oracle: Oracle, name: str
) -> None:
    messages = dict(fixture_conversations())[name]
    tally = Tally()
    for threshold in (0.0, 0.5, 2.0):
        tally.compare(pair, oracle, messages, threshold=threshold, draft_max_tokens=40, max_tokens=60)
    assert not tally.different, "\n".join(tally.different)


def test_the_prompt_is_evaluated_once_and_checked_tokens_never_again(kin: tuple[Path, Path]) -> None:
    for threshold in (0.0, 0.5, 2.0):
        with exact_pair(kin) as pair:
            reply = pair.reply(PROMPTS[0], threshold=threshold, draft_max_tokens=60, max_tokens=80)
            again = reply.counts.checked_tokens - reply.draft.tokens
            written = max(0, reply.base.tokens - 1)
            assert reply.timings.base_evaluated_tokens <= reply.timings.base_prompt_tokens + (
                reply.draft.tokens + again + written + 1
            )
            assert reply.timings.draft_evaluated_tokens <= (
                reply.timings.draft_prompt_tokens + reply.draft.drafted_tokens
            )


def test_the_first_text_is_the_drafts_and_waits_for_no_prefill_of_the_base(kin: tuple[Path, Path]) -> None:
    with exact_pair(kin) as pair:
        stream = pair.stream("word " * 100, threshold=0.5, max_tokens=40)
        first = next(event for event in stream if isinstance(event, Text))
        assert first.source == "draft"
        assert pair.models.context("base").evaluated == 0
        stream.close()


def test_a_second_reply_reuses_the_prompt(pair: Pair) -> None:
    first = pair.reply(PROMPTS[1], max_tokens=20)
    second = pair.reply(PROMPTS[1], max_tokens=20)
    assert second.text == first.text
    assert second.timings.base_evaluated_tokens < first.timings.base_prompt_tokens


def test_turns_of_a_session_cost_what_is_new(kin: tuple[Path, Path]) -> None:
    with exact_pair(kin) as pair, pair.session() as chat:
        costs, prompts = [], []
        for turn in range(6):
            reply = chat.send(f"Tell me about number {turn}.", max_tokens=24, draft_max_tokens=24)
            costs.append(reply.timings.base_evaluated_tokens + reply.timings.draft_evaluated_tokens)
            prompts.append(reply.timings.base_prompt_tokens)
    assert prompts[-1] > 4 * prompts[0]
    assert max(costs[1:]) < 3 * costs[0]


def test_streamed_text_is_the_reply(pair: Pair) -> None:
    events = list(pair.stream(PROMPTS[2], threshold=0.5, max_tokens=60))
    assert isinstance(events[-1], Finished)
    assert "".join(event.text for event in events if isinstance(event, Text)) == events[-1].reply.text


@pytest.mark.parametrize("steps", [0, 1, 3, 7, 12, 20, 33])
def test_a_cancelled_reply_resumes_in_its_phase_and_is_exact(pair: Pair, steps: int) -> None:
    settings: dict[str, Any] = {"threshold": 0.5, "max_tokens": 60, "draft_max_tokens": 60}
    whole = pair.reply(PROMPTS[3], **settings)
    run = pair.start(PROMPTS[3], **settings)
    shown = ""
    for i, event in enumerate(run.events()):
        shown += event.text if isinstance(event, Text) else ""
        if i == steps:
            pair.cancel()
    partial = run.reply
    assert whole.text.startswith(partial.text)
    assert partial.text == shown
    if partial.finish_reason == "cancelled":
        other = pair.reply(PROMPTS[0], max_tokens=10)
        assert other.finish_reason != "cancelled"
        for event in run.events():
            shown += event.text if isinstance(event, Text) else ""
    assert (run.reply.text, run.reply.tokens, run.reply.switch) == (whole.text, whole.tokens, whole.switch)
    assert shown == whole.text


def test_cancel_from_another_thread_inside_an_evaluation(kin: tuple[Path, Path]) -> None:
    long = "word " * 400
    with exact_pair(kin) as pair:
        run = pair.start(long, max_tokens=20)
        for event in run.events():
            if isinstance(event, Reading):
                thread = threading.Thread(target=pair.cancel)
                thread.start()
                thread.join()
        assert run.reply.finish_reason == "cancelled"
        assert run.reply.timings.draft_evaluated_tokens < run.reply.timings.draft_prompt_tokens
        while run.reply.finish_reason == "cancelled":
            list(run.events())
        with exact_pair(kin) as fresh:
            assert run.reply.text == fresh.reply(long, max_tokens=20).text


def phase(run: Run) -> str:
    """What the engine is about to evaluate."""
    request = run.machine.request()
    if isinstance(request, NextDraftToken):
        return "drafting" if run.machine.counts.drafted_tokens else "draft prefill"
    if isinstance(request, ScoreTokens):
        return "check" if run.machine.counts.checked_tokens else "base prefill"
    return "continuing"


@pytest.mark.parametrize("when", ["draft prefill", "drafting", "base prefill", "check", "continuing"])
@pytest.mark.parametrize("times", [1, 3])
def test_cancel_from_another_thread_in_every_phase(
    kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, when: str, times: int
) -> None:
    """The stop arrives when the evaluation has begun. What was shown stays, and whatever follows is exact."""
    settings: dict[str, Any] = {"threshold": 0.3, "max_tokens": 60, "draft_max_tokens": 60, "check_chunk": 2}
    question, other = PROMPTS[1], PROMPTS[4]
    with exact_pair(kin) as fresh:
        whole = fresh.reply(question, **settings)
        assert whole.switch.reason == "threshold" and whole.counts.checked_tokens > 8
    with exact_pair(kin) as pair, pair.session() as chat:
        real, left = llama_cpp.llama_decode, [times]

        def decode(*arguments: object) -> int:
            if chat.run is not None and phase(chat.run) == when:
                left[0] -= 1
                if left[0] == 0 or "prefill" in when:
                    thread = threading.Thread(target=pair.cancel)
                    thread.start()
                    thread.join()
            return int(real(*arguments))

        monkeypatch.setattr(llama_cpp, "llama_decode", decode)
        shown = "".join(event.text for event in chat.stream(question, **settings) if isinstance(event, Text))
        monkeypatch.undo()
        assert chat.run is not None
        partial = chat.run.reply
        assert (partial.finish_reason, partial.text) == ("cancelled", shown)
        assert whole.text.startswith(shown)
        assert (when == "continuing") == (partial.switch.reason == "threshold")
        if times == 1:
            chat.send(other, **settings)
            with exact_pair(kin) as fresh:
                assert chat.messages[-1]["content"] == fresh.reply(chat.messages[:-1], **settings).text
        else:
            shown += "".join(event.text for event in chat.stream_resume() if isinstance(event, Text))
            assert (shown, chat.run.reply.tokens) == (whole.text, whole.tokens)


def test_a_cancel_before_the_first_event_counts(pair: Pair) -> None:
    run = pair.start(PROMPTS[0], max_tokens=20)
    pair.cancel()
    list(run.events())
    assert (run.reply.finish_reason, run.reply.text) == ("cancelled", "")
    assert pair.reply(PROMPTS[0], max_tokens=20).finish_reason != "cancelled"


def test_an_interrupt_after_an_evaluation_leaves_the_cache_in_step(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = llama_cpp.llama_decode, iter(range(100))

    def interrupted(*arguments: object) -> int:
        status = int(real(*arguments))
        if next(calls) == 5:
            raise KeyboardInterrupt
        return status

    expected = pair.reply(PROMPTS[6], max_tokens=30, threshold=0.5).text
    pair.reply(PROMPTS[0], max_tokens=5)
    monkeypatch.setattr(llama_cpp, "llama_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pair.reply(PROMPTS[6], max_tokens=30, threshold=0.5)
    monkeypatch.undo()
    assert pair.reply(PROMPTS[6], max_tokens=30, threshold=0.5).text == expected


def test_leaving_the_events_early_loses_none(pair: Pair) -> None:
    run = pair.start(PROMPTS[2], threshold=0.5, max_tokens=40)
    text = ""
    while run.reply.finish_reason == "cancelled":
        for event in run.events():
            text += event.text if isinstance(event, Text) else ""
            break
    text += "".join(event.text for event in run.events() if isinstance(event, Text))
    assert text == run.reply.text


def test_a_session_keeps_a_cancelled_reply_and_goes_on(pair: Pair) -> None:
    with pair.session() as chat:
        for i, _ in enumerate(chat.stream(PROMPTS[3], threshold=2.0, max_tokens=60)):
            if i == 3:
                pair.cancel()
        assert chat.run is not None
        partial = chat.run.reply
        assert (partial.finish_reason, chat.messages[-1]["content"]) == ("cancelled", partial.text)
        list(chat.stream_resume())
        assert chat.messages[-1]["content"].startswith(partial.text)
        assert chat.send("And now?", max_tokens=10).finish_reason != "cancelled"
        assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2


def test_a_question_stopped_before_its_first_word_leaves_the_session(pair: Pair) -> None:
    with pair.session() as chat:
        chat.send(PROMPTS[0], max_tokens=5)
        for event in chat.stream("Never " + "word " * 600, max_tokens=5):
            assert not isinstance(event, Text)
            if isinstance(event, Reading):
                pair.cancel()
        assert chat.run is not None and chat.run.reply.finish_reason == "cancelled"
        chat.send("And now?", max_tokens=5)
        assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
        assert "Never" not in str(chat.messages)


def test_a_session_says_once_that_turns_are_left_out_and_evaluates_little(kin: tuple[Path, Path]) -> None:
    """A context that fills up: a turn costs what is new, but for the few at which older turns must go."""
    loading = LoadSettings(ctx=512, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    with Pair(draft=kin[0], base=kin[1], reply=PLAIN, loading=loading) as pair, pair.session("Be brief.") as chat:
        notices, costs, left_out = 0, [], []
        for turn in range(24):
            events = list(chat.stream(f"{turn} word word word word", max_tokens=16, draft_max_tokens=16))
            notices += sum(1 for event in events if isinstance(event, Notice) and "left out" in event.message)
            assert chat.run is not None
            reply = chat.run.reply
            costs.append(reply.timings.base_evaluated_tokens + reply.timings.draft_evaluated_tokens)
            left_out.append(chat.left_out)
            assert reply.messages[0] == {"role": "system", "content": "Be brief."}
            assert reply.messages[1]["content"].startswith(f"{chat.left_out} word")
        assert notices == 1
        assert len(chat.messages) == 1 + 2 * 24
        moved = [turn for turn in range(1, 24) if left_out[turn] != left_out[turn - 1]]
        assert 1 <= len(moved) <= 4
        usual = max(cost for turn, cost in enumerate(costs) if turn and turn not in moved)
        assert usual < 3 * costs[0]


def test_the_decision_of_a_turn_is_that_of_its_messages_alone(kin: tuple[Path, Path]) -> None:
    settings: dict[str, Any] = {"threshold": 0.5, "max_tokens": 30, "draft_max_tokens": 30}
    with exact_pair(kin) as pair, pair.session("Be kind.") as chat:
        for prompt in PROMPTS[:5]:
            reply = chat.send(prompt, **settings)
            with exact_pair(kin) as fresh:
                alone = fresh.reply(chat.messages[:-1], **settings)
            assert (reply.text, reply.switch.index) == (alone.text, alone.switch.index)


def test_stop_strings_of_the_user_beside_the_bases(pair: Pair, oracle: Oracle) -> None:
    """Taken from the middle of the replies: in the draft, in the continuation, and over both."""
    own = 0
    for prompt in PROMPTS[:6]:
        messages = [{"role": "user", "content": prompt}]
        whole = pair.reply(prompt, threshold=0.5, draft_max_tokens=60, max_tokens=60)
        border = len(whole.draft.text)
        for start in (3, border - 2, border + 5):
            stop = whole.text[max(0, start) : max(0, start) + 4]
            if not stop.strip():
                continue
            ours = pair.reply(prompt, threshold=0.5, draft_max_tokens=60, max_tokens=60, stop=(stop,))
            theirs = oracle.reply(messages, threshold=0.5, draft_max_tokens=60, max_tokens=60, stop=(*BASE_STOPS, stop))
            assert difference(ours, theirs) is None
            assert stop not in ours.text
            own += 1
    assert own >= 12


def test_a_draft_that_thinks_in_control_tokens_opens_with_what_follows(pair: Pair) -> None:
    model = pair.models.model("draft")
    tokens = {spelling: token for token, spelling in model.spelled(("<|im_start|>", "<|begin|>")).items()}
    left, right = tokens[b"<|im_start|>"], tokens[b"<|begin|>"]
    asked: dict[str, Any] = {"threshold": 2.0, "max_tokens": 40, "on_draft_end": "stop"}
    run = pair.start(PROMPTS[0], **asked)
    run.job.spelled = {left: b"<think>", right: b"</think>"}
    thought = model.tokenize_text("Let me see. [User]")
    run.job.draft_sampler = Says(model, [left, *thought, right, *model.tokenize_text("\n\nHello the answer")])  # type: ignore[assignment]
    shown = "".join(event.text for event in run.events() if isinstance(event, Text))
    assert shown == run.reply.text == "Hello the answer"


def test_old_turns_go_whole_the_system_message_stays_and_it_is_said_once(pair: Pair) -> None:
    history = [{"role": "system", "content": "Be brief."}]
    for turn in range(30):
        history += [{"role": "user", "content": f"{turn} " + "word " * 60}, {"role": "assistant", "content": "Yes."}]
    history.append({"role": "user", "content": "The last one."})
    events = list(pair.stream(history, max_tokens=10))
    reply = events[-1].reply  # type: ignore[attr-defined]
    assert len([event for event in events if isinstance(event, Notice) and "older turns" in event.message]) == 1
    assert reply.messages[0]["role"] == "system"
    assert [message["role"] for message in reply.messages[1:3]] == ["user", "assistant"]
    assert reply.messages[-1]["content"] == "The last one."
    assert 2 < len(reply.messages) < len(history)


def test_a_message_that_cannot_fit_is_refused_before_any_work(pair: Pair) -> None:
    before = pair.models.context("draft").evaluated, pair.models.context("base").evaluated
    with pytest.raises(FitError, match="too long"):
        pair.reply("word " * 3000)
    assert (pair.models.context("draft").evaluated, pair.models.context("base").evaluated) == before


def test_a_full_context_ends_the_reply_and_says_so(kin: tuple[Path, Path]) -> None:
    with Pair(draft=kin[0], base=kin[1], loading=LoadSettings(ctx=256, threads=1)) as pair:
        events = list(pair.stream("word " * 30, ignore_eos=True, threshold=0.0))
        reply = events[-1].reply  # type: ignore[attr-defined]
        assert reply.finish_reason == "length"
        assert reply.timings.base_prompt_tokens + len(reply.tokens) == 256
        assert any(isinstance(event, Notice) and "context is full" in event.message for event in events)


def test_same_seed_same_reply_whatever_the_chunk(pair: Pair) -> None:
    texts = {
        pair.reply(PROMPTS[4], temperature=0.9, seed=7, check_chunk=chunk, threshold=0.3, max_tokens=40).text
        for chunk in (1, 8, 512)
    }
    others = {
        pair.reply(PROMPTS[4], temperature=0.9, seed=seed, threshold=0.3, max_tokens=40).text for seed in range(5)
    }
    assert len(texts) == 1
    assert len(others) > 1


def test_modes(pair: Pair) -> None:
    base = pair.reply(PROMPTS[5], mode="base", max_tokens=20)
    draft = pair.reply(PROMPTS[5], mode="draft", max_tokens=20)
    fixed = pair.reply(PROMPTS[5], mode="fixed:3", max_tokens=20)
    assert (base.switch.reason, base.draft.model, base.draft.tokens) == ("none", None, 0)
    assert (draft.timings.base_tokens_per_s, draft.timings.base_prompt_tokens) == (None, 0)
    assert (draft.switch.reason, draft.base.model, draft.base.tokens) == ("none", None, 0)
    assert fixed.draft.tokens == 3
    assert fixed.draft.text and fixed.text.startswith(fixed.draft.text)


def test_control_tokens_in_a_message_stay_text(pair: Pair) -> None:
    model = pair.models.model("draft")
    spelling = model.special_spelling("eos")
    assert spelling
    tokens = pair.models.draft_format.prompt([{"role": "user", "content": f"a {spelling} b"}]).tokens
    plain = pair.models.draft_format.prompt([{"role": "user", "content": "a b"}]).tokens
    ends = [token for token in tokens if model.is_eog(token)]
    assert len(ends) == len([token for token in plain if model.is_eog(token)])
    assert spelling.encode() in b"".join(model.piece(token) for token in tokens)


@pytest.mark.parametrize("mode", ["wsd", "base", "draft", "fixed:3"])
@pytest.mark.parametrize("threshold", [0.3, 2.0])
def test_without_end_tokens_a_reply_has_its_whole_length(
    demo_f32: tuple[Path, Path], mode: str, threshold: float
) -> None:
    """Neither the base's heading, nor the draft's end, nor an end token ends it; a stop string of the user does."""
    with exact_pair(demo_f32) as pair:
        asked: dict[str, Any] = {"mode": mode, "threshold": threshold, "ignore_eos": True, "max_tokens": 90}
        usual = pair.reply("What is the capital of France?", mode=mode, threshold=threshold)
        reply = pair.reply("What is the capital of France?", **asked)
        assert usual.finish_reason == "stop" and len(usual.tokens) < 60
        assert reply.finish_reason == "length" and reply.text.startswith(usual.text.rstrip())
        assert 85 <= len(reply.tokens) <= 90, "of a draft alone the white space at its end is stripped"
        word = reply.text.split()[-1]
        cut = pair.reply("What is the capital of France?", stop=word, **asked)
        assert (cut.text.rstrip(), cut.finish_reason) == (reply.text[: reply.text.index(word)].rstrip(), "stop")


def test_ignoring_the_end_and_ending_with_the_draft_cannot_be_meant_together(pair: Pair) -> None:
    with pytest.raises(UsageError, match="on-draft-end"):
        pair.reply(PROMPTS[0], ignore_eos=True, on_draft_end="stop")


def test_a_reply_that_is_wholly_the_drafts_counts_nothing_for_the_base(demo_f32: tuple[Path, Path]) -> None:
    with exact_pair(demo_f32) as pair:
        reply = pair.reply("What is the capital of France?", threshold=2.0)
        assert reply.base.text == "" and reply.base.tokens == 0 and reply.draft.tokens == len(reply.tokens)
        assert {token.source for token in reply.tokens} == {"draft"}
        assert summary(reply).startswith(f"written by {reply.draft.model} ({len(reply.tokens)} tokens)")
        assert "continued" not in summary(reply)
        both = pair.reply("What is the capital of France?", mode="fixed:3")
        assert f"opened by {reply.draft.model} (3 tokens) · continued by {both.base.model}" in summary(both)
