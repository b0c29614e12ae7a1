"""Bases on vLLM, SGLang and llama-cpp-python: recognised, tried, and the same replies as here.

vLLM and SGLang are stand-ins written from their documentation; llama-cpp-python's server is the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from exactness import EXACT, PLAIN
from same_replies import facts
from serving import listening
from stand_ins import Base, Trouble, llama_server, sglang, vllm
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import wsd_local
from wsd_local.errors import UsageError, WsdError
from wsd_local.remote.address import Address
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.places import vocabulary_file

KINDS: dict[str, Callable[[Base], Any]] = {
    "vLLM": vllm,
    "SGLang": sglang,
    "SGLang, incremental": lambda base: sglang(base, incremental=True),
}
WAYS: list[dict[str, Any]] = [
    {"max_tokens": 30},
    {"window": 3, "threshold": 0.5, "max_tokens": 30},
    {"stop": ("water",)},
    {"mode": "base", "max_tokens": 12},
]


def pair_at(url: str, files: tuple[Path, Path], **changes: Any) -> Pair:
    """The exact draft with the base at a server, whose vocabulary is here."""
    loading = replace(EXACT, base_vocab=str(files[1]), **changes)
    return Pair(draft=files[0], base=Address(url), reply=PLAIN, loading=loading)


@pytest.fixture(params=KINDS, scope="module")
def far(request: pytest.FixtureRequest, real_base: Base, demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    with listening(KINDS[request.param](real_base)) as url, pair_at(url, demo_f32) as pair:
        yield pair


def test_every_way(here: Pair, far: Pair) -> None:
    question = "How do I boil an egg?"
    for way in WAYS:
        assert facts(far.reply(question, **way)) == facts(here.reply(question, **way)), way


def test_tokens_have_their_scores_and_alternatives(here: Pair, far: Pair) -> None:
    wanted, found = (list(pair.start("Hello", details=2, max_tokens=20).events()) for pair in (here, far))
    tokens = [[token for event in events for token in getattr(event, "tokens", ())] for events in (wanted, found)]
    assert [token.id for token in tokens[0]] == [token.id for token in tokens[1]]
    assert len(tokens[0]) > 5
    for mine, theirs in zip(*tokens, strict=True):
        assert theirs.logprob == pytest.approx(mine.logprob, abs=1e-3)
        assert [one[0] for one in theirs.alternatives] == [one[0] for one in mine.alternatives]


def test_many_at_once(here: Pair, real_base: Base, demo_f32: tuple[Path, Path]) -> None:
    questions = ["How do I boil an egg?", "What is a fox?", "Where is Paris?"]
    with listening(vllm(real_base)) as url, pair_at(url, demo_f32, parallel=2) as far:
        found = dict(far.replies(questions, max_tokens=16))
    assert [facts(found[i]) for i in range(3)] == [facts(here.reply(one, max_tokens=16)) for one in questions]


def test_penalties_that_count_other_tokens_are_refused(far: Pair) -> None:
    with pytest.raises(UsageError, match="penalties of repeated tokens"):
        far.reply("Hi", repeat_penalty=1.2)


def test_llama_server_is_refused(demo_f32: tuple[Path, Path]) -> None:
    with (
        listening(llama_server()) as url,
        pytest.raises(WsdError, match=r"is llama-server, which cannot score given tokens .* wsd-local serve"),
    ):
        wsd_local.load(draft=demo_f32[0], base=url)


def test_what_is_no_model_server_is_refused(demo_f32: tuple[Path, Path]) -> None:
    async def page(*_: Any) -> Response:
        return Response("<html>hello</html>", media_type="text/html")

    with (
        listening(Starlette(routes=[Route("/{path:path}", page)])) as url,
        pytest.raises(WsdError, match="of no kind that is known to score"),
    ):
        wsd_local.load(draft=demo_f32[0], base=url)


def test_a_server_that_scores_otherwise_than_it_writes_is_refused(real_base: Base, demo_f32: tuple[Path, Path]) -> None:
    """As llama-cpp-python's echo does for a vocabulary without a first token: it is off by one."""

    async def shifted(request: Any) -> Response:
        body = await request.json()
        if body.get("stream"):
            return cast(Response, await completions(request))
        rows = [None, *({str(token): {"logprob": -9.0}} for token in body["prompt"][1:])]
        return JSONResponse({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})

    app = vllm(real_base)
    completions = app.routes[0].endpoint  # type: ignore[attr-defined]
    app.router.routes[0] = Route("/v1/completions", shifted, methods=["POST"])
    with (
        listening(app) as url,
        pytest.raises(WsdError, match=r"when it writes it and -9\.000 when it scores it"),
        pair_at(url, demo_f32) as pair,
    ):
        pair.reply("Hi")


def test_a_vocabulary_that_is_the_drafts(real_base: Base, kin: tuple[Path, Path]) -> None:
    """Two models of one vocabulary need no other file."""
    base = Base(kin[1])
    try:
        with listening(vllm(base)) as url, Pair(draft=kin[0], base=Address(url), reply=PLAIN, loading=EXACT) as pair:
            assert pair.reply("Hi", max_tokens=8).text
            assert vocabulary_file(pair.models, "base") == kin[0]
    finally:
        base.close()


def test_no_vocabulary(real_base: Base, demo_f32: tuple[Path, Path]) -> None:
    with (
        listening(vllm(real_base)) as url,
        pytest.raises(UsageError, match=r"the vocabulary of big is not here: .* --base-vocab"),
    ):
        wsd_local.load(draft=demo_f32[0], base=url)


def test_more_alternatives_than_a_server_gives(real_base: Base, demo_f32: tuple[Path, Path]) -> None:
    with (
        listening(vllm(real_base)) as url,
        pair_at(url, demo_f32) as pair,
        pytest.raises(WsdError, match="greater than max allowed: 20"),
    ):
        list(pair.start("Hello", details=50, max_tokens=20).events())


@pytest.mark.slow
@pytest.mark.parametrize("latency", [0.0, 0.02, 0.1])
def test_latency_and_loss(here: Pair, real_base: Base, demo_f32: tuple[Path, Path], latency: float) -> None:
    trouble = Trouble(vllm(real_base), latency, "/v1/completions")
    with listening(trouble) as url, pair_at(url, demo_f32) as far:
        for question in ("How do I boil an egg?", "What is a fox?"):
            trouble.statuses = ["reset", 503, None, 429]
            trouble.breaks = [3, 1, 4]
            assert facts(far.reply(question)) == facts(here.reply(question))
            assert trouble.statuses == []
            assert trouble.breaks == []
