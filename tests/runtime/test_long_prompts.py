"""A long prompt among replies that are written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exactness import EXACT, PLAIN

from wsd_local.llama import Context
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished

LONG = "word after word " * 25


def test_who_writes_waits_for_a_piece_and_not_for_a_prompt(
    kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[bool, int]] = []
    decode = Context._decode

    def recorded(self: Context, parts: Any) -> None:
        lengths = [part.end - part.start for part in parts]
        sizes.append((min(lengths) == 1, sum(lengths)))
        decode(self, parts)

    monkeypatch.setattr(Context, "_decode", recorded)
    with Pair(draft=kin[0], base=kin[1], reply=PLAIN, loading=replace(EXACT, ctx=1024, parallel=2)) as pair:
        alone = pair.reply(LONG, mode="base", max_tokens=5).text
        assert max(size for _, size in sizes) > 100  # alone it is read at once
        pair.models.context("base").forget(0)
        pair.models.context("base").piece = 32
        fleet: Fleet[str] = Fleet(pair)
        fleet.add("writes", "Hello", mode="base", max_tokens=60, ignore_eos=True)
        found = {}
        for count, (key, event) in enumerate(fleet.events()):
            if count == 2:
                sizes.clear()
                fleet.add("reads", LONG, mode="base", max_tokens=5)
            if isinstance(event, Finished):
                found[key] = event.reply.text
    assert found["reads"] == alone
    assert max(size for _, size in sizes) <= 34
    assert all(writes for writes, _ in sizes[:5])
