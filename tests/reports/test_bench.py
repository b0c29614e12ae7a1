"""`wsd-local bench` and its core: what is counted, what is divided by what, and what is said where it cannot measure.

No test looks at how fast anything is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from bench.native_loop import READS, NativeLoop, beside, in_lockstep, native_loop
from command_line import wsd

from wsd_local import cli
from wsd_local.errors import CancelledError, FitError, UsageError
from wsd_local.llama.timing import timed_calls
from wsd_local.reports import bench as benchmark
from wsd_local.reports import contention as elsewhere
from wsd_local.reports.bench import CHUNKS, OVERRIDES, STEPS, TURNS, Bench, prompt_of
from wsd_local.reports.bench_more import MORE, many_at_once, second_question
from wsd_local.reports.contention import Elsewhere, Watch
from wsd_local.reports.figures import (
    MEMORY,
    PARTS,
    WHOLE,
    Comparison,
    Figures,
    Row,
    about_proposals,
    rows,
    shown,
    sums,
)
from wsd_local.reports.measurement import LATER, SECTIONS, SESSION, measure, memory, steps
from wsd_local.runtime.pair import Pair, load

PROMPT, TOKENS = 40, 44


def ticking() -> Callable[[], float]:
    """A clock that goes one second on whenever it is read."""
    now = 0

    def clock() -> float:
        nonlocal now
        now += 1
        return float(now)

    return clock


@pytest.fixture
def pair() -> Iterator[Pair]:
    with load("demo", threads=1, ctx=1024, **OVERRIDES) as pair:
        yield pair


def evaluated(pair: Pair) -> dict[str, int]:
    return {role: pair.models.context(role).evaluated for role in pair.models.loaded}


# -- what is measured ----------------------------------------------------------------------------------------


def test_a_prompt_has_the_wanted_length(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)
    for length in (20, PROMPT, 131):
        messages = prompt_of(pair, length)
        size = len(pair.models.model("base").tokenize(pair.models.base_format.prompt(messages)))
        assert length - 2 <= size <= length
        assert messages[-1]["role"] == "user"
        assert benchmark.QUESTIONS[0] in messages[-1]["content"]
    assert [message["role"] for message in prompt_of(pair, 1)] == ["user"]
    assert bench.prompts["base"] == pair.models.model("base").tokenize(pair.models.base_format.prompt(bench.messages))
    assert bench.prompts["draft"] == pair.models.draft_format.prompt(bench.messages).tokens


def test_no_cached_prompt_counts(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)
    prompts = {role: len(prompt) for role, prompt in bench.prompts.items()}
    for part in (bench.parts, bench.whole, bench.alone, lambda: bench.shapes("base", 64, 8)):
        taken: list[dict[str, int]] = []
        for _ in range(2):
            before = evaluated(pair)
            part()
            taken.append({role: count - before[role] for role, count in evaluated(pair).items()})
        assert taken[0] == taken[1]
        if part == bench.parts:  # the prompt, the way to the middle of the reply, the steps
            middle = (TOKENS - STEPS) // 2
            checks = 1 + bench.chunk * (CHUNKS + 1)
            assert taken[0]["draft"] == prompts["draft"] + STEPS
            assert taken[0]["base"] == prompts["base"] + middle + 1 + STEPS + checks


def test_a_reply_tells_what_was_done(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)
    figures = bench.whole()
    assert bench.reply is not None
    assert len(bench.reply.tokens) == TOKENS == figures["kept_tokens"] + figures["continued_tokens"]
    assert bench.reply.provenance["settings"]["speculation"] == "off"
    assert figures["draft_steps_tokens"] == figures["drafted_tokens"] - 1
    assert 0 < figures["own_s"] < figures["reply_s"]
    assert figures["first_text_s"] <= figures["token_40_s"] <= figures["reply_s"]
    alone = bench.alone()
    assert set(alone) == {"base_s", "base_first_text_s", "base_token_40_s", "base_longest_gap_s"}


def test_a_draft_can_be_forced(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS, drafted=40)
    figures = bench.whole()
    assert bench.reply is not None
    assert figures["drafted_tokens"] == 40
    assert bench.reply.switch.index is None
    assert figures["kept_tokens"] == figures["checked_tokens"]


def test_proposals_do_not_change_the_reply(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)
    bench.whole()
    figures = bench.proposals()
    assert figures["speculative_s"] > 0
    assert figures["accepted_tokens"] <= figures["proposed_tokens"]
    replies = [bench.answer(speculation=way)[1] for way in ("off", "auto")]
    assert replies[0].tokens == replies[1].tokens


def test_what_proposals_did_is_reported_by_repetition() -> None:
    first: Figures = {"speculative_s": 9, "proposed_tokens": 8, "accepted_tokens": 6, "proposal_rounds": 3}
    second: Figures = {"speculative_s": 7, "proposed_tokens": 0, "accepted_tokens": 0, "proposal_rounds": 0}
    (line,) = about_proposals([first | {"examined_acceptance": 0.75, "break_even": 0.5}, {"reply_s": 3}, second])
    assert line == (
        "Proposals, by repetition: taken 6 of 8, 0 of 0 in 3, 0 rounds; of those looked at 75%, none; "
        "the share from which the draft's pay: 50%, none that is known."
    )
    assert about_proposals([{"reply_s": 3}]) == []


def test_turns_are_those_of_a_conversation(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)
    assert set(bench.turns()) == {"turn_2_s", f"turn_{TURNS}_s"}


def test_turns_that_do_not_fit_are_no_figures() -> None:
    with load("demo", threads=1, ctx=128, **OVERRIDES) as pair:
        assert Bench(pair, prompt_tokens=20, tokens=8).turns() == {}


def test_a_second_question_begins_with_what_was_kept(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)
    found = second_question(bench)
    assert set(found) == {"first_first_s", "second_first_s"}
    assert all(pair.models.context(role).kept is None for role in pair.models.loaded), "nothing stays attached"
    with load("demo", threads=1, ctx=512) as small:
        assert second_question(Bench(small, prompt_tokens=20, tokens=8)) == {}


def test_several_replies_at_once_have_contexts_of_their_own(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=8)
    before = evaluated(pair)
    found = many_at_once(bench)
    assert set(found) == {"many_rate", "one_by_one_rate", "many_base_rate", "one_by_one_base_rate"}
    assert all(rate > 0 for rate in found.values())
    assert evaluated(pair)["base"] > before["base"], "one by one is measured by the pair itself"
    assert pair.reply("hi", max_tokens=4).text, "the weights stay"


def test_a_clock_that_ticks_is_divided_by_tokens(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS, clock=ticking())
    figures = bench.parts()
    for role, prompt in bench.prompts.items():
        assert figures[f"{role}_prompt_s"] == 1
        assert figures[f"{role}_prompt_rate"] == len(prompt)
        assert figures[f"{role}_token_s"] == 1 / STEPS
        assert figures[f"{role}_token_rate"] == STEPS
    assert figures["check_token_s"] == 1 / (CHUNKS * bench.chunk)
    assert bench.shapes("base", 64, 8) == {"base_pp_rate": 64, "base_tg_rate": 8 / 2}


def test_everything_is_measured_in_turns(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "STEPS", 4)
    monkeypatch.setattr(benchmark, "TURN_TOKENS", 8)
    told: list[str] = []
    results = measure(Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS), 2, told.append, lambda: 3 << 30, 1 << 30)
    assert told[0] == "warming up" and len(told) == steps(2)
    assert told[1:] == [f"{name}, {number} of 2" for names in (SECTIONS, LATER) for number in (1, 2) for name in names]
    assert len(results.repetitions) == 2
    for figures in results.repetitions:
        assert sums(figures, figures).items() <= figures.items()
        assert figures["resident_bytes"] == 2 << 30
    assert [row.comparison for row in results.rows] == [*PARTS, *WHOLE, *SESSION, *MORE, *MEMORY]
    values = json.loads(json.dumps(results.as_dict()))
    assert values["about"]["prompt_tokens"]["base"] <= PROMPT
    assert values["about"]["load_mode"] == {"draft": "mmap", "base": "mmap"}
    assert values["about"]["reply"]["continued_tokens"] + values["about"]["reply"]["kept_tokens"] == TOKENS
    for row in values["rows"]:
        assert set(row) == {"what", "figure", "other", "against", "measured", "other_measured", "ratio", "goal", "met"}


def test_a_stop_ends_the_measurement(pair: Pair) -> None:
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)

    def stop(what: str) -> None:
        if what.startswith("whole reply"):
            pair.cancel()

    with pytest.raises(CancelledError):
        measure(bench, 1, stop, lambda: 0, 0)


# -- what else the machine does ------------------------------------------------------------------------------


def test_time_that_went_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds of four processors: 12 s by all programs, 9 of them ours, 6 s taken by the host."""
    moments = iter([(100.0, 50.0, 7.0, 3.0), (110.0, 62.0, 16.0, 9.0)])
    monkeypatch.setattr(elsewhere, "_now", lambda: next(moments))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    told = Watch().elsewhere()
    assert (told.programs, told.host) == (3 / 40, 6 / 40)
    assert "8% of the processors' time went to other programs and 15% to the host" in told.sentence()
    assert "too much" in told.sentence()
    assert "too much" not in Elsewhere(0.02, 0.02).sentence()


