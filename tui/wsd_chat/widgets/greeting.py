"""The text of an empty chat."""

from __future__ import annotations

from wsd_chat.model_jobs import Loaded, Wanted
from wsd_local.library.catalog import DEFAULT_PAIR
from wsd_local.system.visible import visible

_EMBEDDED = (
    "This is the embedded pair, for trying the machinery: ask it for the capital of France, or how to boil an egg.\n"
    "For real use, F8 shows pairs that fit this machine, and fetches one."
)


def greeting(loaded: Loaded, wanted: Wanted) -> str:
    """The text for a pair that is loaded; of the embedded one it says what that is good for."""
    draft, base = (visible(name, keep_newlines=False) for name in (loaded.draft, loaded.base))
    if draft and base:
        opens = f"Ask something. {draft} opens the reply (italic); {base} takes over at the mark."
    else:
        opens = f"Ask something. {draft or base} writes the replies alone."
    embedded = wanted.pair in (None, DEFAULT_PAIR) and wanted.draft is None and wanted.base is None
    return f"{opens}\n\n{_EMBEDDED}" if embedded else opens
