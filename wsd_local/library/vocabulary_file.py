"""The vocabulary of a model as a GGUF file without weights.

Contract: pure bytes. What tokenising needs of a header is copied as it is stored, so both files divide any text alike.
"""

from __future__ import annotations

import hashlib
import struct

from gguf.constants import GGUF_MAGIC, GGUF_VERSION, GGUFValueType

from wsd_local.library.gguf import SCALARS, Array, Header, Value

_LENGTH = struct.Struct("<Q")
_KIND = struct.Struct("<I")


def vocabulary_of(header: Header) -> bytes:
    """A GGUF file with the vocabulary that a model's first file has."""
    wanted = ("general.architecture", f"{header.architecture}.context_length")
    keys = [key for key in header.metadata if key.startswith("tokenizer.ggml.") or key in wanted]
    parts = [struct.pack("<IIQQ", GGUF_MAGIC, GGUF_VERSION, 0, len(keys))]
    parts += [_text(key) + _KIND.pack(header.kinds[key]) + _stored(header, key) for key in keys]
    return b"".join(parts)


def fingerprint(header: Header) -> str:
    """SHA-256 of what decides how a text is divided; equal for all quantisations of a model."""
    keys = sorted(key for key in header.metadata if key.startswith("tokenizer.ggml."))
    digest = hashlib.sha256()
    for key in keys:
        digest.update(_text(key) + _KIND.pack(header.kinds[key]) + _stored(header, key))
    return digest.hexdigest()


def _stored(header: Header, key: str) -> bytes:
    value: Value = header.metadata[key]
    kind = header.kinds[key]
    if isinstance(value, Array):
        return _KIND.pack(value.kind) + _LENGTH.pack(value.count) + value.data
    if isinstance(value, str):
        return _text(value)
    return struct.pack(f"<{SCALARS[GGUFValueType(kind)]}", value)


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data
