"""Making a conversation fit.

Contract: pure. Older turns are left out whole, oldest first; the system message and the newest turn never are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsd_local.prompts.formats import Message


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


def trimmed(
    messages: Sequence[Message],
    fits: Callable[[list[Message]], bool],
    roomy: Callable[[list[Message]], bool] | None = None,
    left_out: int = 0,
) -> tuple[list[Message], int]:
    """The conversation without its oldest turns, as few of them as makes it fit, and how many went.

    `left_out` turns are gone already. If more must go and `roomy` is given, so many go that later turns have room:
    each time that the beginning of a prompt changes, all of it is evaluated again. If even the newest turn alone does
    not fit, it is returned alone: the caller asks `fits` again.
    """
    system = [message for message in messages if message["role"] == "system"]
    groups = turns(messages)
    last = max(0, len(groups) - 1)

    def without(dropped: int) -> list[Message]:
        return system + [message for group in groups[dropped:] for message in group] if dropped else list(messages)

    left_out = min(left_out, last)
    if fits(without(left_out)):
        return without(left_out), left_out
    for enough in (roomy, fits):
        for dropped in range(left_out + 1, last + 1):
            if enough is not None and enough(without(dropped)):
                return without(dropped), dropped
    return without(last), last
