"""What an engine needs of a model: a context that holds sequences of tokens, scores them, and writes the next.

Contract: protocols and one value. Whatever can answer a `Question` can serve an engine: llama.cpp in this process,
a server elsewhere, a script in a test. A question names all tokens that its sequence holds when it is answered, so a
context may cache, batch, and evaluate again as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from wsd_local.core.rules import Score
from wsd_local.core.sampling import Sampling

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(slots=True, eq=False)
class Question:
    """`tokens` that the sequence `seq` is to hold, and the positions from `row` on whose logits are wanted.

    `answer` is called for each of these positions, in order, with the position and its row while that is valid.
    `evaluated` counts the tokens that had to be evaluated. `end` is the number of tokens; `begun`, recorded by the
    context, the position where their evaluation began. `writing` is there if the next tokens are to be written from the
    last row, else the tokens after `row` are scored. `top` is the number of alternatives that scores have; None: there
    are no scores. `following` are tokens after these, as far as they are known.
    """

    seq: int
    tokens: Sequence[int]
    row: int
    answer: Callable[[int, int], None]
    evaluated: int = 0
    end: int = 0
    begun: int | None = None
    writing: Writing | None = None
    top: int | None = None
    following: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.end = len(self.tokens)
        if not 0 <= self.row < self.end:
            raise ValueError(f"row {self.row} of {self.end} tokens")

    @property
    def done(self) -> bool:
        """Whether all positions were answered."""
        return self.row >= self.end


class TokenModel(Protocol):
    """The model that a context belongs to, as far as an engine needs it."""

    @property
    def n_ctx_train(self) -> int:
        """Tokens that the model was trained to read at once."""
        ...

    def is_eog(self, token: int) -> bool:
        """Whether a token ends a text."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; nothing for control tokens."""
        ...


class TokenSampler(Protocol):
    """How the tokens of one text are chosen, made for one model. It keeps track of a constraint on the text."""

    @property
    def sampling(self) -> Sampling:
        """The settings."""
        ...

    @property
    def ignore_eos(self) -> bool:
        """Whether a token that ends the text is never chosen."""
        ...

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always chosen."""
        ...

    @property
    def begun(self) -> bool:
        """Whether `begin` was called."""
        ...

    @property
    def over(self) -> bool:
        """Whether a constraint lets nothing follow the text."""
        ...

    def begin(self, prompt: Sequence[int], opening: Sequence[int] = (), text: bytes = b"") -> None:
        """Set what precedes the first chosen token; only the first call counts.

        Raises:
            WsdError: the constraint does not allow the opening.
        """
        ...

    def follow(self, tokens: Sequence[int], text: bytes) -> None:
        """Take in what another writer added to the text: `tokens` of this model, and the `text` that they stand for.

        Raises:
            WsdError: the constraint does not allow it.
        """
        ...

    def valid(self, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that the constraint allows next."""
        ...

    def forced(self) -> Sequence[int]:
        """Tokens that the constraint leaves no choice about."""
        ...


@dataclass(frozen=True, slots=True)
class Writing:
    """What a context needs to write ahead of the next token: `sampler` chooses the tokens, at most `most` of them.

    Each of the texts `stops` ends them.
    """

    sampler: TokenSampler
    most: int
    stops: tuple[str, ...] = ()


class TokenContext(Protocol):
    """Sequences of tokens of one model. Rows are valid until the next `step`."""

    @property
    def model(self) -> TokenModel:
        """The model."""
        ...

    @property
    def n_ctx(self) -> int:
        """Tokens that one sequence can hold."""
        ...

    @property
    def cells(self) -> int:
        """Tokens that all sequences can hold together."""
        ...

    @property
    def n_seq(self) -> int:
        """Number of sequences."""
        ...

    @property
    def n_rows(self) -> int:
        """Rows of one evaluation."""
        ...

    @property
    def evaluated(self) -> int:
        """Tokens evaluated so far, in all."""
        ...

    def step(self, questions: Sequence[Question]) -> None:
        """Answer what the rows at hand can answer; if that is nothing, make one evaluation for all questions.

        Each question has a sequence of its own, and all of them fit into the cells together.

        Raises:
            CancelledError: the work was stopped; what was evaluated stays.
            WsdError: it failed.
        """
        ...

    def score(self, row: int, token: int, *, distribution: bool = False, top: int = 0) -> Score:
        """The score of `token` in a row; `distribution` adds top-1 probability and entropy, `top` the best tokens."""
        ...

    def best(self, row: int) -> int:
        """The most probable token in a row."""
        ...

    def distribution(self, row: int) -> npt.NDArray[np.float64]:
        """The probabilities of all tokens in a row, as a copy."""
        ...

    def sample(self, row: int, sampler: TokenSampler) -> int:
        """The token that `sampler` chooses from a row; the sampler must be one of this context's model.

        Raises:
            DeadEndError: the vocabulary cannot write what the sampler's constraint demands.
        """
        ...

    def live(self, seq: int, tokens: Sequence[int], row: int) -> int:
        """Number of consecutive positions of `tokens`, from `row` on, whose rows are available."""
        ...

    def held(self, seq: int) -> Sequence[int]:
        """The tokens that a sequence holds."""
        ...

    def pause(self, seq: int) -> None:
        """Nothing more is wanted of a sequence for now; what it holds stays."""
        ...

    def forget(self, seq: int) -> None:
        """Free a sequence."""
        ...


class StopSignal(Protocol):
    """Whether the work is to stop."""

    def check(self) -> None:
        """Raise `CancelledError` if it is."""
        ...

    def clear(self) -> None:
        """Forget the request."""
        ...