def test_what_a_program_that_was_waited_for_did_is_not_elsewhere() -> None:
    """Clocks of a hundredth of a second, on a machine where others work too: only that it counts at all can be said."""
    before, here = elsewhere._now(), time.process_time()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    after, here = elsewhere._now(), time.process_time() - here
    _, used, own, _ = (late - early for early, late in zip(before, after, strict=True))
    assert own - here > 0.05
    assert used > 0.05


def test_llama_benchs_calls_take_turns_with_ours(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    context = pair.models.context("base")
    order: list[str] = []
    ask, evaluate = context.ask, NativeLoop.evaluate

    def asked(question: Any) -> None:
        order.append(f"own {len(question.tokens)}")
        ask(question)

    def evaluated(loop: NativeLoop, tokens: Sequence[int], rows: int = 1) -> None:
        order.append(f"native {len(tokens)}")
        evaluate(loop, tokens, rows)

    monkeypatch.setattr(context, "ask", asked)
    monkeypatch.setattr(NativeLoop, "evaluate", evaluated)
    for turned in (False, True):
        order.clear()
        before = context.evaluated
        with native_loop(context, 64, 1) as loop:
            figures = beside(context, loop, range(5, 25), 4, ticking(), turned=turned)
            held = llama_cpp.llama_memory_seq_pos_max(llama_cpp.llama_get_memory(loop._context), 0) + 1
        assert figures == {"own_pp_rate": 20, "loop_pp_rate": 20, "own_tg_rate": 1, "loop_tg_rate": 1}
        assert context.evaluated - before == (READS + 1) * 20 + 4
        assert held == 4
        first, second = ("native 20", "own 20") if turned else ("own 20", "native 20")
        assert order[:12] == [first, second, second, first] * 3
        steps = ["own 1", "native 1", "native 1", "own 2", "own 3", "native 1", "native 1", "own 4"]
        turned_steps = ["native 1", "own 1", "own 2", "native 1", "native 1", "own 3", "own 4", "native 1"]
        assert order[12:] == (turned_steps if turned else steps)


def test_lockstep_repeats_each_evaluation(pair: Pair) -> None:
    """What is taken back after the switch is taken back there too, and only our own time counts as ours."""
    bench = Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)
    bench.answer()
    before = evaluated(pair)
    steps_alone = bench.whole()["base_steps_tokens"]
    count = {role: number - before[role] for role, number in evaluated(pair).items()}
    repeated: dict[str, int] = {}
    evaluate, tick = NativeLoop.evaluate, ticking()
    asleep, several = 0.0, 0

    def counted(loop: NativeLoop, tokens: Sequence[int], rows: int = 1) -> None:
        nonlocal asleep, several
        asleep += 1e6
        several += rows > 1
        repeated[str(loop)] = repeated.get(str(loop), 0) + len(tokens)
        evaluate(loop, tokens, rows)

    def clock() -> float:
        return tick() + asleep

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NativeLoop, "evaluate", counted)
        figures = in_lockstep(pair, clock, 1, prompt=PROMPT, tokens=TOKENS, drafted=None)
    warming = {str(role): len(prompt) for role, prompt in bench.prompts.items()}
    assert sorted(repeated.values()) == sorted(count[role] + warming[role] for role in count)
    parts = {name: seconds for name, seconds in figures.items() if name.startswith(("lockstep_draft", "lockstep_base"))}
    assert figures["lockstep_native_s"] == sum(parts.values())
    assert parts["lockstep_base_tokens_s"] == steps_alone * (1e6 + 1)
    assert 0 < figures["lockstep_reply_s"] < 1e6
    assert several == 1, "one check of eight tokens asks for a row of logits of each"
    assert "step" not in vars(pair.models.context("base"))


