"""Models that live on workers: the same replies as in this process, and as the three passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import EGG, complains, wsd
from exactness import EXACT, PLAIN, Tally, exact_oracle, exact_pair
from rpc_workers import BadNetwork, RealWorker, needs_rpc, stand_in, workers

from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.pair import Pair
from wsd_local.workers.devices import remote_devices

pytestmark = needs_rpc


@pytest.fixture(scope="module")
def two() -> Iterator[list[RealWorker]]:
    """Two workers, which serve one pair in turn."""
    with workers(2) as found:
        yield found


@pytest.fixture(scope="module")
def engaged() -> Iterator[list[RealWorker]]:
    """Two more, for the pair that is loaded once for all tests."""
    with workers(2) as found:
        yield found


def addresses(found: list[RealWorker]) -> str:
    return ",".join(map(str, found))


def questions(number: int) -> list[list[dict[str, str]]]:
    return [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][:number]


@pytest.fixture(scope="module")
def spread(engaged: list[RealWorker], demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    """Both models in F32, all layers divided among two workers by llama.cpp."""
    loading = replace(EXACT, rpc=addresses(engaged), n_gpu_layers=-1)
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=PLAIN, loading=loading) as pair:
        yield pair


@pytest.mark.parametrize("number", [2, pytest.param(16, marks=pytest.mark.slow)])
def test_the_same_replies_as_the_three_passes(spread: Pair, demo_f32: tuple[Path, Path], number: int) -> None:
    oracle, tally = exact_oracle(demo_f32), Tally()
    try:
        for messages in questions(number):
            for settings in ({"threshold": 0.8}, {"threshold": 0.3, "check_chunk": 1}, {"threshold": 2.0}):
                tally.compare(spread, oracle, messages, **settings, max_tokens=48)
    finally:
        oracle.close()
    assert tally.equal >= number * 3 - 1 and not tally.different


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "top_k": 20, "repeat_penalty": 1.3, "seed": 5},
        {"regex": r"[a-z ]{5,30}\."},
        *(
            pytest.param(settings, marks=pytest.mark.slow)
            for settings in (
                {"temperature": 0.9, "seed": 3},
                {"draft_temperature": 0.8, "draft_seed": 1},
                {"mode": "draft"},
                {"mode": "base", "speculation": "lookup"},
                {"rule": "entropy", "probabilities": True},
                {"rule": "return", "return_": 0.9},
                {"rule": "nudging"},
                {"ignore_eos": True, "max_tokens": 40},
            )
        ),
    ],
    ids=lambda settings: ",".join(settings),
)
def test_the_same_replies_as_in_this_process(
    spread: Pair, demo_f32: tuple[Path, Path], settings: dict[str, object]
) -> None:
    settings, (messages,) = {"max_tokens": 64, **settings}, questions(1)
    with exact_pair(demo_f32) as local:
        here, there = local.reply(messages, **settings), spread.reply(messages, **settings)
    assert there.text == here.text and there.tokens == here.tokens


def test_a_cancelled_reply_goes_on(spread: Pair) -> None:
    whole = spread.reply(EGG, max_tokens=60, ignore_eos=True)
    run = spread.start(EGG, max_tokens=60, ignore_eos=True)
    events = run.events()
    next(events)
    run.cancel()
    for _ in events:
        pass
    assert run.reply.finish_reason == "cancelled" and whole.text.startswith(run.reply.text)
    for _ in run.events():
        pass
    assert run.reply.text == whole.text


def test_the_plan_counts_the_workers_memory(two: list[RealWorker]) -> None:
    found = remote_devices(addresses(two))
    assert [device.name for device in found] == ["RPC0", "RPC1"]
    assert all(0 < device.free < device.total and device.remote for device in found), "not all of it is free"
    shown = wsd("fit", "--rpc", addresses(two)).stdout.decode()
    assert all(f"RPC worker {one}" in shown for one in two) and "It fits" in shown
    assert "0 of 5" in shown and "5 of 5" in shown, "the draft stays here, the base goes there"


def test_a_pair_names_its_workers(two: list[RealWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        'pair = "far"\n[pairs.far]\ndraft = "demo-draft"\nbase = "demo-base"\n'
        f'[pairs.far.settings]\nrpc = "{two[0]}"\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(config))
    assert f"RPC worker {two[0]}" in wsd("fit").stdout.decode()
    assert wsd("run", EGG).stdout.decode() == wsd("run", EGG, "--pair", "demo").stdout.decode()


@pytest.mark.slow
def test_a_slow_network_changes_nothing(two: list[RealWorker]) -> None:
    with stand_in(BadNetwork(two[1].port, delay=0.002)) as slow:
        done = wsd("run", EGG, "--rpc", f"{two[0]},{slow}", "--n-gpu-layers", "-1", "--max-tokens", "20")
    assert done.stdout == wsd("run", EGG, "--max-tokens", "20").stdout and done.returncode == 0


@pytest.mark.slow
def test_a_worker_serves_one_client(engaged: list[RealWorker], spread: Pair) -> None:
    spread.reply(EGG, max_tokens=10)
    complains(wsd("fit", "--rpc", str(engaged[0])), 1, "one at a time")


def test_a_port_that_is_taken(two: list[RealWorker]) -> None:
    complains(wsd("rpc-worker", "--port", str(two[0].port)), 2, "in use", "--port")
