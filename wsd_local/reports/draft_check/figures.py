"""What is measured of a checkpoint and the file that was made of it, as plain values.

Contract: pure; no judgement (see `judging`). Divergences are in nats, shares and probabilities between 0 and 1. An
`example` is what the first difference looks like, empty where there is none.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Templates:
    """Conversations that both templates rendered: `alike`, or `refused` by both; and who has a template at all."""

    in_checkpoint: bool
    in_file: bool
    count: int
    alike: int
    refused: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of so many rendered texts, how many both cut into the same tokens, and how many but for BOS in front."""

    count: int
    alike: int
    but_bos: int
    example: str = ""


@dataclass(frozen=True, slots=True)
class Ends:
    """How training ends a reply and a text, and what llama.cpp takes for an end; tokens by their spellings.

    `turn` is what the checkpoint's template puts after a reply, `turn_ends` whether llama.cpp ends there, `missing` the
    checkpoint's other ends that are none to llama.cpp. `file_end` is the file's EOS, `known` whether it is one of the
    checkpoint's.
    """

    turn: str | None
    turn_ends: bool
    trained: tuple[str, ...]
    missing: tuple[str, ...]
    file_end: str
    known: bool


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of the checkpoint's tokenizer and rows of its embedding; the same of the file."""

    tokens: int
    rows: int
    file_tokens: int
    file_rows: int


@dataclass(frozen=True, slots=True)
class Output:
    """Whether input and output embeddings are one in the checkpoint; whether the file has an output of its own.

    `difference` is the root mean square of what separates that output from the input embeddings, by theirs.
    """

    tied: bool
    own: bool
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class Positions:
    """The scaling of positions and the base of their angles, in the checkpoint and in the file.

    `factors` counts those that the checkpoint's scaling wants, `file_factors` those in the file; `difference` is the
    largest relative one between them.
    """

    kind: str
    base: float | None
    file_kind: str
    file_base: float
    factors: int
    file_factors: int
    difference: float | None = None


@dataclass(frozen=True, slots=True)
class Logits:
    """How far a file of `bits` a weight is from transformers, at so many positions.

    `divergence` is the mean Kullback-Leibler divergence, `agreement` the share of positions with the same most probable
    token, `largest` the largest difference of a log-probability among tokens that transformers gives 1% or more. A file
    whose vocabulary differs has None.
    """

    file: str
    bits: float
    positions: int
    divergence: float | None
    agreement: float | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class Endings:
    """Replies of at most `tokens` tokens that ended by themselves, and the mean probability of an end after an answer
    that is whole."""

    count: int
    ended: int
    tokens: int
    probability: float


@dataclass(frozen=True, slots=True)
class DraftFigures:
    """All that is measured; `checkpoint` and `file` are names."""

    checkpoint: str
    file: str
    templates: Templates
    tokens: Tokens
    ends: Ends
    sizes: Sizes
    output: Output
    positions: Positions
    logits: tuple[Logits, ...]
    endings: Endings

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
