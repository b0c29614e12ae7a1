"""What the models read for one reply: rendered, tokenised and made to fit, once.

Contract: nothing is evaluated. A conversation that fits is rendered once for each model; one that does not, once for
each number of turns that is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from wsd_local.core.alignment import TokenisedPrompt
from wsd_local.errors import FitError, room_advice
from wsd_local.events import Source
from wsd_local.prompts.base_format import BaseFormat, urial_format
from wsd_local.prompts.messages import Message, trimmed
from wsd_local.prompts.templates import never
from wsd_local.runtime.loading import LoadedModels, roles_of
from wsd_local.settings import ReplySettings

RESERVE = 64
"""Tokens of the context that must be left for the reply, in addition to one window."""

ROOM_FOR_LATER = 0.5
"""Share of the context that is freed when a session must leave out turns."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The prompts of one reply.

    Args:
        messages: those that the models read.
        left_out: turns at the beginning of the conversation that do not fit into the context.
        prompts: the prompt of each model that the mode uses; the draft's has tokens alone.
        stops: strings that begin another section of the base's prompt, and so end the reply.
        template_date: the date that the draft's chat template inserted, if it did.
    """

    messages: tuple[Message, ...]
    left_out: int
    prompts: Mapping[Source, TokenisedPrompt]
    stops: tuple[str, ...]
    template_date: str | None

    def ids(self) -> dict[Source, list[int]]:
        """The tokens of each model's prompt."""
        return {role: list(prompt.tokens) for role, prompt in self.prompts.items()}

    def tokens(self, role: Source) -> Sequence[int]:
        """The tokens of a model's prompt; none if the mode does not use the model."""
        return self.prompts[role].tokens if role in self.prompts else ()


def prepare(
    models: LoadedModels,
    messages: Sequence[Message],
    settings: ReplySettings,
    *,
    left_out: int | None = None,
    cancelled: Callable[[], bool] = never,
) -> Prepared:
    """The prompts of a reply to a conversation; its oldest turns are left out if it does not fit.

    Args:
        models: loaded for the mode of `settings`.
        messages: the conversation.
        settings: those of the reply.
        left_out: turns that an earlier reply of the same session has left out; more of them are left out at once, so
            that the beginning of the prompt rarely changes. None: as few as possible.
        cancelled: whether to stop; called while a template is rendered.

    Raises:
        FitError: the newest message alone does not fit.
        ModelError: the draft's template refuses the conversation.
        CancelledError: `cancelled` returned True.
    """
    form = models.base_format if settings.urial is None else urial_format(settings.urial)
    tried: dict[int, Prepared] = {}
    sizes = {role: models.n_ctx(role) for role in roles_of(settings.mode)}
    reserve = settings.window + RESERVE

    def prepared(trial: Sequence[Message]) -> Prepared:
        if len(trial) not in tried:
            tried[len(trial)] = _read(models, trial, settings.mode, form, cancelled)
        return tried[len(trial)]

    def fits(trial: Sequence[Message], share: float = 0.0) -> bool:
        prompts = prepared(trial).prompts
        return all(len(prompts[role].tokens) + reserve + share * n_ctx <= n_ctx for role, n_ctx in sizes.items())

    roomy = None if left_out is None else lambda trial: fits(trial, ROOM_FOR_LATER)
    found, dropped = trimmed(messages, fits, roomy, left_out or 0)
    whole = prepared(found)
    for role, n_ctx in sizes.items():
        length = len(whole.prompts[role].tokens)
        if length + reserve > n_ctx:
            raise FitError(
                f"the prompt is too long: {length} {role} tokens, {length + reserve} with room for a reply, "
                f"and the context holds {n_ctx}; {room_advice(n_ctx, models.model(role).n_ctx_train)}"
            )
    return replace(whole, left_out=dropped)


def _read(
    models: LoadedModels,
    messages: Sequence[Message],
    mode: str,
    form: BaseFormat,
    cancelled: Callable[[], bool],
) -> Prepared:
    prompts: dict[Source, TokenisedPrompt] = {}
    date = None
    roles = roles_of(mode)
    if "draft" in roles:
        rendered = models.draft_format.prompt(messages, cancelled)
        prompts["draft"], date = TokenisedPrompt("", rendered.tokens), rendered.date
    if "base" in roles:
        text = form.prompt(messages)
        prompts["base"] = TokenisedPrompt(text, models.model("base").tokenize(text))
    return Prepared(tuple(messages), 0, prompts, form.stops, date)
