"""The state machine of a reply, by its rule.

Contract: what a rule cannot work with is refused here, before any work, with what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from wsd_local.core.alignment import TokenisedPrompt, Vocabulary
from wsd_local.core.decoding import Decoding
from wsd_local.core.draft import DraftOptions
from wsd_local.core.limits import Limits
from wsd_local.core.mixing import Mixing
from wsd_local.core.nudge import Nudge
from wsd_local.core.relay import Relay, Returning
from wsd_local.core.rules_nudging import Nudging
from wsd_local.core.rules_return import Return
from wsd_local.core.rules_veto import Veto
from wsd_local.core.sampling import Sampling
from wsd_local.core.words import Words
from wsd_local.errors import UsageError
from wsd_local.events import Source
from wsd_local.fields import spelled
from wsd_local.llama import Model
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.redrafting import plain_tokens
from wsd_local.settings import ReplySettings


@dataclass(frozen=True, slots=True)
class Parts:
    """What a reply's machine is made of, see `Decoding`; `model` is the one that continues, `writer` its role."""

    model: Model
    vocabulary: Vocabulary
    prompt: TokenisedPrompt
    limits: Limits
    options: DraftOptions
    top: int
    writer: Source
    drafts: bool
    draft_prompt: Sequence[int]
    sampling: Sampling


def make_machine(models: LoadedModels, settings: ReplySettings, parts: Parts) -> Decoding:
    """The machine for the rule of `settings`; one that is `Relay` has the draft continue the reply.

    Raises:
        UsageError: the rule does not go with another setting, or with the pair.
    """
    rule, form, top = settings.make_rule(), parts.options, parts.top
    vocabulary, prompt, limits = parts.vocabulary, parts.prompt, parts.limits
    plain = plain_tokens(parts.model)
    machine: Decoding
    if isinstance(rule, Veto):
        if models.share_tokens() and models.loading.resident == "both":
            _require_mixture(settings)
            draft, sampling = parts.draft_prompt, parts.sampling
            ends = parts.model.is_eog
            return Mixing(vocabulary, prompt, rule, limits, draft_prompt=draft, sampling=sampling, ends=ends, top=top)
        _require_words(settings)
        machine = Words(vocabulary, prompt, rule, limits, plain=plain, options=form, top=top)
    elif isinstance(rule, Nudging):
        is_end = parts.model.is_eog
        machine = Nudge(vocabulary, prompt, rule, limits, plain=plain, is_end=is_end, options=form, top=top)
    elif isinstance(rule, Return) and rule.bound > 0:
        machine = Returning(vocabulary, prompt, rule, limits, plain=plain, options=form, top=top)
    else:
        writer, drafts = parts.writer, parts.drafts
        machine = Decoding(vocabulary, prompt, rule, limits, writer=writer, drafting=drafts, options=form, top=top)
    if isinstance(machine, Relay) and models.loading.resident == "one":
        raise UsageError(
            f"rule {settings.rule} needs both models in memory, and --resident one keeps one of them: choose the rule "
            "window or entropy, or leave --resident one out",
            about="rule",
        )
    return machine


def _require_words(settings: ReplySettings) -> None:
    """Raise `UsageError` for what does not go with words that the base accepts or replaces."""
    for name in ("temperature", "draft_temperature"):
        if getattr(settings, name) > 0:
            raise UsageError(
                f"{spelled(name)} is given, and under the rule {settings.rule} nothing is drawn where draft and base "
                "have different vocabularies: leave it out, or choose two models of one vocabulary",
                about=name,
            )


def _require_mixture(settings: ReplySettings) -> None:
    """Raise `UsageError` for what does not go with tokens from the mixture of two models."""
    rule, constraint = settings.rule, settings.constraint
    if constraint is not None:
        raise UsageError(
            f"{constraint.name} and rule {rule} are given: where both models have one vocabulary, this rule's tokens "
            "follow no constraint; leave one of them out",
            about="rule",
        )
    usual = ReplySettings()
    changes = ("repeat_penalty", "frequency_penalty", "presence_penalty")
    ours = [f"draft_{field.name}" for field in fields(Sampling)]
    for name in (*changes, *ours):
        if getattr(settings, name) != getattr(usual, name):
            raise UsageError(
                f"{spelled(name)} is given, and the rule {rule} mixes models with one vocabulary as they are: "
                "leave it out; temperature, top-k, top-p and min-p hold for the mixture",
                about=name,
            )
