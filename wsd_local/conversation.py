"""Making a conversation fit.

Contract: pure. Older turns are left out whole, oldest first; the system message and the newest turn never are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsd_local.prompts import Message


def turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages without the system's, as turns: each begins with a user message that follows an answer."""
    groups: list[list[Message]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        begins = message["role"] == "user" and (not groups or groups[-1][-1]["role"] == "assistant")
        if begins or not groups:
            groups.append([])
        groups[-1].append(message)
    return groups


def trimmed(messages: Sequence[Message], fits: Callable[[list[Message]], bool]) -> tuple[list[Message], int]:
    """The conversation without its oldest turns, as few of them as makes it fit, and how many went.

    If even the newest turn alone does not fit, it is returned alone: the caller asks `fits` again.
    """
    system = [message for message in messages if message["role"] == "system"]
    groups = turns(messages)
    whole = list(messages)
    for dropped in range(len(groups)):
        if dropped:
            whole = system + [message for group in groups[dropped:] for message in group]
        if fits(whole):
            return whole, dropped
    return whole, max(0, len(groups) - 1)
