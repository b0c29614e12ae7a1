"""A base on a server where people meet it: `doctor`, `serve`, data sets; and llama-cpp-python's real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from exactness import EXACT, PLAIN
from same_replies import facts
from serving import listening, private_folders
from stand_ins import Base, llama_server, vllm

from wsd_local.cli.dataset import paying_number
from wsd_local.cli.progress import Reporter
from wsd_local.errors import UsageError
from wsd_local.library.catalog import PairEntry
from wsd_local.library.resolve import model_path
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.remote.address import Address
from wsd_local.reports.remote_base import base_facts
from wsd_local.runtime.pair import Pair, model_files
from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.settings import LoadSettings

QUESTION = "How do I boil an egg?"


# -- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_prints_what_was_tried(base_server: str, demo_f32: tuple[Path, Path]) -> None:
    problems: list[str] = []
    text = "\n".join(base_facts(Address(base_server), LoadSettings(), demo_f32[0], problems))
    assert problems == []
    for expected in ("kind: wsd-local serve", "model: demo:base", "context: 4096", "the server's own", "scores given"):
        assert expected in text


def test_doctor_says_what_a_server_lacks(real_base: Base, demo_f32: tuple[Path, Path]) -> None:
    for app, expected in ((vllm(real_base), "--base-vocab"), (llama_server(), "cannot score given tokens")):
        problems: list[str] = []
        with listening(app) as url:
            lines = base_facts(Address(url), LoadSettings(), demo_f32[0], problems)
        assert lines[-1] == "cannot be a base, see problems"
        assert len(problems) == 1
        assert expected in problems[0]


# -- serve -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def relay(
    base_server: str, demo_f32: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A server whose pair has its base on another server."""
    pair = PairEntry("far", str(demo_f32[0]), base_server, BaseFormat(), server={"base_model": "demo"})
    with private_folders(tmp_path_factory.mktemp("relay")):
        desk = Desk([pair], reply=PLAIN, loading=EXACT)
        desk.start()
        try:
            with listening(create_app(desk)) as url, httpx.Client(base_url=url, timeout=60) as client:
                yield client
        finally:
            desk.close()


def test_a_served_pair_with_its_base_elsewhere(here: Pair, relay: httpx.Client) -> None:
    assert [one["id"] for one in relay.get("/v1/models").json()["data"]] == ["far", "far:base", "far:draft"]
    body = {"model": "far", "messages": [{"role": "user", "content": QUESTION}]}
    answer = relay.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == here.reply(QUESTION).text
    assert answer["wsd"]["base"]["model"] == "demo:base"


def test_scores_pass_through(relay: httpx.Client, base_server: str) -> None:
    body = {"requests": [{"tokens": [5, 6, 7, 8], "start": 1, "top": 2}]}
    mine, theirs = (
        httpx.post(f"{url}/v1/score", json=body | {"model": model}).json()["results"][0]["tokens"]
        for url, model in ((str(relay.base_url), "far:base"), (base_server, "demo:base"))
    )
    assert [one["id"] for one in mine] == [6, 7, 8]
    for one, other in zip(mine, theirs, strict=True):
        assert one["logprob"] == pytest.approx(other["logprob"], abs=1e-4)
        assert [top["id"] for top in one["top"]] == [top["id"] for top in other["top"]]


def test_its_vocabulary_is_offered_again(relay: httpx.Client, base_server: str) -> None:
    mine, theirs = relay.get("/v1/vocabulary?model=far:base"), httpx.get(f"{base_server}/v1/vocabulary?model=demo:base")
    assert mine.content == theirs.content


# -- data sets and files ---------------------------------------------------------------------------------------------


def test_how_many_replies_pay_is_not_measured_on_a_server(there: Pair) -> None:
    assert paying_number(there, Reporter(quiet=True)) == there.models.loading.parallel


def test_a_server_is_no_file() -> None:
    assert set(model_files(base="http://127.0.0.1:1")) == {"draft"}
    with pytest.raises(UsageError, match="is the address of a server"):
        model_path("http://127.0.0.1:1")


# -- llama-cpp-python ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logits_all", [True, False])
def test_the_real_server_of_llama_cpp_python(here: Pair, demo_f32: tuple[Path, Path], logits_all: bool) -> None:
    for package in ("starlette_context", "pydantic_settings"):
        pytest.importorskip(package, reason="expected: llama-cpp-python's server is not installed (extra clients)")
    from llama_cpp.server.app import create_app as llama_cpp_app
    from llama_cpp.server.settings import ModelSettings, ServerSettings

    model = ModelSettings(
        model=str(demo_f32[1]), n_ctx=1024, n_threads=1, logits_all=logits_all, verbose=False, type_k=0, type_v=0
    )
    app = llama_cpp_app(server_settings=ServerSettings(), model_settings=[model])
    loading = replace(EXACT, base_vocab=str(demo_f32[1]), ctx=1024)
    with listening(app) as url, Pair(draft=demo_f32[0], base=Address(url), reply=PLAIN, loading=loading) as far:
        if not logits_all:
            problems: list[str] = []
            base_facts(Address(url), loading, demo_f32[0], problems)
            assert "start it with --logits_all true" in problems[0], json.dumps(problems)
            return
        for way in ({"max_tokens": 24}, {"window": 3, "threshold": 0.5, "max_tokens": 24}):
            assert facts(far.reply(QUESTION, **way)) == facts(here.reply(QUESTION, **way))
