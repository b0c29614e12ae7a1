"""A server that starts again need not read what it had read, and one that failed keeps nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from exactness import EXACT, PLAIN

from wsd_local.errors import WsdError
from wsd_local.library.catalog import PairEntry
from wsd_local.llama import Context
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.runtime.prompt_cache import PromptCache
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.server.desk import Desk
from wsd_local.server.service import ReplyRequest

NOTES = " ".join(f"Note {number}: the capital of France is Paris, and eggs boil in a pot." for number in range(16))


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a state is kept does not depend on how busy this machine is."""
    monkeypatch.setattr(PromptCache, "reads", lambda self: self.files.make_folder() or 1e12)


async def answered(desk: Desk, question: str) -> Reply:
    """The reply to a question about the notes."""
    request = ReplyRequest("one", f"{NOTES}\n\n{question}", {"max_tokens": 20})
    async with desk.replies(request) as events:
        async for _, event in events:
            if isinstance(event, Finished):
                return event.reply
    raise AssertionError("no reply")


def served(files: tuple[Path, Path], cache: str, question: str) -> Reply:
    """The reply of a server that starts for it, and ends."""
    loading = replace(EXACT, ctx=2048, parallel=2, prompt_cache=cache)
    desk = Desk([PairEntry("one", str(files[0]), str(files[1]), BaseFormat())], reply=PLAIN, loading=loading)
    desk.start()
    try:
        return asyncio.run(answered(desk, question))
    finally:
        desk.close()


def test_a_server_that_starts_again_begins_with_what_it_had_read(demo_f32: tuple[Path, Path], tmp_path: Path) -> None:
    cache = str(tmp_path / "kept")
    first = served(demo_f32, cache, "How do I boil an egg?")
    second = served(demo_f32, cache, "What is the capital of France?")
    plain = served(demo_f32, "off", "What is the capital of France?")
    assert first.cached == plain.cached == {"draft": 0, "base": 0}
    assert second.text == plain.text and min(second.cached.values()) > 300


def test_what_a_failed_engine_holds_is_not_kept(
    demo_f32: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = Context.step, iter(range(1000))

    def failing(self: Context, questions: object) -> None:
        step(self, questions)  # type: ignore[arg-type]
        if next(steps) == 8:
            raise RuntimeError("a fault")

    monkeypatch.setattr(Context, "step", failing)
    with pytest.raises(WsdError):
        served(demo_f32, str(tmp_path / "kept"), "How do I boil an egg?")
    assert not list(tmp_path.glob("kept/*.state"))