# -- time in llama.cpp ---------------------------------------------------------------------------------------


def test_calls_are_timed_and_put_back(pair: Pair) -> None:
    decode = llama_cpp.llama_decode
    with timed_calls(ticking()) as native:
        assert llama_cpp.llama_decode is not decode
        pair.models.context("base").read(0, [1, 2, 3])
        counted = native.calls
    assert llama_cpp.llama_decode is decode
    assert counted > 0
    assert native.seconds == native.calls == counted
    pair.models.context("base").forget(0)
    assert native.calls == counted


def test_calls_are_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.SimpleNamespace(llama_decode=llama_cpp.llama_decode, LLAMA_X=1)
    monkeypatch.setattr("wsd_local.llama.timing.llama_cpp", module)
    with pytest.raises(RuntimeError), timed_calls(ticking()):
        assert module.llama_decode is not llama_cpp.llama_decode
        raise RuntimeError
    assert module.llama_decode is llama_cpp.llama_decode
    assert module.LLAMA_X == 1


# -- what is divided by what ---------------------------------------------------------------------------------


def test_parts_add_up() -> None:
    parts = {
        "draft_prompt_s": 2.0,
        "base_prompt_s": 5.0,
        "draft_token_s": 0.5,
        "base_token_s": 1.0,
        "check_token_s": 0.25,
    }
    whole: Figures = {
        "drafted_tokens": 10,
        "checked_tokens": 8,
        "continued_tokens": 20,
        "draft_steps_tokens": 9,
        "base_steps_tokens": 18,
    }
    assert sums(parts, whole) == {"sum_s": 2 + 5 + 5 + 2 + 20, "steps_sum_s": 2 + 5 + 4.5 + 2 + 18}


