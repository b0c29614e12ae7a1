"""The tokens that the base alone would have chosen at each place of a reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsd_local.prompts.messages import conversation
from wsd_local.runtime.loading import LoadedModels


def favourites(
    models: LoadedModels, messages: Sequence[Mapping[str, Any]], reply_tokens: Sequence[int]
) -> list[tuple[str, float]]:
    """For each of a reply's base tokens: the text of the base's most probable token there, and its probability.

    Args:
        models: their base reads the reply, in its KV cache as any run does.
        messages: the conversation that was answered.
        reply_tokens: ids of the reply's tokens, as in its JSON object.
    """
    model, context = models.model("base"), models.context("base")
    prompt = model.tokenize(models.base_format.prompt(conversation(messages)))
    with models.queue.held():
        found = context.favourites(0, [*prompt, *reply_tokens], len(prompt))
    return [(model.spelling(token), prob) for token, prob in found]
