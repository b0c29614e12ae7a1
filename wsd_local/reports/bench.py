"""Speed of a loaded pair: its parts, whole replies, and how the two fit together.

Contract: nothing is printed. A `Bench` measures one thing at a time and returns figures by name (see `figures`).
Sequences are emptied before a prompt is read, so that no cached prompt counts as speed; only the turns of a
conversation may reuse cached tokens, as they do in use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import cycle
from typing import Any

from wsd_local.core.contexts import Question
from wsd_local.core.sampling import Sampling
from wsd_local.errors import CancelledError, FitError, UsageError
from wsd_local.events import Source, Text
from wsd_local.llama import Sampler, Sequences
from wsd_local.llama.timing import timed_calls
from wsd_local.prompts.messages import Message
from wsd_local.reports.figures import Figures
from wsd_local.runtime.loading import forget
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.runtime.run import Run, RunOptions
from wsd_local.settings import ReplySettings, changed

STEPS = 32
"""Tokens that each model writes to measure one, after its prompt."""
CHUNKS = 4
"""Chunks of draft tokens that are checked to measure one token of them."""
TURNS, TURN_TOKENS = 10, 16
"""Turns of the conversation, and base tokens of each reply in it."""

QUESTIONS = tuple(
    f"What is the capital of {country}?"
    for country in ("France", "Peru", "Japan", "Egypt", "Norway", "Kenya", "Chile", "India", "Spain", "Cuba")
)
ANSWER = "Great question! I am happy to share this with you. I hope that helps!"

CONFIGURED = ("window", "threshold", "check_chunk")
OVERRIDES: dict[str, Any] = {
    name: value for name, value in asdict(ReplySettings()).items() if name not in CONFIGURED
} | {"ignore_eos": True, "on_draft_end": "continue", "speculation": "off", "loop_guard": "off"}
"""Settings of greedy replies that have a fixed length and take one evaluation per token, whatever is configured."""


# -- measuring -------------------------------------------------------------------------------------------------


class Bench:
    """Measurements over a pair. No stop string ends a reply, so that replies have their whole length.

    Args:
        pair: loaded, both models in memory.
        prompt_tokens: length of the base's prompt; that of the draft is what its template makes of the same messages.
        tokens: base tokens of a reply, those kept of the draft included.
        drafted: exactly so many draft tokens, none of which makes the base take over; None: as the reply comes.
        clock: seconds.

    Raises:
        UsageError: a number is not valid, or the models take turns in memory.
        FitError: prompt and reply do not fit into a context.
    """

    def __init__(
        self,
        pair: Pair,
        *,
        prompt_tokens: int,
        tokens: int,
        drafted: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        for name, value in (("prompt-tokens", prompt_tokens), ("tokens", tokens), ("drafted", drafted)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}: it must be at least 1")
        if drafted is not None and drafted > tokens:
            raise UsageError(f"drafted is {drafted}: a reply of {tokens} tokens has no room for it; raise --tokens")
        if pair.models.loading.resident == "one":
            raise UsageError("resident is one: models would be loaded within what is measured; measure with both")
        self.pair = pair
        self.tokens = tokens
        self.drafted = drafted
        self.reply: Reply | None = None
        """The newest whole reply, token by token."""
        self.clock = clock
        self.chunk = pair.settings.check_chunk
        self._require_room("base", prompt_tokens)
        self.messages = prompt_of(pair, prompt_tokens)
        run = self._prepared()
        self.prompts: dict[Source, list[int]] = run.prepared.ids()
        for role, prompt in self.prompts.items():
            self._require_room(role, len(prompt) if not run.left_out else pair.models.n_ctx(role))

    def warm(self) -> None:
        """Let both models work once, so that nothing is touched for the first time while it is measured."""
        self.answer(max_tokens=min(self.tokens, STEPS))

    def parts(self) -> Figures:
        """Both models alone: a prompt read, a token written in the middle of a reply, a draft token checked."""
        figures: Figures = {}
        lengths = {"draft": self.drafted or 0, "base": self.tokens}
        for role, prompt in self.prompts.items():
            middle = max(0, (lengths[role] - STEPS) // 2)
            read_s, token_s, text = self._writes(role, prompt, STEPS, middle)
            figures |= {
                f"{role}_prompt_s": read_s,
                f"{role}_prompt_rate": len(prompt) / read_s,
                f"{role}_token_s": token_s,
                f"{role}_token_rate": 1 / token_s,
            }
        return figures | {"check_token_s": self._checks(self.prompts["base"], text)}

    def _elsewhere_s(self) -> float:
        """Seconds that a process with workers has worked so far."""
        base = self.pair.models.serving("base")
        return base.elsewhere_s if isinstance(base, Sequences) else 0.0

    def whole(self) -> Figures:
        """A reply by both models."""
        before = self._elsewhere_s()
        with timed_calls(self.clock) as native:
            seconds, reply = self.answer(drafted=self.drafted)
        self.reply = reply
        times, counts = reply.timings, reply.counts
        written = times.base_evaluated_tokens - times.base_prompt_tokens - counts.checked_tokens
        return {
            "reply_s": seconds,
            "own_s": seconds - native.seconds - (self._elsewhere_s() - before),
            "drafted_tokens": counts.drafted_tokens,
            "checked_tokens": counts.checked_tokens,
            "kept_tokens": reply.draft.tokens,
            "continued_tokens": reply.base.tokens,
            "draft_steps_tokens": times.draft_evaluated_tokens - times.draft_prompt_tokens,
            "base_steps_tokens": max(0, written),
        } | _text_times(reply, "")

    def alone(self) -> Figures:
        """The same reply by the base alone, through the same engine."""
        seconds, reply = self.answer(mode="base")
        return {"base_s": seconds} | _text_times(reply, "base_")

    def proposals(self) -> Figures:
        """The reply with proposals for its continuation."""
        seconds, reply = self.answer(drafted=self.drafted, speculation="auto")
        did = reply.speculation
        figures: dict[str, float | None] = {
            "speculative_s": seconds,
            "proposed_tokens": did.proposed_tokens,
            "accepted_tokens": did.accepted_tokens,
            "proposal_rounds": did.rounds,
            "acceptance": did.acceptance,
            "examined_acceptance": did.accepted_tokens / did.examined_tokens if did.examined_tokens else None,
            "break_even": did.break_even,
        }
        return {name: value for name, value in figures.items() if value is not None}

    def turns(self) -> Figures:
        """Time to the first text in the second and in the last turn of a conversation; nothing if it does not fit."""
        forget(self.pair.models)
        chat = self.pair.session()
        figures: Figures = {}
        for turn in range(1, TURNS + 1):
            begun, first = self.clock(), None
            for event in chat.stream(QUESTIONS[turn % len(QUESTIONS)], **OVERRIDES | {"max_tokens": TURN_TOKENS}):
                if first is None and isinstance(event, Text):
                    first = self.clock() - begun
            assert chat.run is not None
            _require_whole(chat.run.reply)
            if turn in (2, TURNS) and first is not None:
                figures[f"turn_{turn}_s"] = first
        return {} if chat.left_out else figures

    def shapes(self, role: Source, prompt: int, tokens: int) -> Figures:
        """What llama-bench measures: a prompt read, and tokens written from an empty context, without any prompt."""
        model = self.pair.models.model(role)
        text = cycled(self.prompts[role], prompt)
        read_s, _, _ = self._writes(role, text, 0)
        first_s, token_s, _ = self._writes(role, [text[0] if model.bos is None else model.bos], tokens - 1)
        whole = first_s + token_s * (tokens - 1)
        return {f"{role}_pp_rate": prompt / read_s, f"{role}_tg_rate": tokens / whole}

    def answer(self, *, drafted: int | None = None, **changes: Any) -> tuple[float, Reply]:
        """Seconds that a reply takes, from messages to its end, and the reply; `drafted` forces the draft's length.

        `changes` are settings, for replies that are made otherwise.
        """
        self.pair.models.cancellation.check()
        forget(self.pair.models)
        forced = {} if drafted is None else {"threshold": 1.1, "draft_max_tokens": drafted}
        begun = self.clock()
        run = self._prepared(RunOptions(clock=self.clock, endless_draft=drafted is not None), **forced, **changes)
        for _ in run.events():
            pass
        seconds = self.clock() - begun
        _require_whole(run.reply)
        return seconds, run.reply

    def _require_room(self, role: Source, prompt: int) -> None:
        need, room = prompt + max(self.tokens, STEPS, self.chunk * (CHUNKS + 1)) + 1, self.pair.models.n_ctx(role)
        if need > room:
            can_grow = room < self.pair.models.model(role).n_ctx_train
            advice = "raise --ctx" if can_grow else "lower --prompt-tokens or --tokens"
            raise FitError(f"prompt and reply take {need} {role} tokens, the context holds {room}; {advice}")

    # -- the work ----------------------------------------------------------------------------------------------

    def _prepared(self, options: RunOptions | None = None, **changes: Any) -> Run:
        settings = changed(self.pair.settings, OVERRIDES | {"max_tokens": self.tokens} | changes)
        return Run(self.pair.models, self.pair.engine, self.messages, settings, options)

    def _writes(
        self, role: Source, prompt: Sequence[int], steps: int, beyond: int = 0
    ) -> tuple[float, float, list[int]]:
        """Seconds to read the prompt and choose one token, and for each of `steps` more; those that were written.

        They are written `beyond` the prompt, over which the prompt itself is read again, untimed: what a token costs
        grows with what stands before it.
        """
        context = self.pair.models.context(role)
        sampler = Sampler(Sampling(), context.model, ignore_eos=True)
        forget(self.pair.models)
        tokens = list(prompt)
        begun = self.clock()
        tokens.append(next_token(context, tokens, sampler))
        read_s = self.clock() - begun
        if beyond:
            tokens += cycled(prompt, beyond)
            tokens.append(next_token(context, tokens, sampler))
        first = len(tokens)
        begun = self.clock()
        for _ in range(steps):
            tokens.append(next_token(context, tokens, sampler))
        return read_s, (self.clock() - begun) / max(steps, 1), tokens[first:]

    def _checks(self, prompt: list[int], text: list[int]) -> float:
        """Seconds for a token of a chunk after the prompt, which the base holds.

        A first chunk goes before, untimed: it takes back what stands there, and the prompt's last token with it.
        """
        context = self.pair.models.context("base")
        length = self.chunk * (CHUNKS + 1)
        tokens = prompt + cycled(text, length)
        context.logprobs(0, tokens[: len(prompt) + self.chunk], len(prompt))
        begun = self.clock()
        for start in range(len(prompt) + self.chunk, len(tokens), self.chunk):
            context.logprobs(0, tokens[: start + self.chunk], start)
        return (self.clock() - begun) / (self.chunk * CHUNKS)


def cycled(tokens: Sequence[int], length: int) -> list[int]:
    """So many tokens, again and again the same ones."""
    return (list(tokens) * (length // len(tokens) + 1))[:length]


def next_token(context: Sequences, tokens: Sequence[int], sampler: Sampler) -> int:
    """What the sampler chooses after `tokens`, in the context's first sequence."""
    found: list[int] = []
    context.ask(Question(0, tokens, len(tokens) - 1, lambda _, row: found.append(context.sample(row, sampler))))
    return found[0]


