"""A worker that dies, hangs or is cut off, in each phase of the work: one clear error, and the next try connects again.

llama.cpp itself ends the process in all these cases, or waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import EGG, complains, started, wsd
from exactness import EXACT, PLAIN, exact_pair
from rpc_workers import BadNetwork, RealWorker, free_port, needs_rpc, stand_in, worker

from wsd_local.errors import WorkerError
from wsd_local.events import Text
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.run import Run
from wsd_local.settings import LoadSettings

pytestmark = needs_rpc

LONG: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True}
BRIEF = 20.0
"""Seconds that a worker that hangs is waited for: much longer than anything takes here."""

Harm = Callable[[RealWorker], None]
HARMS = [pytest.param(RealWorker.kill, id="killed"), pytest.param(RealWorker.freeze, id="frozen")]


def loading(one: object, timeout: float = BRIEF) -> LoadSettings:
    return replace(EXACT, rpc=str(one), n_gpu_layers=-1, rpc_timeout=timeout)


def far(files: tuple[Path, Path], one: object) -> Pair:
    return Pair(draft=files[0], base=files[1], reply=PLAIN, loading=loading(one))


@pytest.fixture(scope="module")
def whole(demo_f32: tuple[Path, Path]) -> Iterator[str]:
    """What the pair answers in this process."""
    with exact_pair(demo_f32) as pair:
        yield pair.reply(EGG, **LONG).text


def begun(pair: Pair, after: int, harm: Callable[[], None]) -> Run:
    """A reply during which a worker comes to harm, after so many characters."""
    run, shown, harmed = pair.start(EGG, **LONG), "", False
    with pytest.raises(WorkerError) as error:
        for event in run.events():
            if isinstance(event, Text):
                shown += event.text
            if len(shown) >= after and not harmed:
                harmed = True
                harm()
    assert "127.0.0.1" in str(error.value) and len(str(error.value).splitlines()) == 1
    assert run.reply.text == shown, "the partial reply stays"
    return run


@pytest.mark.parametrize("after", [1, pytest.param(120, marks=pytest.mark.slow)])
def test_killed_in_the_middle_of_a_reply(demo_f32: tuple[Path, Path], whole: str, after: int) -> None:
    port = free_port()
    with worker(port=port) as one, far(demo_f32, one) as pair:
        run = begun(pair, after, one.kill)
        assert whole.startswith(run.reply.text) and run.reply.text != whole
        with pytest.raises(WorkerError, match="is not there"):
            pair.reply(EGG, **LONG)
        with worker(port=port):
            for _ in run.events():
                pass
            assert run.reply.text == whole, "it goes on when the worker is back"
            assert pair.reply(EGG, **LONG).text == whole


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_frozen_or_killed_at_any_point(demo_f32: tuple[Path, Path], whole: str, harm: Harm) -> None:
    for after in (1, 30, 60, 300):
        with worker() as one, far(demo_f32, one) as pair:
            assert whole.startswith(begun(pair, after, lambda: harm(one)).reply.text)


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_between_two_replies(demo_f32: tuple[Path, Path], whole: str, harm: Harm) -> None:
    with worker() as one, far(demo_f32, one) as pair:
        assert pair.reply(EGG, **LONG).text == whole
        harm(one)
        with pytest.raises(WorkerError, match=r"127\.0\.0\.1"):
            pair.reply("Name a colour.", **LONG)


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("role", ["draft", "base"])
def test_while_loading(demo_f32: tuple[Path, Path], harm: Harm, role: str) -> None:
    with worker() as one, far(demo_f32, one) as pair:
        harmed = False

        def progress(now: str, _fraction: float) -> bool:
            nonlocal harmed
            if now == role and not harmed:
                harmed = True
                harm(one)
            return True

        with pytest.raises(WorkerError, match=r"127\.0\.0\.1"):
            pair.models.load("wsd", progress)
            pair.reply(EGG, **LONG)


@pytest.mark.slow
def test_a_network_that_is_cut(demo_f32: tuple[Path, Path], whole: str) -> None:
    """Nothing passes any more, and connections stay open: a cable that was pulled."""
    with worker() as one:
        network = BadNetwork(one.port)
        with stand_in(network) as through, far(demo_f32, through) as pair:
            assert whole.startswith(begun(pair, 30, network.stalls.set).reply.text)


@pytest.mark.slow
def test_one_of_two(demo_f32: tuple[Path, Path], whole: str) -> None:
    with worker() as one, worker() as other, far(demo_f32, f"{one},{other}") as pair:
        assert whole.startswith(begun(pair, 1, other.kill).reply.text)
        with pytest.raises(WorkerError) as error:
            pair.reply(EGG, **LONG)
        assert str(other) in str(error.value) and str(one) not in str(error.value), "it is named"


def test_the_command_line_keeps_what_was_written() -> None:
    with worker() as one:
        long = ["--max-tokens", "1500", "--ignore-eos", "--n-gpu-layers", "-1"]
        process = started("run", EGG, "--rpc", str(one), *long)
        assert process.stdout is not None and process.stderr is not None
        with process, process.stdout as out:
            first = out.read(20)
            one.kill()
            text, error = (first + out.read()).decode(), process.stderr.read().decode()
            assert process.wait() == 1
    assert len(text) > 20
    assert len(error.splitlines()) == 1 and f"the RPC worker {one}" in error and "rpc-worker" in error


def test_nothing_there_from_the_start() -> None:
    port = free_port()
    complains(wsd("run", EGG, "--rpc", f"127.0.0.1:{port}"), 1, f"127.0.0.1:{port} is not there")
