"""A scripted pair: a toy vocabulary, a draft that says a given text, a base with made-up probabilities.

No model is loaded, so every edge can be played: `Pair` drives a machine by itself, `ScriptedContext` serves the real
engine. `plain_answer` is the rule read off the whole text at once.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from wsd_local.core.alignment import Vocabulary, common_prefix
from wsd_local.core.contexts import Question
from wsd_local.core.decoding import Decoding
from wsd_local.core.draft import DraftOptions
from wsd_local.core.limits import Limits
from wsd_local.core.requests import NextBaseToken, NextDraftToken, ScoreTokens
from wsd_local.core.rules import Score, Window
from wsd_local.core.sampling import Sampling
from wsd_local.errors import CancelledError, WsdError
from wsd_local.events import Event
from wsd_local.llama import Model
from wsd_local.settings import ReplySettings

STOPS = ("[User]", "\n[User]", "\n\n[User]")
EOG = -1


class Words:
    """A vocabulary of given words and of all bytes; the longest word wins, from left to right."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._pieces = [bytes([byte]) for byte in range(256)] + [word.encode() for word in words]
        self._longest_first = sorted(range(256, len(self._pieces)), key=lambda t: -len(self._pieces[t]))

    def tokenize(self, text: str) -> list[int]:
        data, tokens, at = text.encode(), [], 0
        while at < len(data):
            token = next((t for t in self._longest_first if data.startswith(self._pieces[t], at)), data[at])
            tokens.append(token)
            at += len(self._pieces[token])
        return tokens

    def piece(self, token: int) -> bytes:
        return self._pieces[token]


class Fickle:
    """One token a character, but two characters a token as soon as the text holds a `z`: tokens far left change."""

    def tokenize(self, text: str) -> list[int]:
        step = 2 if "z" in text else 1
        return [int.from_bytes(text[i : i + step].encode(), "big") for i in range(0, len(text), step)]

    def piece(self, token: int) -> bytes:
        return token.to_bytes(2 if token > 255 else 1, "big")


class Splitting:
    """`ab` and `abc` are one token alone, single characters in a longer text: the border to the prompt moves."""

    def tokenize(self, text: str) -> list[int]:
        return [1000 + len(text)] if text in ("ab", "abc") else list(text.encode())

    def piece(self, token: int) -> bytes:
        return b"abc"[: token - 1000] if token > 1000 else bytes([token])


def made_up_logprob(tokens: Sequence[int]) -> float:
    """A log-probability of the last token that depends on all tokens and on nothing else."""
    noise = zlib.crc32(repr(list(tokens)).encode()) % 1000 / 1000
    return math.log(0.35 + 0.65 * noise)


