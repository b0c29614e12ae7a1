"""The name of a model file that users see.

Contract: pure. The name in a file's metadata is often that of the training folder it came from ("Smollm2 135M 8k Lc100K
Mix1 Ep2"), or names the container ("Qwen2.5 Coder 1.5B Instruct GGUF"); the name of the file is the one that its
publisher chose and its owner sees. So the file's name counts, without quantisation and part number. The metadata's name
is taken where the file's says nothing: `model.gguf`, `draft-q8_0.gguf`, or a digest, as some programs store models.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from wsd_local.errors import cut

_PART = re.compile(r"-\d{5}-of-\d{5}$")
_QUANTIZATION = r"(?:i?q[1-8](?:_[a-z0-9]+)*|tq\d_\d|(?:mx|nv)fp4(?:_moe)?|bf16|fp?16|fp?32|f64)"
_CONTAINER = rf"(?:gguf|ggml|{_QUANTIZATION}|(?:ud|i1|imat|imatrix)(?=$|[-._ ]{_QUANTIZATION}|[-._ ]gguf))"
_SUFFIX = re.compile(rf"[-._ ]+{_CONTAINER}$", re.IGNORECASE)
_ONLY_CONTAINER = re.compile(_CONTAINER, re.IGNORECASE)
_FOLDERS = re.compile(r"/|--")
_DIGEST = re.compile(r"(?:sha256[-_:])?[0-9a-f]{32,}", re.IGNORECASE)
_SAYS_NOTHING = frozenset(
    ("base", "checkpoint", "converted", "draft", "ggml", "gguf", "merged", "model", "output", "pytorch", "weights")
)
_LONGEST = 80


class Named(Protocol):
    """A loaded model, as far as its name needs it."""

    @property
    def path(self) -> Path:
        """The file, or the first part."""

    def metadata(self, key: str) -> str | None:
        """A value of its header."""


def name_of(model: Named) -> str:
    """The name of a loaded model for people."""
    return readable_name(model.path, model.metadata("general.name"))


def readable_name(path: Path, stated: str | None) -> str:
    """The name of a model for people, of the file's name and the name that its metadata states."""
    stem = path.name[: -len(".gguf")] if path.name.lower().endswith(".gguf") else path.name
    file = _without_container(_PART.sub("", stem))
    metadata = _without_container(_FOLDERS.split(" ".join((stated or "").split()))[-1])
    says_nothing = _words(file) <= _SAYS_NOTHING or _DIGEST.fullmatch(file) is not None
    return cut(metadata if metadata and says_nothing else file or stem, _LONGEST)


def _without_container(name: str) -> str:
    """A name without the quantisation and the words GGUF and GGML at its end; nothing if there are no others."""
    while (shorter := _SUFFIX.sub("", name)) != name:
        name = shorter
    return "" if _ONLY_CONTAINER.fullmatch(name) else name


def _words(name: str) -> set[str]:
    return {word for word in re.split(r"[-_\s]+", name.casefold()) if word}
