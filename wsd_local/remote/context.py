"""The context of a base on a server: what an engine asks is answered over HTTP.

Contract: serves `core.contexts.TokenContext`. Scores of all questions of a step are asked for together. A continuation
is one stream for each sequence: it is begun with the first token that is wanted, read as far as tokens are wanted, and
hung up where another text is wanted, or nothing (`pause`). A stream that breaks off is never repeated: another one goes
on after the last token that was received. What a server does not give (whole distributions) is an error, in one line.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from wsd_local.core.contexts import Question, StopSignal, TokenModel, TokenSampler, Writing
from wsd_local.core.rules import Score
from wsd_local.errors import WsdError
from wsd_local.remote.link import Link, LostError, Stream
from wsd_local.remote.pace import Pace
from wsd_local.remote.servers.protocol import Given, Server, Wish, Written

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LOGGER = logging.getLogger(__name__)
_BREAKS = 5
"""Streams of one continuation that may break off without a new token."""


class EndingModel(TokenModel, Protocol):
    """The model of a server, as far as a context needs it."""

    @property
    def eog_tokens(self) -> tuple[int, ...]:
        """All tokens that end a text."""
        ...

    def close(self) -> None:
        """Free the vocabulary."""
        ...


@dataclass(slots=True)
class _Continuation:
    """One text that a server writes: all its tokens so far, and those that were received and not taken yet."""

    tokens: list[int]
    wish: Wish
    stream: Stream
    received: int = 0
    ready: deque[Written] = field(default_factory=deque)
    breaks: int = 0


class RemoteContext:
    """Sequences of tokens of a server's model.

    Args:
        model: its vocabulary.
        link: the connection.
        server: the protocol that the server speaks.
        pace: how long its answers take.
        n_ctx: tokens that it takes at once.
        n_seq: texts that may be in progress at once.
        stop: checked while the server is waited for.
    """

    def __init__(
        self, model: EndingModel, link: Link, server: Server, pace: Pace, *, n_ctx: int, n_seq: int, stop: StopSignal
    ) -> None:
        self.model = model
        self.n_ctx = self.n_rows = n_ctx
        self.n_seq, self.cells = n_seq, n_ctx * n_seq
        self.evaluated = 0
        self.pace = pace
        self._link, self._server, self._stop = link, server, stop
        self._held: list[list[int]] = [[] for _ in range(n_seq)]
        self._continuations: dict[int, _Continuation] = {}
        self._rows: list[Score | Written | None] = []

    # -- questions -------------------------------------------------------------------------------------------------

    def step(self, questions: Sequence[Question]) -> None:
        """Answer all questions.

        Raises:
            CancelledError: the work was stopped.
            WsdError: the server refuses, cannot be reached, or answers with what cannot be true.
        """
        self._rows = []
        for question in questions:
            if question.writing is not None:
                self._begin(question, question.writing)
            else:
                self._hang_up(question.seq)
        scoring = [question for question in questions if question.writing is None]
        if scoring:
            self._score(scoring)
        for question in questions:
            if question.writing is not None:
                self._answer(question, [self._next(question.seq)])

    def _score(self, questions: Sequence[Question]) -> None:
        server = self._server
        wanted = [Given(one.tokens, one.row + 1, one.top or 0, one.following) for one in questions]
        answers = self._link.ask_all([server.score(given) for given in wanted], self._stop.check)
        for question, given, answer in zip(questions, wanted, answers, strict=True):
            scored = server.scored(answer, given)
            if question.begun is None:
                question.begun = min(scored.cached, question.end)
            new = question.end - max(question.begun, 0)
            self.evaluated += new
            question.evaluated += new
            self._held[question.seq] = list(question.tokens)
            self._answer(question, [*scored.scores, None])

    def _answer(self, question: Question, found: Sequence[Score | Written | None]) -> None:
        for row in found:
            self._rows.append(row)
            position, question.row = question.row, question.row + 1
            question.answer(position, len(self._rows) - 1)

    # -- continuations ---------------------------------------------------------------------------------------------

    def _begin(self, question: Question, writing: Writing) -> None:
        """Let the server write after a question's tokens, unless it does already."""
        going = self._continuations.get(question.seq)
        if going is not None and going.tokens == question.tokens:
            return
        self._hang_up(question.seq)
        if question.begun is None:
            question.begun = 0
        sampler = writing.sampler
        wish = Wish(
            tokens=list(question.tokens),
            most=max(1, min(writing.most, self.n_ctx - question.end)),
            sampling=sampler.sampling,
            ignore_eos=sampler.ignore_eos,
            stops=writing.stops,
            top=question.top,
        )
        stream = self._link.stream(self._server.write(wish))
        self._continuations[question.seq] = _Continuation(list(question.tokens), wish, stream)

    def _next(self, seq: int) -> Written:
        """The next token of a sequence's continuation; one that ends the text where the server has ended it."""
        going = self._continuations[seq]
        while not going.ready:
            try:
                event = going.stream.next(self._stop.check)
                if event is None:
                    raise LostError(f"{self._link.url}: the stream ended before the continuation was complete")
                part = self._server.written(event, going.wish, going.received)
            except LostError as error:
                self._go_on(going, error)
                continue
            going.received += len(part.tokens)
            going.ready.extend(part.tokens)
            if part.tokens:
                going.breaks = 0
            if part.ended == "stop":
                going.ready.append(Written(self.model.eog_tokens[0], Score(0.0)))  # its score counts nowhere
            elif part.ended == "length" and not going.ready:
                self._go_on(going, WsdError(f"{self._link.url} writes no more tokens, although more were asked for"))
        written = going.ready.popleft()
        going.tokens.append(written.id)
        self._held[seq] = going.tokens[:-1]
        return written

    def _go_on(self, going: _Continuation, error: WsdError) -> None:
        """Ask for what follows the tokens that were received."""
        going.breaks += 1
        if going.breaks > _BREAKS:
            raise error
        LOGGER.info("%s; going on after %d tokens", error, going.received)
        going.stream.close()
        going.wish = replace(going.wish, tokens=list(going.tokens), most=max(1, going.wish.most - going.received))
        going.received = 0
        going.stream = self._link.stream(self._server.write(going.wish))

    def _hang_up(self, seq: int) -> None:
        going = self._continuations.pop(seq, None)
        if going is not None:
            going.stream.close()

    # -- rows ------------------------------------------------------------------------------------------------------

    def score(self, row: int, token: int, *, distribution: bool = False, top: int = 0) -> Score:
        """The score that the server gave for `token`."""
        found = self._rows[row]
        if isinstance(found, Written):
            found = found.score if found.id == token else None
        if found is None or distribution:
            raise self._unknown()
        return found

    def sample(self, row: int, sampler: TokenSampler) -> int:
        """The token that the server wrote."""
        found = self._rows[row]
        assert isinstance(found, Written)
        return found.id

    def best(self, row: int) -> int:
        """Not known here.

        Raises:
            WsdError: always.
        """
        raise self._unknown()

    def distribution(self, row: int) -> npt.NDArray[np.float64]:
        """Not known here.

        Raises:
            WsdError: always.
        """
        raise self._unknown()

    def _unknown(self) -> WsdError:
        return WsdError(f"{self._link.url} gives log-probabilities of given tokens alone, and more is needed here")

    # -- sequences -------------------------------------------------------------------------------------------------

    def live(self, seq: int, tokens: Sequence[int], row: int) -> int:
        """No rows are kept."""
        return 0

    def held(self, seq: int) -> Sequence[int]:
        """The tokens that the server has seen last of a sequence."""
        return self._held[seq]

    def pause(self, seq: int) -> None:
        """Hang up: nothing more is wanted of a sequence for now."""
        self._hang_up(seq)

    def forget(self, seq: int) -> None:
        """Hang up, and begin the sequence anew."""
        self._hang_up(seq)
        self._held[seq] = []

    def close(self) -> None:
        """Hang up everywhere."""
        for seq in list(self._continuations):
            self._hang_up(seq)
