"""What the server's protocols ask for, in values that know no HTTP and no engine.

Contract: a `Service` answers many requests at once, from one event loop. Each reply is what it would be alone. Leaving
`replies` early (a client went away) stops these replies within an evaluation and no others. Errors are `WsdError`s: a
`UsageError` is the client's mistake, a `FitError` a text that does not fit into a context, `UnknownModelError` a model
that is not served, `OverloadedError` a full queue, `UnavailableError` a server that loads or ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from wsd_local.errors import UsageError, WsdError
from wsd_local.events import Event, Source
from wsd_local.fields import spelled
from wsd_local.prompts.messages import Prompt
from wsd_local.prompts.raw import RawPrompt
from wsd_local.settings import ReplySettings

Mode = Literal["wsd", "base", "draft"]
State = Literal["loading", "ready", "failed", "ending"]
SlotPhase = Literal["idle", "draft", "continue", "score"]


class UnknownModelError(UsageError):
    """A model that is not served."""


class OverloadedError(WsdError):
    """The queue is full; `retry_after` is the number of seconds after which to try again."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(WsdError):
    """The models are being loaded, could not be loaded, or the server is about to end."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients name it: a pair, or one of its two models alone.

    `id` is `<pair>`, `<pair>:base` or `<pair>:draft`. `created` is in seconds since 1970, `size` in bytes, `sha256` of
    the file where it is known. `n_ctx` is the context in tokens, None until the pair is loaded.
    """

    id: str
    pair: str
    mode: Mode
    created: int
    size: int
    names: Mapping[Source, str]
    sha256: Mapping[Source, str] = field(default_factory=dict)
    n_ctx: int | None = None
    loaded: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the file of a model states. `parameters` counts numbers, `n_ctx_train` and `n_embd` are 0 if unknown."""

    name: str
    architecture: str
    parameters: int
    quantization: str
    n_ctx_train: int
    n_embd: int
    n_layers: int
    template: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyRequest:
    """One request for a reply.

    `settings` are names and values of `ReplySettings`; what is missing has the server's default, and `mode` is the
    model's unless it is given. A conversation that does not fit raises `FitError`, unless `truncate`: then its oldest
    turns are left out. With `details`, `Wrote` events list the tokens, each with that many alternatives at most.
    `names` is how the client spells settings, for errors about them.
    """

    model: str
    prompt: Prompt | RawPrompt
    settings: Mapping[str, Any] = field(default_factory=dict)
    details: int | None = None
    truncate: bool = False
    names: Mapping[str, str] = field(default_factory=dict, compare=False)

    def named(self, error: UsageError) -> UsageError:
        """An error with the client's name of the setting that it is about."""
        name = self.names.get(error.about or "")
        if error.about is None or name is None:
            return error
        return UsageError(str(error).replace(f"{spelled(error.about)}: ", f"{name}: ", 1), about=name)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Tokens of one model (`<pair>:base` or `<pair>:draft`; a pair stands for its base) to be scored from `start` on.

    `top` alternatives are given for each place.
    """

    model: str
    tokens: Sequence[int]
    start: int
    top: int = 0


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token, its natural log-probability at temperature 1, and the most probable ones in its place, best first."""

    id: int
    text: bytes
    logprob: float
    top: tuple[tuple[int, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of `tokens[start:]`; `cached` tokens of the beginning did not have to be evaluated."""

    tokens: tuple[ScoredToken, ...]
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One place for a request in progress: what it does, for which model, and the tokens that the caches hold for it.

    `prompt_tokens` and `reply_tokens` count tokens of the model that continues; `seconds` it has been at work. `n_ctx`
    is the context in tokens, 0 while no models are loaded.
    """

    id: int
    phase: SlotPhase = "idle"
    model: str | None = None
    prompt_tokens: int = 0
    reply_tokens: int = 0
    n_ctx: int = 0
    seconds: float = 0.0


class Status(Protocol):
    """What a service is doing."""

    @property
    def state(self) -> State:
        """Whether models are being loaded, requests are answered, loading failed, or all ends."""
        ...

    @property
    def progress(self) -> Mapping[str, Any]:
        """While models are loaded: `pair`, `role` of the model, and the loaded `fraction`."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that are not over and not in progress."""
        ...

    def slots(self) -> Sequence[Slot]:
        """What each place for a request in progress does."""
        ...


class Texts(Protocol):
    """Texts as models read them: tokens and prompts. Nothing is evaluated."""

    async def tokenize(self, model: str, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        """Tokens of a text.

        Args:
            model: as clients name it.
            text: what to tokenise.
            special: whether what is spelled like a control token becomes one.
            bos: whether the model's first token precedes them, if its vocabulary wants one.
        """
        ...

    async def pieces(self, model: str, tokens: Sequence[int]) -> list[bytes]:
        """The bytes that each of these tokens stands for."""
        ...

    async def special_tokens(self, model: str) -> Mapping[str, str]:
        """How a model spells the tokens `bos` and `eos`; without those that it does not use."""
        ...

    async def vocabulary(self, model: str) -> bytes:
        """A GGUF file that holds a model's vocabulary and no weights."""
        ...

    async def count_tokens(self, model: str, messages: Prompt) -> Mapping[Source, int]:
        """How many tokens each model of a pair would read of a conversation, also of one that does not fit."""
        ...

    async def prompts(self, model: str, messages: Prompt) -> Mapping[Source, str]:
        """What each model of a pair would read of a conversation, as text."""
        ...


class Service(Protocol):
    """Answers requests over the served pairs."""

    @property
    def status(self) -> Status:
        """What the service is doing."""
        ...

    @property
    def texts(self) -> Texts:
        """What needs no evaluation: tokens of texts, and prompts."""
        ...

    @property
    def defaults(self) -> ReplySettings:
        """The settings of a reply whose request has none."""
        ...

    def models(self) -> Sequence[ServedModel]:
        """All that clients may name, three for each pair."""
        ...

    def replies(
        self, request: ReplyRequest, count: int = 1
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[int, Event]]]:
        """The events of `count` replies to one request, each with the reply's number; the last of each is `Finished`.

        Reply `i` has the request's seed plus `i`. Leaving the context stops what is in progress.

        Raises:
            WsdError: on entering, what can be checked without an evaluation; on iterating, what fails later.
        """
        ...

    async def score(self, request: ScoreRequest) -> Scores:
        """Scores of tokens, over what the cache holds already."""
        ...

    async def facts(self, model: str) -> Mapping[Source, ModelFacts]:
        """What the files of a model's parts state; without those that are not on this machine any more."""
        ...

    async def load(self, model: str) -> None:
        """Load the pair that a model belongs to, if it is not loaded."""
        ...

    def keep(self, model: str, seconds: float | None) -> None:
        """Free the pair that a model belongs to after so many seconds without work; None: never.

        That holds until it is freed; then the server's own time holds again.
        """
        ...

    @property
    def freed_after(self) -> float | None:
        """Seconds until the loaded pair is freed if no request comes; None: it stays, or none is loaded."""
        ...
