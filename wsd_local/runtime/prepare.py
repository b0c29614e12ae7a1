"""What the models read for one reply: rendered, tokenised and made to fit, once.

Contract: nothing is evaluated. A conversation that fits is rendered once for each model; one that does not, once for
each number of turns that is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from wsd_local.core.alignment import TokenisedPrompt
from wsd_local.errors import FitError, UsageError, room_advice
from wsd_local.events import Source
from wsd_local.prompts.base_format import urial_format
from wsd_local.prompts.messages import Message, trimmed
from wsd_local.prompts.raw import RawPrompt
from wsd_local.prompts.templates import never
from wsd_local.runtime.loading import LoadedModels, roles_of
from wsd_local.runtime.places import require_served
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
    messages: Sequence[Message] | RawPrompt,
    settings: ReplySettings,
    *,
    left_out: int | None = None,
    whole: bool = False,
    cancelled: Callable[[], bool] = never,
) -> Prepared:
    """The prompts of a reply to a conversation; its oldest turns are left out if it does not fit.

    Args:
        models: loaded for the mode of `settings`.
        messages: the conversation, or what is to be continued as it is.
        settings: those of the reply.
        left_out: turns that an earlier reply of the same session has left out; more of them are left out at once, so
            that the beginning of the prompt rarely changes. None: as few as possible.
        whole: whether it is an error that turns would have to be left out.
        cancelled: whether to stop; called while a template is rendered.

    Raises:
        FitError: the newest message alone does not fit, or not all of them and `whole` is true.
        ModelError: the draft's template refuses the conversation.
        CancelledError: `cancelled` returned True.
        UsageError: a setting needs more of the base than its server gives.
    """
    require_served(models, settings)
    sizes = {role: models.n_ctx(role) for role in roles_of(settings.mode)}
    reserve = settings.window + RESERVE
    if isinstance(messages, RawPrompt):
        found = _as_it_is(models, messages, settings.mode)
        _require_room(models, found, sizes, reserve)
        return found
    tried: dict[int, Prepared] = {}

    def prepared(trial: Sequence[Message]) -> Prepared:
        if len(trial) not in tried:
            tried[len(trial)] = prompts_of(models, trial, settings, cancelled)
        return tried[len(trial)]

    def fits(trial: Sequence[Message], share: float = 0.0) -> bool:
        prompts = prepared(trial).prompts
        return all(len(prompts[role].tokens) + reserve + share * n_ctx <= n_ctx for role, n_ctx in sizes.items())

    if whole:
        _require_room(models, prepared(messages), sizes, reserve)
    roomy = None if left_out is None else lambda trial: fits(trial, ROOM_FOR_LATER)
    shorter, dropped = trimmed(messages, fits, roomy, left_out or 0)
    _require_room(models, prepared(shorter), sizes, reserve)
    return replace(prepared(shorter), left_out=dropped)


def _require_room(models: LoadedModels, found: Prepared, sizes: Mapping[Source, int], reserve: int) -> None:
    for role, n_ctx in sizes.items():
        length = len(found.prompts[role].tokens)
        if length + reserve > n_ctx:
            raise FitError(
                f"the prompt is too long: {length} {role} tokens, {length + reserve} with room for a reply, "
                f"and the context holds {n_ctx}; {room_advice(n_ctx, models.model(role).n_ctx_train)}"
            )


def _as_it_is(models: LoadedModels, prompt: RawPrompt, mode: str) -> Prepared:
    """The prompts of both models where neither a template nor a base format is wanted."""
    roles = roles_of(mode)
    writer = models.model(roles[-1])
    text, tokens = prompt.text, prompt.tokens
    if text is None:
        assert tokens is not None
        if not all(0 <= token < writer.n_vocab for token in tokens):
            most = writer.n_vocab - 1
            raise UsageError(f"the prompt has a token that the model does not have: it has 0 to {most}", about="prompt")
        text = b"".join(map(writer.piece, tokens)).decode(errors="replace")
    else:
        tokens = writer.tokenize(text)
    if not tokens:
        raise UsageError("the prompt is empty: this model has no first token of its own to begin with", about="prompt")
    prompts: dict[Source, TokenisedPrompt] = {}
    if len(roles) == 2:
        draft = models.model("draft")
        prompts["draft"] = TokenisedPrompt("", draft.tokenize(text))
    prompts[roles[-1]] = TokenisedPrompt(text if prompt.tokens is None else "", tokens)
    return Prepared((), 0, prompts, (), None)


def prompts_of(
    models: LoadedModels,
    messages: Sequence[Message],
    settings: ReplySettings,
    cancelled: Callable[[], bool] = never,
) -> Prepared:
    """The prompts of a whole conversation, whether they fit or not.

    Raises:
        ModelError, CancelledError: as `prepare`.
    """
    form = models.base_format if settings.urial is None else urial_format(settings.urial)
    prompts: dict[Source, TokenisedPrompt] = {}
    date = None
    roles = roles_of(settings.mode)
    if "draft" in roles:
        rendered = models.draft_format.prompt(messages, cancelled)
        prompts["draft"], date = TokenisedPrompt("", rendered.tokens), rendered.date
    if "base" in roles:
        text = form.prompt(messages)
        prompts["base"] = TokenisedPrompt(text, models.model("base").tokenize(text))
    return Prepared(tuple(messages), 0, prompts, form.stops, date)
