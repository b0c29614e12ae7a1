"""States of prompts, kept on disk from one process to the next.

Contract: a context begins a text with the kept state that spares it the most, if reading that is faster than evaluating
what it spares; the rest is evaluated as usual. `keep` saves what the contexts hold at the end of orderly work: only
what is new and long, and only what is read back at least `FACTOR` times as fast as it was evaluated here. A state is
continued by contexts of its own kind alone: the same llama.cpp, files, adapter, cache types, attention and streams.
Whatever is wrong with the cache costs time and never a reply.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsd_local.errors import reason
from wsd_local.files import PRIVATE
from wsd_local.library.naming import name_of
from wsd_local.llama import Context
from wsd_local.llama.devices import library_version
from wsd_local.llama.sequences import Sequences
from wsd_local.llama.states import Load
from wsd_local.load_settings import NO_FOLDER
from wsd_local.paths import cache_dir, expanded
from wsd_local.runtime.prompt_files import Facts, PromptFiles, Tokens
from wsd_local.settings import LoadSettings

LOGGER = logging.getLogger(__name__)

LEAST = 256
"""New tokens from which on a state is saved."""
WORTH_S = 2.0
"""Seconds that fewer tokens must have taken to be saved too."""
FACTOR = 5
"""A state is saved if evaluating its tokens takes at least so many times as long as reading it."""
SPARED = 32
"""Tokens that a state must spare to be read."""
_PROBE = 4 << 20
"""Bytes by which the speed of reading is measured."""


def prompt_folder(setting: str = "auto") -> Path:
    """The folder of the cache that a setting stands for."""
    return cache_dir() / "prompts" if setting in NO_FOLDER else expanded(setting).absolute()


def reading_speed(folder: Path) -> float:
    """Bytes that are read from a folder's disk, and checked, in a second.

    Raises:
        OSError: nothing can be written there.
    """
    path = folder / f".probe.{secrets.token_hex(4)}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), PRIVATE)
    try:
        with os.fdopen(descriptor, "r+b") as file:
            file.write(os.urandom(_PROBE))
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):  # else what is measured is memory
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begun = time.perf_counter()
            file.seek(0)
            hashlib.sha256(file.read()).digest()
            return _PROBE / (time.perf_counter() - begun)
    finally:
        path.unlink(missing_ok=True)


class PromptCache:
    """The cache in the folder of `files`; `reading` measures the speed of its disk, `clock` that of copying."""

    def __init__(
        self,
        files: PromptFiles,
        reading: Callable[[Path], float] = reading_speed,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.files, self.clock = files, clock
        self._reading = reading
        self._reads: float | None = None
        self._trouble: str | None = None

    @classmethod
    def of(cls, loading: LoadSettings) -> PromptCache | None:
        """The cache that the settings name; None if they turn it off, or where workers hold what would be kept."""
        if loading.prompt_cache == "off" or loading.rpc is not None:
            return None
        return cls(PromptFiles(prompt_folder(loading.prompt_cache), int(loading.prompt_cache_size * 1e9)))

    def attach(self, context: Sequences, fingerprints: Sequence[Mapping[str, Any]]) -> None:
        """Let a context of this process begin with kept states.

        Args:
            context: a new one.
            fingerprints: what identifies its files, each in another way; the first is used to save.
        """
        if isinstance(context, Context) and context.states.possible and fingerprints:
            context.kept = ContextCache(self, context, [_key(context, files) for files in fingerprints])

    def keep(self, contexts: Iterable[Sequences]) -> str | None:
        """Save what contexts hold, as far as it pays. Returns what went wrong, the first time it did."""
        before = self._trouble
        try:
            for context in contexts:
                if isinstance(context.kept, ContextCache):
                    context.kept.keep()
            self.files.trim()
        except OSError as error:
            folder, why = self.files.folder, reason(error)
            self._trouble = f"{folder}: prompts cannot be kept: {why}; --prompt-cache names another folder, or off"
        return self._trouble if before is None else None

    def reads(self) -> float:
        """Bytes that are read in a second, measured once.

        Raises:
            OSError: nothing can be written to the folder.
        """
        if self._reads is None:
            self.files.make_folder()
            self._reads = self._reading(self.files.folder)
        return self._reads


class ContextCache:
    """What one context can begin with."""

    def __init__(self, cache: PromptCache, context: Context, keys: Sequence[str]) -> None:
        self._cache, self._context, self._keys = cache, context, keys
        self._evaluates: float | None = None
        """Tokens in a second, as a state that was read has it."""

    def restore(self, tokens: Sequence[int], held: int, room: int, load: Load) -> Sequence[int] | None:
        """See `KeptStates`."""
        if len(tokens) - held < SPARED:
            return None
        wanted = np.asarray(tokens, dtype=np.int32)
        files, name = self._cache.files, name_of(self._context.model)
        shared = {state: _shared(state.tokens, wanted) for key in self._keys for state in files.find(key)}
        for state, same in sorted(shared.items(), key=lambda item: -item[1]):
            if same - held < SPARED or len(state.tokens) > room or not _pays(state.facts, same - held):
                continue
            data = files.payload(state)
            if data is None:
                LOGGER.info("%s: a kept prompt is damaged, and was removed", name)
                continue
            if not load(data, len(state.tokens)):
                files.remove(state)
                return []
            self._evaluates = state.facts.evaluates
            LOGGER.info("%s: %d of %d tokens were kept from an earlier prompt", name, same, len(tokens))
            return [int(token) for token in state.tokens]
        return None

    def keep(self) -> None:
        """Save each sequence that is new, long, and read faster than evaluated.

        Raises:
            OSError: the folder cannot be used.
        """
        context = self._context
        rate = context.speed.rate or self._evaluates
        for seq in range(context.n_seq):
            tokens = np.asarray(context.held(seq), dtype=np.int32)
            if rate is None or not self._is_new(tokens[: context.read_to[seq]], rate):
                continue
            begun = self._cache.clock()
            data = context.states.save(seq, len(tokens))
            copying = self._cache.clock() - begun
            if data is None:
                continue
            reads, name = self._cache.reads(), name_of(context.model)
            seconds = len(data) / reads + copying
            if len(tokens) < FACTOR * seconds * rate:
                LOGGER.info("%s: %d tokens are not kept: reading them takes %.2f s", name, len(tokens), seconds)
                continue
            digest = hashlib.sha256(data).hexdigest()
            facts = Facts(self._keys[0], name, len(data), digest, rate, len(data) / seconds)
            if self._cache.files.write(facts, tokens, data):
                LOGGER.info("%s: %d tokens are kept for later prompts", name, len(tokens))
                self._remove_parts(tokens)

    def _is_new(self, tokens: Tokens, rate: float) -> bool:
        """Whether enough of a prompt is in no state yet."""
        if len(tokens) < min(LEAST, WORTH_S * rate):
            return False
        files, room = self._cache.files, self._context.cells
        kept = [state.tokens for key in self._keys for state in files.find(key) if len(state.tokens) <= room]
        known = max((_shared(state, tokens) for state in kept), default=0)
        return len(tokens) - known >= min(LEAST, WORTH_S * rate)

    def _remove_parts(self, tokens: Tokens) -> None:
        """Remove states that a longer one has made needless."""
        for key in self._keys:
            for state in self._cache.files.find(key):
                if len(state.tokens) < len(tokens) and _shared(state.tokens, tokens) == len(state.tokens):
                    self._cache.files.remove(state)


def _shared(one: Tokens, other: Tokens) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


def _pays(facts: Facts, spared: int) -> bool:
    """Whether a state is read faster than so many tokens are evaluated."""
    return spared / facts.evaluates > facts.size / facts.reads


def _key(context: Context, files: Mapping[str, Any]) -> str:
    """What must be equal for a state to be continued, as one text."""
    options, model = context.options, context.model
    trained = model.metadata(f"{model.architecture}.rope.scaling.original_context_length")
    held = context.cells // context.streams
    values = {
        "llama.cpp": library_version(),
        "files": files,
        "adapter": None if options.lora is None else options.lora[1],
        "caches": [options.cache_type_k, options.cache_type_v],
        "flash_attn": context.flash_attn,
        "streams": context.streams,
        # Some models rotate positions in another way in contexts longer than they were first trained for.
        "extended": trained is not None and trained.isdecimal() and held > int(trained),
    }
    return json.dumps(values, sort_keys=True)
