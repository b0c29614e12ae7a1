"""What is asked of every kind of server, and how answers are checked.

Contract: pure. Log-probabilities are natural, at temperature 1. A token's number, its log-probability and the length of
a list are checked here, in one place for all servers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from wsd_local.core.rules import Score
from wsd_local.core.sampling import Sampling
from wsd_local.remote.link import MIB, AnswerError, Asked

BYTES_OF_TOKEN = 1024
"""What an answer may take for each token or alternative, at most."""
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class Given:
    """Tokens whose scores are wanted from `start` on, with `top` alternatives each; `following` come after them."""

    tokens: Sequence[int]
    start: int
    top: int = 0
    following: Sequence[int] = ()

    @property
    def wanted(self) -> Sequence[int]:
        """The tokens that are scored."""
        return self.tokens[self.start :]


class Pieces(Protocol):
    """A vocabulary, for servers that read text and no tokens."""

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        ...

    @property
    def bos(self) -> int | None:
        """The first token that a prompt has; None if it has none."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for."""
        ...

    def tokenize_text(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text alone."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """A continuation that is wanted: after `tokens`, at most `most` more, chosen by `sampling`.

    `top` is the number of alternatives that scores have; None: no scores. `stops` are the texts that end it.
    """

    tokens: Sequence[int]
    most: int
    sampling: Sampling
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    top: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """One token of a continuation."""

    id: int
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What one event of a continuation brings; `ended` is there with the last one."""

    tokens: tuple[Written, ...] = ()
    ended: Literal["stop", "length"] | None = None


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of the tokens that were asked for; `cached` tokens of the beginning were not evaluated again."""

    scores: tuple[Score, ...]
    cached: int = 0


class Server(Protocol):
    """A kind of server, for one model."""

    @property
    def kind(self) -> str:
        """Its name for people."""
        ...

    @property
    def model(self) -> str:
        """The model's name there."""
        ...

    @property
    def penalises(self) -> bool:
        """Whether its penalties of repeated tokens are llama.cpp's."""
        ...

    @property
    def at_once(self) -> bool:
        """Whether it works on several requests at once."""
        ...

    def tokenize(self, text: str) -> Asked:
        """Ask for the tokens of a text, without a first token of the vocabulary's own."""
        ...

    def divides(self, answer: Any, text: str, vocabulary: Pieces) -> bool:
        """Whether the server divides a text as a vocabulary does."""
        ...

    def with_vocabulary(self, vocabulary: Pieces) -> Server:
        """The same server, for a vocabulary that was compared with its own."""
        ...

    def score(self, given: Given) -> Asked:
        """Ask for scores."""
        ...

    def scored(self, answer: Any, given: Given) -> Scored:
        """These scores."""
        ...

    def write(self, wish: Wish) -> Asked:
        """Ask for a continuation, as a stream."""
        ...

    def written(self, event: Any, wish: Wish, received: int) -> Part:
        """What an event brings, after `received` tokens of this stream."""
        ...


def room(tokens: int, top: int) -> int:
    """The most bytes that an answer about so many tokens can have."""
    return MIB + tokens * (top + 2) * BYTES_OF_TOKEN


def logprob_of(value: Any, where: str) -> float:
    """A log-probability; one that is minus infinity stays so.

    Raises:
        AnswerError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > _ROUNDING:
        raise AnswerError(f"{where}: a log-probability is {str(value)[:40]}")
    return min(0.0, float(value))


def token_of(value: Any, where: str) -> int:
    """The number of a token.

    Raises:
        AnswerError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise AnswerError(f"{where}: a token's number is {str(value)[:40]}")
    return value


def cached_of(value: Any, given: Given) -> int:
    """The number of tokens that a server says it had cached; 0 if it does not say, or says what cannot be."""
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= len(given.tokens)
    return value if known else 0


def list_of(value: Any, length: int | None, where: str) -> list[Any]:
    """A list of a length that is known; None: any.

    Raises:
        AnswerError: it is none, or longer or shorter.
    """
    if not isinstance(value, list):
        raise AnswerError(f"{where}: there is no list where one was asked for")
    if length is not None and len(value) != length:
        raise AnswerError(f"{where}: there are {len(value)} values where {length} were asked for")
    return value


def field_of(value: Any, name: str, where: str) -> Any:
    """A field of an object.

    Raises:
        AnswerError: there is no such field.
    """
    if not isinstance(value, Mapping) or name not in value:
        raise AnswerError(f"{where}: {name} is missing")
    return value[name]


def tokens_of(answer: Any, where: str) -> list[int]:
    """The field `tokens` of an answer.

    Raises:
        AnswerError: it has none.
    """
    return [token_of(value, where) for value in list_of(field_of(answer, "tokens", where), None, where)]


def choice_of(event: Any, where: str) -> Any:
    """The one choice of an answer in OpenAI's form; None where an event has none, as one about usage."""
    choices = list_of(field_of(event, "choices", where), None, where)
    return choices[0] if choices else None


def end_of(reason: Any) -> Literal["stop", "length"] | None:
    """Why a continuation ended, if it did."""
    return None if reason is None else "length" if reason == "length" else "stop"


def openai_sampling(wish: Wish, names: Mapping[str, str]) -> dict[str, Any]:
    """Sampling parameters by OpenAI's names; `names` has the server's own for what OpenAI does not know."""
    sampling = wish.sampling
    found: dict[str, Any] = {
        "max_tokens": wish.most,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "stream": True,
    }
    if sampling.seed is not None:
        found["seed"] = sampling.seed
    own = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "repeat_last_n": sampling.repeat_last_n,
        "ignore_eos": wish.ignore_eos,
    }
    return found | {names[name]: value for name, value in own.items() if name in names}
