"""What a pair gains by prompts that were read before, and by several replies at once.

Contract: nothing is printed and nothing stays: prompts are kept in a temporary folder, and contexts for several replies
are freed. Where there is no room for a measurement, it gives no figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wsd_local.errors import CancelledError, FitError
from wsd_local.prompts.messages import Message
from wsd_local.reports.bench import OVERRIDES, QUESTIONS, Bench, prompt_of
from wsd_local.reports.figures import Comparison, Figures
from wsd_local.runtime.loading import LoadedModels, forget
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.prompt_cache import PromptCache
from wsd_local.runtime.prompt_files import PromptFiles

AT_ONCE, AT_ONCE_TOKENS = 4, 32
"""Replies at once, and base tokens of each of them, at most."""
TEXT_TOKENS = 400
"""Base tokens of a text about which two questions are asked: enough to be kept."""
ROOM = 2 * TEXT_TOKENS
"""Tokens that both contexts must hold for that; the draft may need more for the same text."""
_MOST_BYTES = 2 << 30

MORE = (
    Comparison("first text, second question on a text", "second_first_s", "s", "first question", "first_first_s", 0.1),
    Comparison(f"{AT_ONCE} replies at once", "many_rate", "tokens/s", "one by one", "one_by_one_rate"),
    Comparison(f"base alone, {AT_ONCE} at once", "many_base_rate", "tokens/s", "one by one", "one_by_one_base_rate"),
)


def second_question(bench: Bench) -> Figures:
    """Time to the first text of a second question about a text, whose reading was kept as for another process."""
    pair = bench.pair
    text = prompt_of(pair, TEXT_TOKENS)[0]["content"]
    contexts = [pair.models.context(role) for role in pair.models.loaded]
    asked = [[_asked(text, question)] for question in QUESTIONS[-2:]]
    if min(context.n_ctx for context in contexts) < ROOM or pair.models.loading.rpc is not None:
        return {}
    with TemporaryDirectory() as folder:
        cache = PromptCache(PromptFiles(Path(folder), _MOST_BYTES))
        for context in contexts:
            cache.attach(context, [{"file": str(context.model.path)}])
        try:
            first = _first_text(bench, asked[0])
            cache.keep(contexts)
            second = _first_text(bench, asked[1])
        finally:
            for context in contexts:
                context.kept = None
    return {"first_first_s": first, "second_first_s": second} if first and second else {}


def _asked(text: str, question: str) -> Message:
    return {"role": "user", "content": f"{text}\n\n{question}"}


def _first_text(bench: Bench, messages: Sequence[Message]) -> float | None:
    forget(bench.pair.models)
    reply = bench.pair.reply(list(messages), **OVERRIDES | {"max_tokens": min(bench.tokens, 16)})
    return reply.timings.first_text_s


def many_at_once(bench: Bench) -> Figures:
    """Tokens per second of several replies at once and of the same ones by one, of the pair and of the base alone."""
    pair, tokens = bench.pair, min(bench.tokens, AT_ONCE_TOKENS)
    ctx = min(512, *(pair.models.n_ctx(role) for role in pair.models.loaded))
    loading = replace(pair.models.loading, parallel=AT_ONCE, ctx=ctx)
    weights = {role: pair.models.model(role) for role in pair.models.loaded}
    models = LoadedModels(weights["draft"].path, weights["base"].path, loading, base_format=pair.models.base_format)
    models.lent = weights
    figures: Figures = {}
    with suppress(FitError), Pair.over(models, reply=pair.settings) as several:
        models.load()
        for name, mode in (("", "wsd"), ("base_", "base")):
            settings = OVERRIDES | {"max_tokens": tokens, "mode": mode}
            figures |= {
                f"many_{name}rate": _rate(bench, several, settings),
                f"one_by_one_{name}rate": _rate(bench, pair, settings),
            }
    return figures


def _rate(bench: Bench, pair: Pair, settings: Mapping[str, Any]) -> float:
    """Tokens of replies to different questions in a second, from empty caches."""
    models = pair.models
    for role in models.loaded:
        for seq in range(models.loading.parallel):
            models.context(role).forget(seq)
    begun = bench.clock()
    if models.loading.parallel > 1:
        replies = [reply for _, reply in pair.replies(QUESTIONS[:AT_ONCE], **settings)]
    else:
        replies = []
        for question in QUESTIONS[:AT_ONCE]:
            forget(models)
            replies.append(pair.reply(question, **settings))
    if any(reply.finish_reason == "cancelled" for reply in replies):
        raise CancelledError("stopped")
    return sum(len(reply.tokens) for reply in replies) / (bench.clock() - begun)
