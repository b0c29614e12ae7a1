"""A draft model that consists of a chat template alone, and how its prompt reads."""

from __future__ import annotations

from wsd_local.prompts.draft_format import DraftPrompt


class Template:
    """A draft model that is only its template; tokens are the characters after the control token `<s>` = 1."""

    def __init__(self, template: str | None) -> None:
        self.chat_template = template

    def mask_controls(self, text: str, mask: str) -> str:
        return text.replace("<s>", "<" + mask + "s>")

    def tokenize_template(self, text: str, mask: str) -> list[int]:
        parts = text.split("<s>")
        tokens = [ord(c) for c in parts[0].replace(mask, "")]
        for part in parts[1:]:
            tokens += [1, *(ord(c) for c in part.replace(mask, ""))]
        return tokens

    def special_spelling(self, name: str) -> str:
        return "<s>"


SIMPLE = "{% for m in messages %}{{ bos_token }}{{ m.role }}:{{ m.content | trim }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ bos_token }}assistant:{% endif %}"
)


def shown(prompt: DraftPrompt) -> str:
    return "".join("␂" if token == 1 else chr(token) for token in prompt.tokens)
