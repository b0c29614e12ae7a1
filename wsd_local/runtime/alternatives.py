"""What the base itself would have said at each place of a reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsd_local.prompts.messages import conversation

if TYPE_CHECKING:
    from wsd_local.runtime.pair import Pair


def favourites(
    pair: Pair, messages: Sequence[Mapping[str, Any]], reply_tokens: Sequence[int]
) -> list[tuple[str, float]]:
    """For each of a reply's base tokens: the text of the base's most probable token there, and its probability.

    Args:
        pair: its base reads the reply; the KV cache is used as by any run.
        messages: the conversation that was answered.
        reply_tokens: token numbers of the reply, as in its JSON object.
    """
    model, context = pair.model("base"), pair.context("base")
    prompt = model.tokenize(pair.base_format.prompt(conversation(messages)))
    with pair.turns.held():
        found = context.favourites(0, [*prompt, *reply_tokens], len(prompt))
    return [(model.spelling(token), prob) for token, prob in found]
