"""Tokens of texts and prompts of conversations, by the vocabularies and formats of a loaded pair.

Contract: nothing is evaluated, and no place for a request is taken; the pair is loaded if it is not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from wsd_local.errors import UsageError
from wsd_local.events import Source
from wsd_local.library.gguf import read_header
from wsd_local.library.vocabulary_file import vocabulary_of
from wsd_local.prompts.messages import Prompt, conversation
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.places import vocabulary_file
from wsd_local.runtime.prepare import prompts_of
from wsd_local.server.engine import EngineRoom
from wsd_local.server.orders import size_of
from wsd_local.settings import changed

T = TypeVar("T")

Stopped = Callable[[], bool]
"""Whether to stop."""


class Asks(Protocol):
    """Calls a function of the loaded pair that a model belongs to, with the model's role and whether to stop."""

    def __call__(self, model: str, ask: Callable[[Pair, Source, Stopped], T], size: int = 0) -> Awaitable[T]:
        """The function's answer; `size` is the number of characters or tokens that it is about."""
        ...


class DeskTexts:
    """`Texts` of the pairs that an engine room serves; `ask` calls a function when the pair is loaded."""

    def __init__(self, ask: Asks, room: EngineRoom) -> None:
        self._ask, self._room = ask, room

    async def tokenize(self, model: str, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """See `Texts`."""

        def ask(pair: Pair, role: Source, stopped: Stopped) -> list[int]:
            vocabulary = pair.models.model(role)
            tokens = vocabulary.tokenize_text(text, special=special)
            return [vocabulary.bos, *tokens] if bos and vocabulary.bos is not None else tokens

        return await self._ask(model, ask, len(text))

    async def pieces(self, model: str, tokens: Sequence[int]) -> list[bytes]:
        """See `Texts`."""

        def ask(pair: Pair, role: Source, stopped: Stopped) -> list[bytes]:
            vocabulary = pair.models.model(role)
            if not all(0 <= token < vocabulary.n_vocab for token in tokens):
                most = vocabulary.n_vocab - 1
                raise UsageError(f"tokens: the model has the tokens 0 to {most}, and no others", about="tokens")
            return list(map(vocabulary.piece, tokens))

        return await self._ask(model, ask, len(tokens))

    async def prompts(self, model: str, messages: Prompt) -> Mapping[Source, str]:
        """See `Texts`."""
        given = conversation(messages)
        mode = self._room.serving.find(model)[1]

        def ask(pair: Pair, role: Source, stopped: Stopped) -> Mapping[Source, str]:
            found = prompts_of(pair.models, given, changed(pair.settings, {"mode": mode}), stopped)
            return {role: pair.models.model(role).spelled_out(found.tokens(role)) for role in found.prompts}

        return await self._ask(model, ask, size_of(given))

    async def special_tokens(self, model: str) -> Mapping[str, str]:
        """See `Texts`."""

        def ask(pair: Pair, role: Source, stopped: Stopped) -> Mapping[str, str]:
            vocabulary = pair.models.model(role)
            names = ["eos"] if vocabulary.bos is None else ["bos", "eos"]
            return {name: spelled for name in names if (spelled := vocabulary.special_spelling(name))}

        return await self._ask(model, ask)

    async def vocabulary(self, model: str) -> bytes:
        """See `Texts`."""

        def ask(pair: Pair, role: Source, stopped: Stopped) -> bytes:
            return vocabulary_of(read_header(vocabulary_file(pair.models, role)))

        return await self._ask(model, ask)

    async def count_tokens(self, model: str, messages: Prompt) -> Mapping[Source, int]:
        """See `Texts`."""
        given = conversation(messages)
        mode = self._room.serving.find(model)[1]

        def ask(pair: Pair, role: Source, stopped: Stopped) -> Mapping[Source, int]:
            found = prompts_of(pair.models, given, changed(pair.settings, {"mode": mode}), stopped)
            return {role: len(prompt.tokens) for role, prompt in found.prompts.items()}

        return await self._ask(model, ask, size_of(given))
