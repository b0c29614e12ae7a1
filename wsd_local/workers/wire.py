"""Messages between this process and the one that uses workers: a JSON object, and bytes where numbers are many.

Contract: a message is written whole or not at all, as far as the reader can tell; where the pipe ends, `receive`
returns None.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

from wsd_local.core.alignment import common_prefix

_HEAD = struct.Struct("<II")

Message = dict[str, Any]


def send(stream: IO[bytes], message: Message, data: bytes | memoryview = b"") -> None:
    """Write one message."""
    text = json.dumps(message).encode()
    stream.write(_HEAD.pack(len(text), len(data)) + text)
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Message, bytes] | None:
    """The next message; None where the stream ends."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, size = _HEAD.unpack(head)
    text, data = stream.read(length), stream.read(size)
    if len(text) < length or len(data) < size:
        return None
    message: Message = json.loads(text)
    return message, data


class Tokens:
    """Long lists of tokens that change at their ends only: what one side has sent before is not sent again.

    Both sides keep one, and remember each sequence's last list.
    """

    def __init__(self) -> None:
        self._last: dict[int, list[int]] = {}

    def shorten(self, seq: int, tokens: list[int]) -> tuple[int, list[int]]:
        """What is sent for these tokens: how many of the last list they begin with, and the rest."""
        same = common_prefix(self._last.get(seq, []), tokens)
        self._last[seq] = tokens
        return same, tokens[same:]

    def lengthen(self, seq: int, same: int, rest: list[int]) -> list[int]:
        """The tokens that `shorten` was given."""
        self._last[seq] = tokens = self._last.get(seq, [])[:same] + rest
        return tokens
