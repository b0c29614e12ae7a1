"""Base formats that the program knows by name.

Contract: pure. What a base model was pretrained on decides in which of them it answers best; `wsd-local check-pair`
compares them.
"""

from __future__ import annotations

from wsd_local.prompts.base_format import BaseFormat, urial_format


def known_formats() -> dict[str, BaseFormat]:
    """The formats by name; `sections` is the default."""
    return {
        "sections": BaseFormat(),
        "colons": _headings("\n\nSystem: ", "\n\nUser: ", "\n\nAssistant: "),
        "questions": _headings("\n\n", "\n\nQuestion: ", "\n\nAnswer: "),
        "markdown": _headings("\n\n# Instruction:\n", "\n\n# Query:\n", "\n\n# Answer:\n"),
        "instruction": _headings("\n\n", "\n\n### Instruction:\n", "\n\n### Response:\n"),
        "fences": urial_format(""),
    }


def _headings(system: str, user: str, assistant: str) -> BaseFormat:
    """A format whose next headings end the reply only where a line begins: their words may occur in a text."""
    headings = {"system": system, "user": user, "assistant": assistant}
    return BaseFormat(headings, stop=tuple("\n" + name for text in headings.values() if (name := text.strip())))