@dataclass
class Pair:
    """A draft that writes `pieces` and a base that writes `continuation`."""

    pieces: Sequence[bytes]
    continuation: Sequence[int] = ()
    draft_ends: bool = True
    logprob: Callable[[Sequence[int]], float] = made_up_logprob
    entropy: Callable[[Sequence[int]], float] = lambda _: 0.0
    drafted: int = 0
    scored: list[tuple[int, int]] = field(default_factory=list)

    def drive(self, machine: Decoding, until: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Answer requests until the machine is done or `until` says stop."""
        yield from machine.take_events()
        while not until() and (request := machine.request()) is not None:
            if isinstance(request, NextDraftToken):
                self._draft(machine)
            elif isinstance(request, ScoreTokens):
                self._score(machine, request)
            else:
                assert isinstance(request, NextBaseToken)
                self._continue(machine, request)
            yield from machine.take_events()

    def _draft(self, machine: Decoding) -> None:
        if self.drafted < len(self.pieces):
            self.drafted += 1
            machine.drafted(self.pieces[self.drafted - 1])
        elif self.draft_ends:
            machine.draft_ended()
        else:
            machine.draft_ended("draft_limit")

    def _score(self, machine: Decoding, request: ScoreTokens) -> None:
        tokens = list(request.tokens)
        self.scored.append((request.start, len(tokens)))
        ends = [tokens[: i + 1] for i in range(request.start, len(tokens))]
        machine.scored([Score(self.logprob(end), 1.0, self.entropy(end)) for end in ends])

    def _continue(self, machine: Decoding, request: NextBaseToken) -> None:
        written = len(request.tokens) - machine.prompt_length - machine.kept_tokens
        token = self.continuation[written] if written < len(self.continuation) else EOG
        if token == EOG:
            machine.base_ended()
        else:
            machine.continued(token, Score(-0.5))


def bounds(**changes: Any) -> Limits:
    """Limits of a reply in a test, with those of the command line as defaults."""
    usual = ReplySettings()
    defaults = {
        name: getattr(usual, name) for name in ("max_tokens", "draft_max_tokens", "check_chunk", "on_draft_end")
    }
    return Limits(**{**defaults, **changes})


def machine(
    vocabulary: Vocabulary,
    prompt: str = "\n\n[User]\nhi\n\n[Assistant]\n",
    *,
    window: int = 6,
    threshold: float = 0.8,
    verbatim: bool = False,
    limits: Limits | None = None,
) -> Decoding:
    """A machine over a toy vocabulary, with the base's stop strings."""
    return Decoding(
        vocabulary,
        prompt,
        Window(window, threshold),
        limits or bounds(stops=STOPS),
        options=DraftOptions(verbatim=verbatim),
    )


@dataclass(frozen=True)
class Answer:
    """What the whole text gives: kept tokens, switch index, reason, reply."""

    kept: list[int]
    index: int | None
    reason: str
    text: str
    finish: str


def cut(text: str, stops: Sequence[str] = STOPS) -> tuple[str, bool]:
    """`text` before the stop string that is completed first, and whether there was one."""
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        return text, False
    return text[: min(text[: min(ends)].rfind(stop) for stop in stops if text[: min(ends)].endswith(stop))], True


def plain_answer(
    vocabulary: Words,
    prompt: str,
    draft: str,
    pair: Pair,
    window: int,
    threshold: float,
    max_tokens: int,
    stops: Sequence[str] = STOPS,
) -> Answer:
    """Draft whole, score whole, continue: without a stream."""
    text, stopped = cut(draft.lstrip(), stops)
    n0 = len(vocabulary.tokenize(prompt))
    tokens = vocabulary.tokenize(prompt + text.rstrip())
    within = tokens[n0 : n0 + max_tokens]
    logprobs = [pair.logprob(tokens[: n0 + j + 1]) for j in range(len(within))]
    passed = [
        i
        for i in range(window - 1, len(within))
        if math.prod(math.exp(p) for p in logprobs[i - window + 1 : i + 1]) ** (1 / window) >= threshold
    ]
    if passed:
        index, reason, kept = passed[0], "threshold", within[: passed[0] + 1]
    else:
        index, kept = None, within
        reason = "length" if len(tokens) - n0 >= max_tokens else "stop" if stopped else "draft_end"
    follows = [] if reason in ("length", "stop") else list(pair.continuation)[: max_tokens - len(kept)]
    before = b"".join(vocabulary.piece(token) for token in tokens[: n0 + len(kept)])[len(prompt.encode()) :]
    whole = before + b"".join(vocabulary.piece(token) for token in follows)
    reply, cut_off = cut(whole.decode(errors="replace"), stops)
    full = len(kept) + len(follows) >= max_tokens
    return Answer(kept, index, reason, reply, "length" if full and not cut_off else "stop")


class Says:
    """A sampler that says given tokens, and then that the text ends."""

    def __init__(self, model: Model, tokens: Sequence[int]) -> None:
        self._left = [*tokens, model.eog_tokens[0]]

    over = False

    def begin(self, *_: object) -> None:
        return

    def sample(self, *_: object) -> int:
        return self._left.pop(0)


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` in pieces; a piece may end inside a character."""
    marks = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(marks)]


class Plain:
    """A sampler of scripted contexts, without a constraint."""

    greedy, over, begun, ignore_eos = True, False, True, False
    sampling = Sampling()

    def begin(self, prompt: Sequence[int], opening: Sequence[int] = (), text: bytes = b"") -> None:
        return

    def follow(self, tokens: Sequence[int], text: bytes) -> None:
        return

    def valid(self, tokens: Sequence[int]) -> int:
        return len(tokens)

    def forced(self) -> Sequence[int]:
        return ()


@dataclass
class ScriptedModel:
    """A toy vocabulary as the model of a context."""

    vocabulary: Vocabulary
    n_ctx_train: int = 4096

    def is_eog(self, token: int) -> bool:
        return token == EOG

    def piece(self, token: int) -> bytes:
        return self.vocabulary.piece(token)


class ScriptedContext:
    """A context whose scores and next tokens are functions of the tokens before them; it evaluates `n_batch` at once.

    `fails` are the numbers of evaluations that raise an error instead.
    """

    n_rows = 32

    def __init__(
        self,
        vocabulary: Vocabulary,
        following: Callable[[Sequence[int]], int],
        logprob: Callable[[Sequence[int]], float] = made_up_logprob,
        *,
        n_ctx: int = 4096,
        n_seq: int = 1,
        n_batch: int = 7,
        fails: Sequence[int] = (),
    ) -> None:
        self.model = ScriptedModel(vocabulary)
        self.n_ctx = self.cells = n_ctx
        self.n_seq = n_seq
        self.evaluated = self.evaluations = 0
        self._following, self._logprob = following, logprob
        self._n_batch, self._fails = n_batch, fails
        self._held: list[list[int]] = [[] for _ in range(n_seq)]
        self._rows: dict[int, list[int]] = {}

    def step(self, questions: Sequence[Question]) -> None:
        self.evaluations += 1
        if self.evaluations in self._fails:
            raise WsdError("a scripted failure")
        self._rows = {}
        for question in questions:
            held, tokens = self._held[question.seq], list(question.tokens)
            del held[min(common_prefix(held, tokens), question.row) :]
            if question.begun is None:
                question.begun = len(held)
            new = tokens[len(held) : len(held) + self._n_batch]
            held += new
            self.evaluated += len(new)
            question.evaluated += len(new)
        for question in questions:
            while not question.done and question.row < len(self._held[question.seq]):
                row = len(self._rows)
                self._rows[row] = list(question.tokens[: question.row + 1])
                position, question.row = question.row, question.row + 1
                question.answer(position, row)

    def score(self, row: int, token: int, *, distribution: bool = False, top: int = 0) -> Score:
        logprob = self._logprob([*self._rows[row], token])
        return Score(logprob, 1.0, 0.0) if distribution else Score(logprob)

    def best(self, row: int) -> int:
        return self._following(self._rows[row])

    def distribution(self, row: int) -> npt.NDArray[np.float64]:
        raise NotImplementedError

    def sample(self, row: int, sampler: object) -> int:
        return self.best(row)

    def live(self, seq: int, tokens: Sequence[int], row: int) -> int:
        return 0

    def held(self, seq: int) -> Sequence[int]:
        return self._held[seq]

    def pause(self, seq: int) -> None:
        return

    def forget(self, seq: int) -> None:
        self._held[seq].clear()


class Signal:
    """A stop signal that is given by hand."""

    def __init__(self) -> None:
        self.given = False

    def check(self) -> None:
        if self.given:
            raise CancelledError("stopped")

    def clear(self) -> None:
        self.given = False
