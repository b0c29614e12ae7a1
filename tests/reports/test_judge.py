"""`wsd-local eval judge` with real models: llama.cpp's own probabilities, files that continue, endpoints."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import complains, started, wsd
from llama_cpp import Llama
from makers import PLAIN_TEMPLATE, random_llama
from page_reader import PageReader
from serving import desk_of

from wsd_local.errors import UsageError, WsdError
from wsd_local.prompts.messages import Message
from wsd_local.reports.judge.asking import GRADES, Asked, comparison, grading
from wsd_local.reports.judge.endpoint import KEY_VARIABLE, EndpointJudge
from wsd_local.reports.judge.local import local_judge
from wsd_local.reports.judge.record import VerdictFile
from wsd_local.reports.judge.replies import read_replies
from wsd_local.reports.judge.verdicts import TooLongError
from wsd_local.settings import LoadSettings

EXACT = {"threads": 1, "cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": "off"}


def lines(texts: Sequence[str], **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "index": i,
            "id": f"q{i}",
            "turn": 0,
            "messages": [{"role": "user", "content": f"What is {i} and {i}?"}],
            "text": text,
            **changes,
        }
        for i, text in enumerate(texts)
    ]


def written(path: Path, values: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of replies to the same prompts."""
    a = written(tmp_path / "a.jsonl", lines(["It is two.", "Four, of course.", "Six."]))
    return a, written(tmp_path / "b.jsonl", lines(["no", "", "I cannot tell."]))


def judged(*arguments: object) -> Any:
    return wsd("eval", "judge", *map(str, arguments), "--threads", "1")


def talk(text: str) -> list[Message]:
    return [Message(role="user", content="What is one and one?"), Message(role="assistant", content=text)]


# -- probabilities -------------------------------------------------------------------------------------------


class Oracle:
    """Log-probabilities of continuations by the high-level API of llama-cpp-python, each evaluated on its own."""

    def __init__(self, path: Path) -> None:
        self._llama = Llama(
            str(path), n_ctx=2048, logits_all=True, verbose=False, n_threads=1, type_k=0, type_v=0, flash_attn=False
        )

    def logprob(self, prompt: str, continuation: str) -> float:
        """Of the tokens of both together that follow those of the prompt, which must be a token's end."""
        before = self._llama.tokenize(prompt.encode(), add_bos=False, special=True)
        whole = self._llama.tokenize((prompt + continuation).encode(), add_bos=False, special=True)
        assert whole[: len(before)] == before
        self._llama.reset()
        self._llama.eval(whole)
        total = 0.0
        for place in range(len(before), len(whole)):
            row = self._llama.scores[place - 1].astype("float64")
            total += row[whole[place]] - row.max() - math.log(sum(math.exp(v - row.max()) for v in row))
        return total


def chatml(messages: Sequence[Message]) -> str:
    text = "".join(f"<|im_start|>{m['role']}\n{m['content'].strip()}<|im_end|>\n" for m in messages)
    return f"{text}<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a ChatML template and letters that are single tokens; digits too, so 10 is two."""
    return random_llama(tmp_path_factory.mktemp("judge") / "judge.gguf", seed=3)


def test_probabilities_are_those_of_the_answers_after_the_rendered_question(chat_model: Path) -> None:
    asked = comparison("mt_bench", talk("Two."), talk("Three."))
    oracle = Oracle(chat_model)
    with local_judge(str(chat_model), EXACT) as judge:
        found = judge.logprobs(asked)
        again = judge.logprobs(comparison("mt_bench", talk("Three."), talk("Two.")))
        assert judge.logprobs(asked) == pytest.approx(found, abs=1e-4) and again != found
    prompt = chatml(asked.messages)
    for answer, value in zip(asked.answers, found, strict=True):
        spelled = [oracle.logprob(prompt, before + answer) for before in ("", " ")]
        assert value == pytest.approx(math.log(sum(map(math.exp, spelled))), abs=1e-4)


def test_an_answer_of_two_tokens_counts_with_both_and_is_taken_from_the_shorter_one(chat_model: Path) -> None:
    asked = grading(talk("Two."))
    oracle, prompt = Oracle(chat_model), chatml(asked.messages)
    with local_judge(str(chat_model), EXACT) as judge:
        found = dict(zip(GRADES, judge.logprobs(asked), strict=True))
    chance = {grade: sum(math.exp(oracle.logprob(prompt, before + grade)) for before in ("", " ")) for grade in GRADES}
    assert found["10"] == pytest.approx(math.log(chance["10"]), abs=1e-4)
    assert found["1"] == pytest.approx(math.log(chance["1"] - chance["10"]), abs=1e-4)
    assert found["2"] == pytest.approx(math.log(chance["2"]), abs=1e-4)


