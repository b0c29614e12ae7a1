"""Holding the engine against the three-pass oracle, with the ties that section 3 of the algorithm allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oracle import Oracle, OracleReply

from wsd_local.core.contexts import Question
from wsd_local.llama import Context, Sampler
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.settings import LoadSettings, ReplySettings

TIE = 1e-4
"""Largest distance from a tie, at the first difference, at which a difference is none of the engine's."""

EXACT = LoadSettings(ctx=4096, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
PLAIN = ReplySettings(speculation="off", loop_guard="off")
"""What is evaluated depends on nothing that was timed."""

Conversation = Sequence[Mapping[str, str]]


def exact_pair(paths: tuple[Path, Path]) -> Pair:
    """The engine under the conditions in which equality is asked for."""
    return Pair(draft=paths[0], base=paths[1], reply=PLAIN, loading=EXACT)


def exact_oracle(paths: tuple[Path, Path]) -> Oracle:
    """The oracle under the same conditions."""
    assert EXACT.ctx is not None
    return Oracle(paths[0], paths[1], n_ctx=EXACT.ctx, threads=1)


def difference(ours: Reply, theirs: OracleReply) -> str | None:
    """The first thing that differs, in words."""
    pairs = [
        ("reason", ours.switch.reason, theirs.reason),
        ("index", ours.switch.index, theirs.index),
        ("kept", ours.draft.tokens, theirs.kept_tokens),
        ("tokens", tuple(token.id for token in ours.tokens), theirs.tokens),
        ("text", ours.text, theirs.text),
        ("finish", ours.finish_reason, theirs.finish_reason),
    ]
    return next((f"{name}: {a!r} instead of {b!r}" for name, a, b in pairs if a != b), None)


def nearest_tie(ours: Reply, theirs: OracleReply, window: int, threshold: float) -> float:
    """How near a tie the first decision was in which the two replies part: draft, switch or continuation."""
    written = ours.draft.text + ours.discarded
    if not theirs.draft_text.startswith(written) and not written.startswith(theirs.draft_text):
        return min(theirs.draft_gaps, default=math.inf)
    if ours.switch.index != theirs.index:
        first = min(index for index in (ours.switch.index, theirs.index) if index is not None)
        return abs(theirs.windows[first - (window - 1)] - threshold)
    mine = [token.id for token in ours.tokens]
    same = next((i for i, (a, b) in enumerate(zip(mine, theirs.tokens, strict=False)) if a != b), None)
    step = (min(len(mine), len(theirs.tokens)) if same is None else same) - theirs.kept_tokens
    return theirs.continuation_gaps[step] if 0 <= step < len(theirs.continuation_gaps) else math.inf


@dataclass
class Tally:
    """Counts of comparisons; everything that differs is reported with its distance from a tie."""

    equal: int = 0
    ties: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    def compare(self, pair: Pair, oracle: Oracle, messages: Conversation, **settings: Any) -> None:
        """Ask both and count."""
        self.judge(pair.reply(list(messages), **settings), oracle, messages, **settings)

    def judge(self, ours: Reply, oracle: Oracle, messages: Conversation, **settings: Any) -> None:
        """Ask the oracle what has been asked already, and count."""
        asked = {name: value for name, value in settings.items() if name != "check_chunk"}
        theirs = oracle.reply(messages, **asked)
        found = difference(ours, theirs)
        if found is None:
            self.equal += 1
            return
        usual = ReplySettings()
        gap = nearest_tie(
            ours, theirs, settings.get("window", usual.window), settings.get("threshold", usual.threshold)
        )
        line = f"{found[:300]} ({gap:.2e} from a tie; {settings}; {messages[-1]['content'][:80]!r})"
        (self.ties if gap < TIE else self.different).append(line)

    def __str__(self) -> str:
        return f"{self.equal} equal, {len(self.ties)} at a tie, {len(self.different)} different"


def sampled(context: Context, tokens: Sequence[int], sampler: Sampler) -> int:
    """The token that follows, chosen by `sampler`."""
    found: list[int] = []
    context.ask(Question(0, tokens, len(tokens) - 1, lambda _, row: found.append(context.sample(row, sampler))))
    return found[0]
