"""Prompts that let a thinking model answer at once.

Contract: pure. Templates receive values that turn thinking off; where a template opens a block of thinking all the
same, the block is closed in the prompt.
"""

from __future__ import annotations

from wsd_local.core.text import THINKING

NO_THINKING = {"enable_thinking": False, "thinking": False, "thinking_budget": 0}
"""Values by which the templates of thinking models turn thinking off."""


def without_open_thinking(prompt: str) -> str:
    """The prompt; a block of thinking that is open at its end is closed."""
    opened = prompt.rstrip()
    for left, right in THINKING:
        if opened.endswith(left):
            return f"{opened}\n\n{right}\n\n"
    return prompt
