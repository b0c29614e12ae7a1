"""What two equal replies have in common, wherever their bases are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsd_local.runtime.reply import Reply


def facts(reply: Reply) -> Mapping[str, Any]:
    """Everything of a reply that the decision is about."""
    return {
        "text": reply.text,
        "draft": reply.draft.text,
        "index": reply.switch.index,
        "reason": reply.switch.reason,
        "tokens": [token.id for token in reply.tokens],
        "finish": (reply.finish_reason, reply.stop),
        "prompt": reply.prompt_ids,
    }
