"""Recording a pair: for each prompt one whole draft, read by the base, and the base's own ways to go on.

Contract: every evaluation is the ordinary engine's, in the order and in the chunks of a reply whose threshold is never
reached, so what is recorded is what a reply's decision would see. It begins with empty caches, so that nothing depends
on the prompts before. Everything is greedy and nothing is proposed. A prompt's record is complete or there is none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, takewhile
from typing import Any

from wsd_local.calibration.deriving import Setting, missing_starts
from wsd_local.calibration.records import Continuation, Record, Spent
from wsd_local.constraints.constraint import KINDS
from wsd_local.core.decoding import Phase
from wsd_local.core.draft import DraftOptions, DraftText
from wsd_local.core.limits import Limits
from wsd_local.core.requests import NextBaseToken
from wsd_local.core.speculation import Evaluation
from wsd_local.core.text import settled_length
from wsd_local.errors import CancelledError
from wsd_local.events import Checked, Switched
from wsd_local.prompts.messages import Message, supplied_prefix
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.loading import forget
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.prepare import RESERVE
from wsd_local.runtime.proposals import JobSequences
from wsd_local.runtime.run import Run

NEVER = 2.0
"""A threshold that no window reaches."""

OVERRIDES: Mapping[str, Any] = {
    "rule": "window",
    "threshold": NEVER,
    "window": 6,
    "mode": "wsd",
    "on_draft_end": "continue",
    "temperature": 0.0,
    "draft_temperature": 0.0,
    "speculation": "off",
    "probabilities": True,
    **dict.fromkeys(("urial", *KINDS)),
}
"""Settings while a pair is recorded."""

CONTINUATION = 24
"""Tokens that the base writes from each switch point, by default."""


@dataclass(slots=True)
class Meter:
    """Takes the place of proposals: makes none, and measures what evaluations cost and whether the base agrees."""

    drafted: Spent = (0, 0.0)
    checked: Spent = (0, 0.0)
    written: Spent = (0, 0.0)
    agreed: list[bool] = field(default_factory=list)
    checking: bool = False
    writing: bool = False

    def propose(self, tokens: Sequence[int], most: int, sequences: JobSequences) -> Sequence[int]:
        """Nothing."""
        return ()

    def abandon(self) -> None:
        """There is nothing to abandon."""

    def observe(self, seen: Evaluation) -> None:
        """Add an evaluation to what it was for; those that carry a prompt are left out."""
        self.agreed += [bool(one) for one in seen.agreed]
        if seen.role == "draft" and seen.tokens == 1:
            self.drafted = _plus(self.drafted, seen)
        elif seen.role == "base" and self.writing and seen.tokens == 1:
            self.written = _plus(self.written, seen)
        elif seen.role == "base" and self.checking and seen.tokens:
            self.checked = _plus(self.checked, seen)


def _plus(spent: Spent, seen: Evaluation) -> Spent:
    return spent[0] + seen.tokens, spent[1] + seen.seconds


def record(
    pair: Pair,
    name: str,
    messages: Sequence[Message],
    settings: Iterable[Setting],
    *,
    continuation: int = CONTINUATION,
    stopped: Callable[[], bool] = lambda: False,
) -> Record:
    """Record one prompt.

    Args:
        pair: its settings hold as far as `OVERRIDES` leave them.
        name: the prompt's name.
        messages: the conversation.
        settings: from each switch point of theirs the base writes a continuation.
        continuation: its tokens, at most.
        stopped: whether to stop.

    Raises:
        CancelledError: `stopped` returned True, or the pair was cancelled.
        FitError: the conversation does not fit into a context.
        WsdError: a model cannot be evaluated, or the draft's template refuses the conversation.
    """
    meter, agrees = Meter(), dict[int, bool]()
    forget(pair.models)
    run = pair.start(list(messages), whole=True, **OVERRIDES)
    run.job.proposals = meter
    with contextlib.closing(run.events()) as events:
        for event in events:
            if stopped():
                raise CancelledError("interrupted")
            if isinstance(event, Checked):
                agrees |= {event.start + place: one for place, one in enumerate(meter.agreed)}
                meter.agreed, meter.checking = [], True
            if isinstance(event, Switched):
                break
    machine = run.machine
    if machine.phase is Phase.DRAFT:
        raise CancelledError("interrupted")
    read = [machine.token(place) for place in range(machine.kept_tokens)]
    kept = list(takewhile(lambda one: one.score is not None, read))  # a stop string may end it unread
    made = Record(
        id=name,
        text=machine.draft_text,
        ended=machine.switch_reason,
        tokens=tuple(one.id for one in kept),
        logprobs=tuple(one.score.logprob for one in kept if one.score is not None),
        agrees=tuple(agrees[place] for place in range(len(kept))),
        settled=_settled(pair, run),
        continuations=(),
        drafted=meter.drafted,
        checked=meter.checked,
        prompt=_prompt(run),
    )
    return completed(pair, made, settings, continuation=continuation, stopped=stopped)


def completed(
    pair: Pair,
    made: Record,
    settings: Iterable[Setting],
    *,
    continuation: int = CONTINUATION,
    stopped: Callable[[], bool] = lambda: False,
) -> Record:
    """A record with a continuation from each switch point of the settings; those that it has are not made again.

    Args:
        pair: the one that was recorded, with the same settings.
        made: the record.
        settings: those whose switch points count.
        continuation: tokens of a continuation, at most.
        stopped: whether to stop.

    Raises:
        CancelledError, WsdError: as `record`.
    """
    starts = missing_starts(made, settings)
    if not starts:
        return made
    meter = Meter(written=made.written, writing=True)
    found = _continuations(pair, made, starts, continuation, meter, stopped)
    continuations = sorted([*made.continuations, *found], key=lambda one: one.start)
    return replace(made, continuations=tuple(continuations), written=meter.written)


def _prompt(run: Run) -> tuple[int, ...]:
    """The base's prompt, whose last tokens may be others with the draft's text after them."""
    request = run.machine.request()
    whole = request.tokens if isinstance(request, NextBaseToken) else run.prepared.tokens("base")
    return tuple(whole[: run.machine.prompt_length])


def _continuations(
    pair: Pair, made: Record, starts: Sequence[int], length: int, meter: Meter, stopped: Callable[[], bool]
) -> list[Continuation]:
    """What the base writes after the first tokens of the draft; from the last start back, over one kept prefix."""
    found = list[Continuation]()
    room = pair.models.n_ctx("base") - len(made.prompt) - RESERVE - OVERRIDES["window"]
    stops = (*pair.models.base_format.stops, *pair.settings.stop)
    for start in reversed(starts):
        if start > room:
            found.append(Continuation(start, (), (), ended=False))
            continue
        going = pair.start(
            RawPrompt(tokens=[*made.prompt, *made.tokens[:start]]),
            **{**OVERRIDES, "mode": "base", "max_tokens": length, "stop": stops, "loop_guard": "off"},
        )
        going.job.proposals = meter
        for _ in going.events():
            if stopped():
                raise CancelledError("interrupted")
        machine = going.machine
        if machine.phase is not Phase.DONE:
            raise CancelledError("interrupted")
        written = [machine.token(place) for place in range(machine.reply_length)]
        scores = tuple(one.score.logprob for one in written if one.score is not None)
        found.append(Continuation(start, tuple(one.id for one in written), scores, machine.finish_reason == "stop"))
    return found


def _settled(pair: Pair, run: Run) -> tuple[int, ...]:
    """After each draft token, the number of base tokens whose text is settled: then they can be checked."""
    draft, settings = pair.models.model("draft"), pair.settings
    limits: Limits = run.machine.limits
    options = DraftOptions(verbatim=supplied_prefix(run.messages) is not None)
    text = DraftText(_NoVocabulary(), run.prepared.prompts["base"], limits, options)
    spelled = run.job.spelled
    ends = list(accumulate(len(run.machine.token(place).data) for place in range(run.machine.kept_tokens)))
    found, settled = list[int](), 0
    for token in run.job.draft_ids[: settings.draft_max_tokens]:
        text.write(draft.piece(token), spelled.get(token, b""))
        growing = text.text
        border = len(growing[: settled_length(growing)].encode())
        while settled < len(ends) and ends[settled] <= border:
            settled += 1
        found.append(settled)
    return tuple(found)


class _NoVocabulary:
    """Nothing is tokenised."""

    def tokenize(self, text: str) -> list[int]:
        """No tokens."""
        return []

    def piece(self, token: int) -> bytes:
        """No bytes."""
        return b""
