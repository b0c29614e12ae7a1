"""HumanEval: Python functions to complete, each with a program that tests it.

Contract: pure; nothing is executed here. The models continue the function's own text, which is the beginning of the
reply, so that every column answers in the same form. A completion ends where lm-evaluation-harness ends it: before the
next definition, comment, condition or call at the left margin, and before the end of a block of code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsd_local.prompts.messages import Message

MAX_TOKENS = 512
FENCE = "```"
STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", FENCE)

_REQUEST = "Complete this Python function. Answer with the code alone."


def messages(prompt: str) -> list[Message]:
    """The conversation that asks for the rest of a function; its last message is the beginning of the reply.

    The function's text ends without a line end, because tokenizers join it with the indentation that follows.
    """
    code = prompt.rstrip()
    return [
        {"role": "user", "content": f"{_REQUEST}\n\n{code}"},
        {"role": "assistant", "content": f"{FENCE}python\n{code}"},
    ]


def program(record: Mapping[str, Any], completion: str) -> str:
    """The program that succeeds if the completed function passes the record's tests."""
    code = completion.split(FENCE, 1)[0]
    return f"{record['prompt']}{code}\n{record['test']}\ncheck({record['entry_point']})"