def test_quotients_are_taken_within_a_repetition() -> None:
    repetitions = [{"a": 1.0, "b": 2.0}, {"a": 30.0, "b": 10.0}, {"a": 2.0, "b": 4.0}, {"a": 7.0}]
    (row,) = rows(repetitions, [Comparison("what", "a", "s", "other", "b", 0.4)])
    assert (row.measured, row.other, row.ratio, row.met) == (2.0, 4.0, 0.5, False)
    (row,) = rows(repetitions, [Comparison("what", "a", "s")])
    assert (row.measured, row.other, row.ratio, row.met) == (4.5, None, None, None)
    assert rows(repetitions, [Comparison("what", "c", "s"), Comparison("what", "a", "s", "other", "c")]) == []


@pytest.mark.parametrize(
    ("measured", "other", "goal", "at_least", "met"),
    [(9.0, 10.0, 0.9, False, True), (9.0, 10.0, 0.9, True, True), (8.0, 10.0, 0.9, True, False)],
)
def test_goals(measured: float, other: float, goal: float, at_least: bool, met: bool) -> None:
    asked = Comparison("what", "a", "s", "other", "b", goal, at_least)
    assert Row(asked, measured, other, measured / other).met is met


def test_a_goal_without_a_quotient_is_for_the_figure() -> None:
    row = Row(Comparison("what", "a", "s", goal=0.25), 0.2, None, None)
    assert row.met is True
    assert row.cells() == ("what", "0.200 s", "", "", "≤ 0.250 s", "yes")


