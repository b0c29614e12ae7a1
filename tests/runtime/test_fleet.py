"""Many replies at once: each is what it is alone, whatever shares its evaluations, its cache and its fate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from data_sets import fixture_conversations, fixture_prompts
from exactness import EXACT, PLAIN, Tally, exact_oracle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from makers import BASE_LIKE_TEMPLATE, random_llama
from makers_more import paths_of_kinds
from summary import Tell

from wsd_local.core.contexts import Question
from wsd_local.errors import CancelledError, FitError, WsdError
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.prompts.messages import conversation
from wsd_local.runtime import fleet as fleets
from wsd_local.runtime.fleet import Failed, Fleet
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.settings import LoadSettings

PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]
WAYS: list[dict[str, Any]] = [
    {"threshold": 0.5, "check_chunk": 1},
    {"threshold": 0.65, "check_chunk": 16},
    {"threshold": 2.0, "draft_max_tokens": 40},
    {"threshold": 0.0, "window": 3},
    {"threshold": 0.6, "check_chunk": 512, "draft_max_tokens": 60},
]
MODES: list[dict[str, Any]] = [{"mode": "base"}, {"mode": "draft"}, {"mode": "fixed:5"}]


def fleet_pair(files: tuple[Path, Path], parallel: int, **loading: Any) -> Pair:
    """The conditions in which equality is asked for, with so many replies at once."""
    return Pair(draft=files[0], base=files[1], reply=PLAIN, loading=replace(EXACT, parallel=parallel, **loading))


def answers(pair: Pair, asked: list[tuple[Any, dict[str, Any]]], parallel: int | None = None) -> list[Reply]:
    """What is asked together with its settings; the replies in the order of the questions."""
    fleet: Fleet[int] = Fleet(pair, parallel)
    for index, (prompt, own) in enumerate(asked):
        fleet.add(index, prompt, **own)
    found = {index: event.reply for index, event in fleet.events() if isinstance(event, Finished)}
    assert set(found) == set(range(len(asked)))
    return [found[index] for index in range(len(asked))]


def same(left: list[Reply], right: list[Reply]) -> list[bool]:
    """Which replies are equal in text, tokens and switch."""
    return [
        (a.text, a.switch, [t.id for t in a.tokens], a.finish_reason)
        == (b.text, replace(b.switch, confidence=a.switch.confidence), [t.id for t in b.tokens], b.finish_reason)
        and a.switch.confidence == pytest.approx(b.switch.confidence, abs=1e-4)
        for a, b in zip(left, right, strict=True)
    ]


@pytest.mark.parametrize("parallel", [4, pytest.param(16, marks=pytest.mark.slow)])
def test_replies_equal_the_oracle(kin: tuple[Path, Path], parallel: int, tell: Tell) -> None:
    conversations = [messages for _, messages in fixture_conversations()]
    conversations += [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    chance = Random(parallel)
    asked = [(list(messages), chance.choice(WAYS) | {"max_tokens": 70}) for messages in conversations]
    chance.shuffle(asked)
    tally, oracle = Tally(), exact_oracle(kin)
    with fleet_pair(kin, parallel) as pair:
        for (messages, own), reply in zip(asked, answers(pair, asked), strict=True):
            tally.judge(reply, oracle, messages, **own)
    oracle.close()
    tell(f"{parallel} at once: {tally}")
    assert not tally.different, "\n".join(tally.different)
    assert tally.equal >= 30


@pytest.mark.slow
def test_the_embedded_pair_gives_the_replies_that_it_gives_one_by_one(demo_f32: tuple[Path, Path], tell: Tell) -> None:
    asked = [(prompt, {"max_tokens": 90}) for prompt in PROMPTS * 2]
    with fleet_pair(demo_f32, 1, ctx=1024) as pair:
        alone = answers(pair, asked)
    with fleet_pair(demo_f32, 16, ctx=1024) as pair:
        together = answers(pair, asked)
    found = same(alone, together)
    tell(f"embedded pair, 16 at once: {sum(found)} of {len(found)} as one by one")
    assert all(found)


def test_all_modes_and_samplers_at_once(kin: tuple[Path, Path]) -> None:
    hot = {"temperature": 0.8, "top_k": 5, "seed": 7, "repeat_penalty": 1.2, "draft_temperature": 0.5}
    asked = [(prompt, own | {"max_tokens": 40}) for prompt in PROMPTS[:6] for own in (*MODES, hot, {"threshold": 0.5})]
    with fleet_pair(kin, 1, ctx=512) as pair:
        alone = answers(pair, asked)
    with fleet_pair(kin, 7, ctx=512) as pair:
        assert all(same(alone, answers(pair, asked)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds", [("mamba", "mamba"), ("lfm2", "lfm2"), ("sliding", "sliding"), ("mamba", "llama")], ids="-".join
)
def test_memories_of_other_kinds(tmp_path: Path, kinds: tuple[str, str]) -> None:
    files = paths_of_kinds(tmp_path, kinds)
    asked = [(prompt, {"threshold": 0.6, "max_tokens": 40}) for prompt in PROMPTS[:10]]
    with fleet_pair(files, 1, ctx=512) as pair:
        alone = answers(pair, asked)
    with fleet_pair(files, 4, ctx=512) as pair:
        assert all(same(alone, answers(pair, asked)))


def test_a_cache_that_is_too_small_for_all(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(prompt, {"threshold": 0.6, "max_tokens": 120}) for prompt in PROMPTS[:12]]
    with fleet_pair(kin, 1, ctx=512) as pair:
        alone = answers(pair, asked)
    monkeypatch.setattr("wsd_local.placement.plan.CELLS_PER_REPLY", 64)
    with fleet_pair(kin, 8, ctx=512) as pair:
        together = answers(pair, asked)
        assert pair.models.context("base").cells == 512
    assert all(same(alone, together))
    more = sum(reply.timings.base_evaluated_tokens for reply in together)
    assert more > sum(reply.timings.base_evaluated_tokens for reply in alone)  # some waited, and were read again


def test_what_all_begin_with_is_read_once(kin: tuple[Path, Path]) -> None:
    system = {"role": "system", "content": "word after word " * 40}
    asked = [([system, {"role": "user", "content": prompt}], {"max_tokens": 12}) for prompt in PROMPTS[:8]]
    with fleet_pair(kin, 8, ctx=1024) as pair:
        first = conversation(asked[0][0])[:1]
        common = len(pair.models.model("base").tokenize(pair.models.base_format.prompt(first)))
        together = answers(pair, asked)
        evaluated = pair.models.context("base").evaluated
    assert common > 100
    assert evaluated < common + sum(
        reply.timings.base_prompt_tokens - common + len(reply.tokens) + 80 for reply in together
    )
    assert evaluated == sum(reply.timings.base_evaluated_tokens for reply in together)


def test_a_reply_that_fails_fails_alone(kin: tuple[Path, Path]) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = [(prompt, {"max_tokens": 20}) for prompt in PROMPTS[:6]]
    with fleet_pair(kin, 1, ctx=512) as pair:
        alone = answers(pair, asked)
    with fleet_pair(kin, 4, ctx=512) as pair:
        fleet: Fleet[int | str] = Fleet(pair)
        for index, (prompt, own) in enumerate(asked):
            fleet.add(index, prompt, **own)
            if index == 2:
                fleet.add("long", "word " * 2000)
                fleet.add("wrong", "word", window=-1)
                fleet.add("stuck", "word", mode="base", grammar='root ::= "a" nothing')
        events = list(fleet.events())
    failed = {key: event.error for key, event in events if isinstance(event, Failed)}
    assert isinstance(failed["long"], FitError) and "the prompt is too long" in str(failed["long"])
    assert "window" in str(failed["wrong"]) and isinstance(failed["wrong"], WsdError)
    assert "nothing" in str(failed["stuck"])
    assert set(failed) == {"long", "wrong", "stuck"}
    found = {key: event.reply for key, event in events if isinstance(event, Finished)}
    assert all(same(alone, [found[index] for index in range(6)]))


def test_the_stream_of_each_reply_joins_to_its_text(kin: tuple[Path, Path]) -> None:
    with fleet_pair(kin, 4, ctx=512) as pair:
        fleet: Fleet[int] = Fleet(pair)
        for index, prompt in enumerate(PROMPTS[:8]):
            fleet.add(index, prompt, max_tokens=30, threshold=0.6)
        streamed, whole = dict.fromkeys(range(8), ""), dict[int, str]()
        for key, event in fleet.events():
            if isinstance(event, Finished):
                whole[key] = event.reply.text
            else:
                streamed[key] += getattr(event, "text", "")
    assert streamed == whole


def test_a_stop_stops_all_and_they_go_on(kin: tuple[Path, Path]) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = [(p, {"max_tokens": 40, "threshold": 0.6}) for p in PROMPTS[:8]]
    with fleet_pair(kin, 1, ctx=512) as pair:
        alone = answers(pair, asked)
    with fleet_pair(kin, 4, ctx=512) as pair:
        fleet: Fleet[int] = Fleet(pair)
        for index, (prompt, own) in enumerate(asked):
            fleet.add(index, prompt, **own)
        found: dict[int, Reply] = {}
        stops = 0
        while len(found) < len(asked):
            try:
                for count, (key, event) in enumerate(fleet.events()):
                    if isinstance(event, Finished):
                        found[key] = event.reply
                    if count == 9:
                        pair.cancel()
            except CancelledError:
                stops += 1
                pair.models.cancellation.clear()
        assert stops > 3
        assert all(same(alone, [found[index] for index in range(8)]))


def test_questions_can_be_added_while_others_are_answered(kin: tuple[Path, Path]) -> None:
    with fleet_pair(kin, 2, ctx=512) as pair:
        fleet: Fleet[int] = Fleet(pair)
        fleet.add(0, "word", max_tokens=5)
        order = []
        for key, event in fleet.events():
            if isinstance(event, Finished):
                order.append(key)
                if key < 4:
                    fleet.add(key + 1, "word", first=True, max_tokens=5)
        assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("stage", [3, 256])
def test_one_model_at_a_time(kin: tuple[Path, Path], stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(prompt, {"threshold": 0.6, "max_tokens": 40, "draft_max_tokens": 60}) for prompt in PROMPTS[:7]]
    with fleet_pair(kin, 1, ctx=512) as pair:
        alone = answers(pair, asked)
    monkeypatch.setattr(fleets, "STAGE", stage)
    loads: list[str] = []
    load = LoadedModels._load

    def counted(self: LoadedModels, role: Any, progress: Any) -> None:
        loads.append(role)
        load(self, role, progress)

    monkeypatch.setattr(LoadedModels, "_load", counted)
    with fleet_pair(kin, 2, ctx=512, resident="one") as pair:
        assert all(same(alone, answers(pair, asked)))
    assert loads == ["draft", "base"] * (3 if stage == 3 else 1)


def test_the_public_way(kin: tuple[Path, Path]) -> None:
    with fleet_pair(kin, 3, ctx=512) as pair:
        found = dict(pair.replies(PROMPTS[:5], max_tokens=10))
        assert [found[index].text for index in range(5)] == [
            pair.reply(prompt, max_tokens=10).text for prompt in PROMPTS[:5]
        ]
        with pytest.raises(FitError, match="the prompt is too long"):
            list(pair.replies([PROMPTS[0], "word " * 2000]))


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Context, Callable[[], Context]]]:
    path = random_llama(tmp_path_factory.mktemp("context") / "m.gguf", seed=5, chat_template=BASE_LIKE_TEMPLATE)
    exact = ContextOptions(n_ctx=96, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    with Model(path) as model:
        one = Context(model, exact, Cancellation())
        many = Context(model, replace(exact, n_seq=4, cells=384, n_batch=16, n_rows=6), Cancellation())
        yield many, lambda: one
        one.close()
        many.close()


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_questions_in_any_order_get_the_answers_of_a_fresh_context(
    contexts: tuple[Context, Callable[[], Context]], data: st.DataObject
) -> None:
    """Sequences grow, shrink, change and begin alike; rows are asked from anywhere."""
    many, fresh = contexts
    stems = [[7, 8, 9] * 9, [7, 8, 9] * 6 + [4] * 9, [5]]
    held: list[list[int]] = [list(stems[0]) for _ in range(4)]
    compared = 0
    rounds = data.draw(st.integers(1, 4))
    for _ in range(rounds):
        wanted: dict[int, dict[int, Any]] = {}
        questions = []
        for seq in data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True)):
            cut = data.draw(st.integers(1, len(held[seq])))
            begin = data.draw(st.sampled_from([held[seq][:cut], *stems]))
            tokens = begin + data.draw(st.lists(st.integers(3, 30), max_size=90 - len(begin) if begin else 5))[:30]
            held[seq] = tokens
            rows: dict[int, Any] = {}
            wanted[seq] = rows
            first = data.draw(st.integers(0, len(tokens) - 1))

            def answer(position: int, row: int, rows: dict[int, Any] = rows) -> None:
                rows[position] = np.array(many._logits(row))

            questions.append(Question(seq, tokens, first, answer))
        starts = {question.seq: question.row for question in questions}
        while left := [question for question in questions if not question.done]:
            many.step(left)
        for question in questions:
            assert list(wanted[question.seq]) == list(range(starts[question.seq], question.end))
            one = fresh()
            one.forget(0)
            expected: dict[int, Any] = {}

            def keep(position: int, row: int, expected: dict[int, Any] = expected, one: Context = one) -> None:
                expected[position] = np.array(one._logits(row))

            one.ask(Question(0, question.tokens, 0, keep))
            for position, logits in wanted[question.seq].items():
                assert np.allclose(logits, expected[position], atol=1e-3)
            compared += 1
    assert compared >= rounds


@pytest.mark.parametrize("seqs", [(3, 0, 2, 1), (2, 3, 1, 0)])
def test_a_batch_is_in_the_order_of_its_sequences(
    contexts: tuple[Context, Callable[[], Context]], monkeypatch: pytest.MonkeyPatch, seqs: tuple[int, ...]
) -> None:
    """llama.cpp evaluates streams together as far as their numbers follow one another."""
    many, _ = contexts
    batches: list[list[int]] = []
    decode = Context._decode

    def recorded(self: Context, parts: Any) -> None:
        decode(self, parts)
        native = self._batch.native
        batches.append([native.seq_id[i][0] for i in range(native.n_tokens)])

    monkeypatch.setattr(Context, "_decode", recorded)
    for seq in seqs:
        many.forget(seq)
    lengths = zip(seqs, (1, 7, 3, 2), strict=True)
    many.step([Question(seq, [5 + seq] * count, count - 1, lambda position, row: None) for seq, count in lengths])
    assert {*batches[0]} == {*seqs}
    assert all(batch == sorted(batch) for batch in batches)


def test_more_sequences_than_llama_has_are_refused() -> None:
    with pytest.raises(WsdError, match=r"parallel is 257: llama\.cpp has at most 256 sequences"):
        LoadSettings(parallel=257)