def test_the_embedded_draft_can_be_asked_and_is_no_good_judge(
    pair: tuple[Path, Path], demo_q8: tuple[Path, Path], tmp_path: Path
) -> None:
    done = judged(*pair, "--judge", demo_q8[0], "--json", "--html", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pairs"] == 3 == found["wins_a"] + found["wins_b"] + found["ties"] + found["split"]
    assert found["judge"]["sha256"] and found["inputs"]["a"]["sha256"]
    assert any("does not follow the form" in line for line in found["warnings"])
    notes = done.stderr.decode()
    assert f"{pair[1]}: 1 of 3 replies without text" in notes and "6 verdicts in" in notes
    page = PageReader((tmp_path / "page.html").read_text("utf-8"))
    assert "win rate of A, length-controlled" in page.cells
    shown = judged(*pair, "--judge", demo_q8[0], "--ask", "alpaca_eval").stdout.decode()
    assert "agrees with itself" in shown and "win rate of A" in shown
    graded = json.loads(judged(*pair, "--judge", demo_q8[0], "--grade", "--json").stdout)
    assert [one["name"] for one in graded["grades"]] == ["a", "b"]
    assert all(1 <= one["grade"]["value"] <= 10 for one in graded["grades"]) and graded["difference"]["count"] == 3


# -- files of verdicts ----------------------------------------------------------------------------------------


def test_a_run_that_was_killed_continues_and_gives_the_same(
    pair: tuple[Path, Path], demo_q8: tuple[Path, Path], tmp_path: Path
) -> None:
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    first = judged(*pair, "--judge", demo_q8[0], "--output", whole, "--json")
    begun = whole.read_bytes().splitlines(keepends=True)
    assert len(begun) == 7
    part.write_bytes(b"".join(begun[:4]) + begun[4][:20])
    again = judged(*pair, "--judge", demo_q8[0], "--output", part, "--json")
    assert b"3 of 6 verdicts are there already" in again.stderr and b"3 verdicts in" in again.stderr
    assert json.loads(again.stdout)["win_rate"] == json.loads(first.stdout)["win_rate"]
    assert part.read_bytes().splitlines(keepends=True)[:4] == begun[:4]
    assert len(part.read_bytes().splitlines()) == 7
    line = json.loads(begun[1])
    assert line["which"] == "ab" and sum(line["probabilities"].values()) == pytest.approx(1)


def test_a_signal_keeps_what_is_done(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    texts = [f"It is {i}, and that is all there is to say about it. " * 8 for i in range(60)]
    files = [str(written(tmp_path / f"{name}.jsonl", lines(texts))) for name in "ab"]
    output = tmp_path / "verdicts.jsonl"
    running = started("eval", "judge", *files, "--judge", str(demo_q8[0]), "--output", str(output))
    while running.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < 3):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate()
    assert running.returncode == 130 and b"are done; with --output they are kept" in error, error
    kept = output.read_bytes()
    assert kept.endswith(b"\n") and 3 <= kept.count(b"\n") < 121
    assert all(json.loads(line) for line in kept.splitlines())


def test_verdicts_of_other_judges_or_inputs_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    with VerdictFile(path, {"ask": "mt_bench", "judge": {"sha256": "1"}}) as file:
        file.append((0, 0, "ab"), (-1.0, -2.0), {"id": "q0"})
        with pytest.raises(UsageError, match="another run is writing"):
            VerdictFile(path, {"ask": "mt_bench", "judge": {"sha256": "1"}})
    with pytest.raises(UsageError, match="was made with another judge"):
        VerdictFile(path, {"ask": "mt_bench", "judge": {"sha256": "2"}})
    before = path.read_bytes()
    with VerdictFile(path, {"ask": "mt_bench", "judge": {"sha256": "1"}}) as file:
        assert file.done == {(0, 0, "ab"): (-1.0, -2.0)}
    assert path.read_bytes() == before
    for foreign in (b'{"index": 0}\n', b"not json\n", before + b'{"index": "0"}\n'):
        path.write_bytes(foreign)
        with pytest.raises(UsageError, match="is not a line of verdicts"):
            VerdictFile(path, {"ask": "mt_bench", "judge": {"sha256": "1"}})
        assert path.read_bytes() == foreign


# -- faults ---------------------------------------------------------------------------------------------------


def test_files_that_do_not_match_are_refused_before_the_judge_is_loaded(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", lines(["x", "y"]))
    missing = ["--judge", str(tmp_path / "none.gguf")]
    cases = {
        "has no reply to record q1": lines(["x"]),
        "(1 record failed there)": [*lines(["x"]), {"index": 1, "turn": 0, "id": "q1", "error": "too long"}],
        "record q1 is there twice": [*lines(["x", "y"]), lines(["x", "y"])[1]],
        "different prompts in record q0": lines(["x", "y"], messages=[{"role": "user", "content": "Else?"}]),
        "it has no `text`": [{"index": 0, "turn": 0, "messages": []}],
        "there is no reply in it": [],
    }
    for words, values in cases.items():
        b = written(tmp_path / "b.jsonl", values)
        complains(wsd("eval", "judge", str(a), str(b), *missing), 2, words)
    complains(wsd("eval", "judge", str(a), *missing), 2, "give two to compare")
    complains(wsd("eval", "judge", str(a), str(a), *missing, "--limit", "0"), 2, "limit is 0")
    complains(wsd("eval", "judge", str(a), str(a), *missing, "--judge-model", "x"), 2, "--judge is no endpoint")
    complains(wsd("eval", "judge", str(a), str(a), *missing, "--output", str(a)), 2, "is one of the files of replies")
    complains(wsd("eval", "judge", str(a), str(a), *missing), 3, "none.gguf")
    assert read_replies(a).replies


def test_a_judge_must_have_a_chat_template(pair: tuple[Path, Path], demo_q8: tuple[Path, Path]) -> None:
    complains(judged(*pair, "--judge", demo_q8[1]), 3, "has no chat template", "choose an instruct model")


def test_what_is_too_long_for_the_judge_is_named_and_counted(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", lines(["Two.", "It is four. " * 400]))
    b = written(tmp_path / "b.jsonl", lines(["Three.", "Four."]))
    done = judged(a, b, "--judge", demo_q8[0], "--ctx", "1024", "--json")
    assert done.returncode == 5 and json.loads(done.stdout)["pairs"] == 1
    notes = done.stderr.decode()
    assert "record q1: too long for the judge" in notes and "2 questions too long" in notes


# -- endpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(chat_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The random model as the draft of a served pair."""
    loading = LoadSettings(threads=1, ctx=1024, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    with desk_of((chat_model, chat_model), loading, tmp_path_factory.mktemp("served")) as url:
        yield url


def test_an_endpoint_gives_the_probabilities_of_the_model_that_it_serves(server: str, chat_model: Path) -> None:
    """Asked for its own favourites, so that they are among the alternatives of a model that knows no letters."""
    with local_judge(str(chat_model), EXACT) as local:
        asked = comparison("mt_bench", talk("Two."), talk("Three."))
        remote = EndpointJudge(server, "demo:draft")
        listed = remote._listed(
            remote._answer(
                {
                    "model": "demo:draft",
                    "messages": list(asked.messages),
                    "max_tokens": 1,
                    "temperature": 0,
                    "logprobs": True,
                    "top_logprobs": 20,
                }
            )
        )
        plain = [token for token in listed if token.strip() == token and token.isalpha() and token.isascii()]
        answers = tuple(dict.fromkeys(plain))[:2]
        assert len(answers) == 2, listed
        question = Asked(asked.messages, answers)
        found, here = remote.logprobs(question), local.logprobs(question)
    assert found == pytest.approx(here, abs=0.05)
    with pytest.raises(WsdError, match="none of zzz is among"):
        remote.logprobs(Asked(asked.messages, ("zzz",)))


def test_an_endpoint_that_finds_a_question_too_long_is_believed(server: str) -> None:
    with pytest.raises(TooLongError, match="400"):
        EndpointJudge(f"{server}/v1", "demo:draft").logprobs(comparison("mt_bench", talk("x " * 3000), talk("y")))


def test_faults_of_endpoints_are_one_line(
    server: str, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = [str(pair[0])] * 2
    at = ["--judge", f"{server}/v1"]
    complains(wsd("eval", "judge", *same, *at), 2, "--judge-model")
    complains(wsd("eval", "judge", *same, *at, "--judge-model", "nobody"), 1, "nobody")
    complains(wsd("eval", "judge", *same, *at, "--judge-model", "x", "--grade"), 2, "on this machine")
    complains(wsd("eval", "judge", *same, *at, "--judge-model", "x", "--ctx", "9"), 2, "ctx")
    closed = ["--judge", "http://127.0.0.1:9/v1", "--judge-model", "x"]
    complains(wsd("eval", "judge", *same, *closed), 1, "cannot be reached")
    monkeypatch.setenv(KEY_VARIABLE, "a-key-of-mine")
    with pytest.raises(UsageError, match="others could read the key"):
        EndpointJudge("http://judge.example/v1", "x")
    with pytest.raises(UsageError, match="no address of a judge"):
        EndpointJudge("http://user:password@judge.example/v1", "x")
    assert EndpointJudge("https://judge.example", "x").url == "https://judge.example/v1/chat/completions"


def test_plain_templates_work_too(tmp_path: Path) -> None:
    """A template whose prompt ends in the middle of a line, where a space belongs before the answer."""
    model = random_llama(tmp_path / "plain.gguf", seed=4, chat_template=PLAIN_TEMPLATE)
    with local_judge(str(model), EXACT) as judge:
        found = judge.logprobs(comparison("alpaca_eval", talk("Two."), talk("Three.")))
    assert len(found) == 2 and all(math.isfinite(value) for value in found)
