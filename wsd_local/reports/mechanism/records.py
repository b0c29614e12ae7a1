"""What is known of one prompt: the draft as the base reads it, an aligned reply, and openings of the base's own.

Contract: plain frozen values. Log-probabilities are natural, of the base's plain distribution at temperature 1, one for
each base token of a text. `BaseReading` is what a file holds, `Case` is that with the draft's record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsd_local.calibration.records import Record
from wsd_local.datasets.run_file import Key
from wsd_local.prompts.messages import Message

DRAFT = "draft"
"""The source of an aligned reply that is the draft's; others are the fields of a data set that hold one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A text, its base tokens, and the base's log-probability of each of them; without tokens it says nothing."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Reading:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: a value is missing, or of the wrong kind.
        """
        tokens, logprobs = tuple(map(int, values["tokens"])), tuple(map(float, values["logprobs"]))
        if len(tokens) != len(logprobs):
            raise ValueError("tokens and logprobs are not of one length")
        return cls(str(values["text"]), tokens, logprobs)


NOTHING = Reading("", (), ())


@dataclass(frozen=True, slots=True)
class BaseReading:
    """What the base alone has to do with one prompt.

    `source` is the field of the data set whose text is `aligned`; without one it is `DRAFT`, and `aligned` is empty.
    `own` are the openings that the base sampled.
    """

    source: str
    aligned: Reading
    own: tuple[Reading, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"text": self.aligned.text, **asdict(self)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> BaseReading:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: a value is missing, or of the wrong kind.
        """
        return cls(str(values["source"]), Reading.of(values["aligned"]), tuple(map(Reading.of, values["own"])))


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt, as its figures need it.

    Args:
        place: index and turn of the prompt.
        messages: the conversation, which ends with the prompt.
        draft: the draft's whole reply as `calibrate` records it.
        pieces: the text that each of its base tokens adds.
        continued: by the number of kept tokens, the text with which the base continues.
        source: where the aligned reply is from: `DRAFT`, or a field of the data set.
        aligned: the log-probabilities of the aligned reply's tokens.
        opening: its first tokens, as many as an opening has.
        own: openings that the base sampled itself.
    """

    place: Key
    messages: Sequence[Message]
    draft: Record
    pieces: tuple[str, ...]
    continued: Mapping[int, str]
    source: str
    aligned: tuple[float, ...]
    opening: Reading
    own: tuple[Reading, ...]

    @property
    def prompt(self) -> str:
        """The last user message."""
        return next((one["content"] for one in reversed(self.messages) if one["role"] == "user"), "")
