"""Models in each other's place: a base model as the draft, an instruct model as the base.

Contract: pure; looks at chat templates and names alone. Many base models carry a chat template, so a base is only taken
for an instruct model by its name. What it finds is worth a notice, never an error.
"""

from __future__ import annotations

import re
from typing import Protocol

from wsd_local.library.naming import Named, name_of

SWAPPED = "the two seem to be swapped; exchange --draft and --base"
CHOOSE_DRAFT = "choose an instruct model with --draft"
CHOOSE_BASE = (
    "the method is made for a plain pretrained one; choose such a model with --base, or let this one answer alone: "
    "--draft with --mode draft"
)
"""What to do about each."""

_TUNED = re.compile(r"(?<![a-z])(it|instruct|chat|sft|dpo|rlhf|assistant)(?![a-z])", re.IGNORECASE)


class Placed(Named, Protocol):
    """A loaded model, as far as its place can be judged."""

    @property
    def chat_template(self) -> str | None:
        """The template in its header."""


def is_tuned(model: Named) -> bool:
    """Whether a model is an instruct model by its name."""
    return _TUNED.search(name_of(model)) is not None


def misplaced(draft: Placed, base: Placed) -> tuple[str, ...]:
    """Notices about models that do not suit their roles: the reason, and what to do."""
    opener, writer = name_of(draft), name_of(base)
    untuned, tuned = draft.chat_template is None, is_tuned(base)
    if untuned and tuned:
        return (
            f"{opener} is the draft and has no chat template, {writer} is the base and an instruct model by its name: "
            f"{SWAPPED}",
        )
    notices = []
    if untuned:
        notices.append(
            f"{opener} has no chat template, so it is probably a base model, and it writes the openings here: "
            f"{CHOOSE_DRAFT}"
        )
    if tuned:
        notices.append(f"{writer} is an instruct model by its name, and it is the base here: {CHOOSE_BASE}")
    return tuple(notices)