def _require_whole(reply: Reply) -> None:
    if reply.finish_reason == "cancelled":
        raise CancelledError("stopped")


def _text_times(reply: Reply, prefix: str) -> Figures:
    times = reply.timings
    found = {
        "first_text_s": times.first_text_s,
        "token_40_s": times.token_40_s,
        "longest_gap_s": times.longest_gap_s,
    }
    return {prefix + name: value for name, value in found.items() if value is not None}


def prompt_of(pair: Pair, length: int) -> list[Message]:
    """A conversation whose prompt takes `length` base tokens, or a few less; at least one question.

    A long message, an answer to it, and a short question, where there is room for that.
    """

    def fits(messages: list[Message]) -> bool:
        return len(pair.models.model("base").tokenize(pair.models.base_format.prompt(messages))) <= length

    def conversation(text: str) -> list[Message]:
        return [{"role": "user", "content": text}, *rest]

    rest: list[Message] = [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": QUESTIONS[0]}]
    if not fits(conversation(QUESTIONS[1])):
        rest = []
    text = QUESTIONS[bool(rest)]
    for question in cycle(QUESTIONS):
        if not fits(conversation(f"{text} {question}")):
            break
        text += f" {question}"
    for word in question.split():
        if not fits(conversation(f"{text} {word}")):
            break
        text += f" {word}"
    return conversation(text)
