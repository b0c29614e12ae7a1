"""The object `wsd` of answers: which model wrote a text, how sure the base was of it, and where it took over.

Contract: the same in all protocols. Clients that do not know it lose nothing. A `ReplyFields` belongs to one reply and
receives its events in order.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from wsd_local.events import Checked, Event, Notice, Switched, Text, Wrote
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.settings import ReplySettings


class ReplyFields:
    """The objects `wsd` of one reply, event by event.

    Args:
        settings: those of the reply.
        events: whether the client asks for every event.
    """

    def __init__(self, settings: ReplySettings, *, events: bool = False) -> None:
        rule = settings.make_rule()
        self._rule = {"window": settings.window, "threshold": rule.threshold, "rule": settings.rule}
        self._events = events
        self._window: float | None = None
        self._checked = False
        self._switch: dict[str, Any] | None = None
        self._notices: list[str] = []

    def of_text(self, event: Text) -> dict[str, Any]:
        """The object that accompanies a text."""
        fields: dict[str, Any] = {"source": event.source, "prob": event.prob}
        if event.source == "draft" and self._checked:
            fields["confidence"] = self._window
        if self._switch is not None:
            fields["switch"], self._switch = self._switch, None
        return fields

    def of_other(self, event: Event) -> dict[str, Any] | None:
        """The object of an event without text, to be sent alone; None if the client does not ask for it."""
        match event:
            case Checked():
                known = [value for value in event.windows if value is not None]
                self._window, self._checked = known[-1] if known else self._window, True
            case Switched():
                self._switch = asdict(event) | self._rule
                return None
            case Notice():
                self._notices.append(event.message)
                return {"notice": event.message} if self._events else None
            case Text() | Wrote() | Finished():
                return None
        if not self._events:
            return None
        values = event.as_dict()
        return {values.pop("event"): values}

    def of_end(self, reply: Reply, *, whole: bool = False) -> dict[str, Any]:
        """The object at the end of a reply; with the draft's text if the answer is sent as a whole."""
        fields = reply_fields(reply)
        if whole:
            fields["draft"]["text"] = reply.draft.text
        if self._notices:
            fields["notices"] = self._notices
        return fields


def reply_fields(reply: Reply) -> dict[str, Any]:
    """What is known of a whole reply: who wrote how much, the switch, times, and in what shape it was evaluated."""
    fields: dict[str, Any] = {
        "switch": {**asdict(reply.switch), "kept_tokens": reply.draft.tokens},
        "turns": [turn.as_dict() for turn in reply.turns],
        "draft": {
            "model": reply.draft.model,
            "kept_tokens": reply.draft.tokens,
            "drafted_tokens": reply.draft.drafted_tokens,
        },
        "base": {"model": reply.base.model, "tokens": reply.base.tokens},
        "timings": asdict(reply.timings),
        "shape": reply.provenance.get("shape"),
    }
    if reply.constraint is not None:
        fields["constraint"] = asdict(reply.constraint)
    if reply.finish_reason == "cancelled":
        fields["cancelled"] = True
    return fields
