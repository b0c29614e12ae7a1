"""What is recorded of one prompt: the whole draft as the base reads it, and the base's own ways to go on.

Contract: plain frozen values, to and from JSON. Log-probabilities are natural, of the base's plain distribution at
temperature 1; positions count base tokens of the draft's text from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Spent = tuple[int, float]
"""A number of tokens, and the seconds that they took."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the base writes greedily after the first `start` tokens of the draft.

    `logprobs` are those of its own tokens. `ended`: its text ended there by itself, an end token or a stop string. One
    that did not end and has no tokens had no room in the context.
    """

    start: int
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Continuation:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: a value is missing, or of the wrong kind.
        """
        tokens, logprobs = tuple(map(int, values["tokens"])), tuple(map(float, values["logprobs"]))
        if len(tokens) != len(logprobs):
            raise ValueError("a continuation has another number of tokens than of log-probabilities")
        return cls(int(values["start"]), tokens, logprobs, bool(values["ended"]))


@dataclass(frozen=True, slots=True)
class Record:
    """One prompt's greedy draft, read by the base to its end.

    Args:
        id: the prompt's name.
        text: the draft's text.
        ended: why the draft ended, a switch reason.
        tokens: the base's tokens of that text.
        logprobs: the base's log-probability of each of them.
        agrees: whether each of them is the base's most probable token.
        settled: after each draft token, the number of base tokens that could be checked by then.
        continuations: by rising start.
        drafted: tokens that the draft wrote one by one, and the seconds that took.
        checked: the same for tokens that the base checked, the prompt not counted.
        written: the same for tokens that the base wrote one by one.
        prompt: the base's tokens before those of the draft.
    """

    id: str
    text: str
    ended: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    agrees: tuple[bool, ...]
    settled: tuple[int, ...]
    continuations: tuple[Continuation, ...]
    drafted: Spent = (0, 0.0)
    checked: Spent = (0, 0.0)
    written: Spent = (0, 0.0)
    prompt: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"agrees": [int(one) for one in self.agrees]}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Record:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: a value is missing, or of the wrong kind.
        """
        tokens, logprobs = tuple(map(int, values["tokens"])), tuple(map(float, values["logprobs"]))
        agrees = tuple(map(bool, values["agrees"]))
        if not len(tokens) == len(logprobs) == len(agrees):
            raise ValueError("tokens, logprobs and agrees are not of one length")
        return cls(
            id=str(values["id"]),
            text=str(values["text"]),
            ended=str(values["ended"]),
            tokens=tokens,
            logprobs=logprobs,
            agrees=agrees,
            settled=tuple(map(int, values["settled"])),
            continuations=tuple(map(Continuation.of, values["continuations"])),
            drafted=_spent(values["drafted"]),
            checked=_spent(values["checked"]),
            written=_spent(values["written"]),
            prompt=tuple(map(int, values["prompt"])),
        )


def _spent(value: Sequence[Any]) -> Spent:
    tokens, seconds = value
    return int(tokens), float(seconds)