def test_cells_say_what_was_divided_by_what() -> None:
    row = Row(Comparison("whole reply", "a", "s", "base alone", "b", 0.5), 3.0, 4.0, 0.75)
    assert row.cells() == ("whole reply", "3.00 s", "4.00 s: base alone", "0.750", "≤ 0.5", "no")


def test_units() -> None:
    assert shown(0.0712, "ms") == "71.20 ms"
    assert shown(12.34, "tokens/s") == "12.3 tokens/s"
    assert shown(3 << 29, "bytes") == "1.50 GiB"


def test_memory_is_that_of_the_plan(pair: Pair) -> None:
    assert pair.models.plan is not None
    parts = [placement.use["memory"] for placement in pair.models.plan.placements.values()]
    needed = sum(part["weights"] + part["cache"] for part in parts)
    assert memory(pair.models.plan, 1000, 5000) == {"resident_bytes": 4000, "needed_bytes": needed}
    assert memory(None, 1000, 5000) == {}


# -- what cannot be measured ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"prompt_tokens": 0}, UsageError),
        ({"tokens": 0}, UsageError),
        ({"drafted": 0}, UsageError),
        ({"tokens": 8, "drafted": 9}, UsageError),
        ({"prompt_tokens": 1100}, FitError),
        ({"tokens": 1100}, FitError),
    ],
)
def test_errors(pair: Pair, asked: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Bench(pair, **{"prompt_tokens": PROMPT, "tokens": TOKENS} | asked)


def test_models_that_take_turns_in_memory() -> None:
    with load("demo", threads=1, resident="one") as pair, pytest.raises(UsageError, match="resident is one"):
        Bench(pair, prompt_tokens=PROMPT, tokens=TOKENS)


# -- the command ---------------------------------------------------------------------------------------------


SHORT = ("--threads", "1", "--prompt-tokens", "20", "--tokens", "8", "--repeat", "1", "--ctx", "512")


def test_the_table() -> None:
    done = wsd("bench", "demo", *SHORT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[1].split() == ["what", "measured", "against", "ratio"]
    assert sum("whole reply" in line for line in lines) == 6
    assert any(line.startswith("Proposals, ") for line in lines)
    assert any(line.startswith("Load mode: draft mmap, base mmap") for line in lines)


def test_json_is_one_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["wsd-local", "bench", *SHORT, "--json", "--check-chunk", "4", "--drafted", "6"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    values = json.loads(capsys.readouterr().out)
    assert set(values) == {"about", "rows", "repetitions", "elsewhere"}
    assert values["about"]["check_chunk"] == 4
    assert values["about"]["reply"]["drafted_tokens"] == 6
    assert values["about"]["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--repeat", "0"), 2, "repeat is 0"),
        (("--drafted", "9"), 2, "raise --tokens"),
        (("--prompt-tokens", "5000"), 4, "raise --ctx"),
        (("--prompt-tokens", "5000", "--ctx", "2048"), 4, "lower --prompt-tokens"),
        (("nothing-of-this-name",), 2, "nothing-of-this-name"),
        (("--base", "missing.gguf"), 3, "missing.gguf"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wsd-local", "bench", *SHORT, *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert ended.value.code == code
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("wsd-local: ")
    assert said in line
