"""Speed of a loaded pair: its parts, whole replies, and how the two fit together.

Contract: nothing is printed. A `Bench` measures one thing at a time and tells figures by name: seconds, unless the name
says otherwise (`_rate`: tokens per second, `_tokens`: a number of tokens, `_bytes`). Sequences are forgotten before a
prompt is read, so that no cached prompt counts as speed; only the turns of a conversation may reuse what they reuse.
`rows` puts figures over each other as `Comparison`s ask: medians over repetitions, quotients taken within each
repetition, because what else a machine does changes between them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any, Literal

from wsd_local.core.contexts import Question
from wsd_local.core.sampling import Sampling
from wsd_local.errors import CancelledError, FitError, UsageError
from wsd_local.events import Source, Text
from wsd_local.library.naming import name_of
from wsd_local.llama import Context, Sampler
from wsd_local.llama.context import default_threads
from wsd_local.llama.timing import timed_calls
from wsd_local.placement.plan import HOST, Plan, load_mode
from wsd_local.prompts.messages import Message
from wsd_local.reports.contention import Elsewhere, Watch
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.runtime.run import Run, RunOptions
from wsd_local.settings import ReplySettings, changed
from wsd_local.units import gib

Figures = dict[str, float]
"""What one repetition measured, by name."""
Unit = Literal["s", "ms", "tokens/s", "bytes"]

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
} | {"ignore_eos": True, "on_draft_end": "continue", "speculation": "off"}
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
        UsageError: a number cannot be meant, or the models take turns in memory.
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
        self._clock = clock
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

    def whole(self) -> Figures:
        """A reply by both models."""
        with timed_calls(self._clock) as native:
            seconds, reply = self.answer(drafted=self.drafted)
        self.reply = reply
        times, counts = reply.timings, reply.counts
        written = times.base_evaluated_tokens - times.base_prompt_tokens - counts.checked_tokens
        return {
            "reply_s": seconds,
            "own_s": seconds - native.seconds,
            "drafted_tokens": counts.drafted_tokens,
            "checked_tokens": counts.checked_tokens,
            "kept_tokens": reply.draft.tokens,
            "continued_tokens": reply.base.tokens,
            "draft_steps_tokens": times.draft_evaluated_tokens - times.draft_prompt_tokens,
            "base_steps_tokens": max(0, written),
        } | _told(reply, "")

    def alone(self) -> Figures:
        """The same reply by the base alone, through the same engine."""
        seconds, reply = self.answer(mode="base")
        return {"base_s": seconds} | _told(reply, "base_")

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
        self._forget()
        chat = self.pair.session()
        figures: Figures = {}
        for turn in range(1, TURNS + 1):
            begun, first = self._clock(), None
            for event in chat.stream(QUESTIONS[turn % len(QUESTIONS)], **OVERRIDES | {"max_tokens": TURN_TOKENS}):
                if first is None and isinstance(event, Text):
                    first = self._clock() - begun
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
        self._forget()
        forced = {} if drafted is None else {"threshold": 1.1, "draft_max_tokens": drafted}
        begun = self._clock()
        run = self._prepared(RunOptions(clock=self._clock, endless_draft=drafted is not None), **forced, **changes)
        for _ in run.events():
            pass
        seconds = self._clock() - begun
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

    def _forget(self) -> None:
        for role in self.pair.models.loaded:
            self.pair.models.context(role).forget(0)

    def _writes(
        self, role: Source, prompt: Sequence[int], steps: int, beyond: int = 0
    ) -> tuple[float, float, list[int]]:
        """Seconds to read the prompt and choose one token, and for each of `steps` more; those that were written.

        They are written `beyond` the prompt, over which the prompt itself is read again, untimed: what a token costs
        grows with what stands before it.
        """
        context = self.pair.models.context(role)
        sampler = Sampler(Sampling(), context.model, ignore_eos=True)
        self._forget()
        tokens = list(prompt)
        begun = self._clock()
        tokens.append(next_token(context, tokens, sampler))
        read_s = self._clock() - begun
        if beyond:
            tokens += cycled(prompt, beyond)
            tokens.append(next_token(context, tokens, sampler))
        first = len(tokens)
        begun = self._clock()
        for _ in range(steps):
            tokens.append(next_token(context, tokens, sampler))
        return read_s, (self._clock() - begun) / max(steps, 1), tokens[first:]

    def _checks(self, prompt: list[int], text: list[int]) -> float:
        """Seconds for a token of a chunk behind the prompt, which the base holds.

        A first chunk goes before, untimed: it takes back what stands there, and the prompt's last token with it.
        """
        context = self.pair.models.context("base")
        length = self.chunk * (CHUNKS + 1)
        tokens = prompt + cycled(text, length)
        context.logprobs(0, tokens[: len(prompt) + self.chunk], len(prompt))
        begun = self._clock()
        for start in range(len(prompt) + self.chunk, len(tokens), self.chunk):
            context.logprobs(0, tokens[: start + self.chunk], start)
        return (self._clock() - begun) / (self.chunk * CHUNKS)


def cycled(tokens: Sequence[int], length: int) -> list[int]:
    """So many tokens, again and again the same ones."""
    return (list(tokens) * (length // len(tokens) + 1))[:length]


def next_token(context: Context, tokens: Sequence[int], sampler: Sampler) -> int:
    """What the sampler chooses behind `tokens`, in the context's first sequence."""
    found: list[int] = []
    context.ask(Question(0, tokens, len(tokens) - 1, lambda _, row: found.append(context.sample(row, sampler))))
    return found[0]


def _require_whole(reply: Reply) -> None:
    if reply.finish_reason == "cancelled":
        raise CancelledError("stopped")


def _told(reply: Reply, prefix: str) -> Figures:
    times = reply.timings
    told = {
        "first_text_s": times.first_text_s,
        "token_40_s": times.token_40_s,
        "longest_gap_s": times.longest_gap_s,
    }
    return {prefix + name: value for name, value in told.items() if value is not None}


def prompt_of(pair: Pair, length: int) -> list[Message]:
    """A conversation whose prompt takes `length` base tokens, or a few less; at least one question.

    A long message, an answer to it, and a short question, where there is room for that.
    """

    def fits(messages: list[Message]) -> bool:
        return len(pair.models.model("base").tokenize(pair.models.base_format.prompt(messages))) <= length

    def asked(text: str) -> list[Message]:
        return [{"role": "user", "content": text}, *rest]

    rest: list[Message] = [{"role": "assistant", "content": ANSWER}, {"role": "user", "content": QUESTIONS[0]}]
    if not fits(asked(QUESTIONS[1])):
        rest = []
    text = QUESTIONS[bool(rest)]
    for question in cycle(QUESTIONS):
        if not fits(asked(f"{text} {question}")):
            break
        text += f" {question}"
    for word in question.split():
        if not fits(asked(f"{text} {word}")):
            break
        text += f" {word}"
    return asked(text)


def sums(parts: Figures, whole: Figures) -> Figures:
    """What the parts of a reply take together.

    `sum_s` counts all drafted, checked and continued tokens. `steps_sum_s` counts evaluations: the first token of each
    model comes with its prompt or with the last check, and takes none of its own.
    """
    prompts = parts["draft_prompt_s"] + parts["base_prompt_s"] + whole["checked_tokens"] * parts["check_token_s"]

    def together(drafted: str, continued: str) -> float:
        return prompts + whole[drafted] * parts["draft_token_s"] + whole[continued] * parts["base_token_s"]

    return {
        "sum_s": together("drafted_tokens", "continued_tokens"),
        "steps_sum_s": together("draft_steps_tokens", "base_steps_tokens"),
    }


def memory(plan: Plan | None, resident_before: int, resident_now: int) -> Figures:
    """Growth of resident memory since before a pair was loaded, and the bytes of weights and KV caches in it.

    Nothing without a plan, as when `n_gpu_layers` is given: then what the machine's own memory holds is unknown.
    """
    if plan is None:
        return {}
    use = [placement.use[HOST] for placement in plan.placements.values()]
    needed = sum(one["weights"] + one["cache"] for one in use)
    return {"resident_bytes": resident_now - resident_before, "needed_bytes": needed}


# -- what is told ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row of a table: a figure, over another where there is one, and a goal for the quotient (else the figure)."""

    what: str
    figure: str
    unit: Unit
    against: str = ""
    other: str = ""
    goal: float | None = None
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over repetitions. `measured` and `other` are in seconds, tokens per second or bytes."""

    comparison: Comparison
    measured: float
    other: float | None
    ratio: float | None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        goal = self.comparison.goal
        if goal is None:
            return None
        value = self.measured if self.ratio is None else self.ratio
        return value >= goal if self.comparison.at_least else value <= goal

    def cells(self) -> tuple[str, ...]:
        """As people read it: what, measured, against, ratio, goal, met."""
        asked = self.comparison
        against = "" if self.other is None else f"{shown(self.other, asked.unit)}: {asked.against}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        goal, met = "", ""
        if asked.goal is not None:
            value = f"{asked.goal:g}" if asked.other else shown(asked.goal, asked.unit)
            goal = f"{'≥' if asked.at_least else '≤'} {value}"
            met = "yes" if self.met else "no"
        return asked.what, shown(self.measured, asked.unit), against, ratio, goal, met

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        asked = asdict(self.comparison)
        names = {"figure": asked["figure"], "other": asked["other"] or None, "against": asked["against"] or None}
        values = {"measured": self.measured, "other_measured": self.other, "ratio": self.ratio}
        return {"what": asked["what"], **names, **values, "goal": asked["goal"], "met": self.met}


COLUMNS = ("what", "measured", "against", "ratio", "goal", "met")


def shown(value: float, unit: Unit) -> str:
    """A figure as people read it."""
    if unit == "bytes":
        return gib(value)
    if unit == "ms":
        return f"{value * 1000:.2f} ms"
    if unit == "tokens/s":
        return f"{value:.1f} tokens/s" if value >= 10 else f"{value:.2f} tokens/s"
    return f"{value:.2f} s" if value >= 1 else f"{value:.3f} s"


PARTS = (
    Comparison("draft reads the prompt", "draft_prompt_rate", "tokens/s"),
    Comparison("base reads the prompt", "base_prompt_rate", "tokens/s"),
    Comparison("draft writes", "draft_token_rate", "tokens/s"),
    Comparison("base writes", "base_token_rate", "tokens/s"),
    Comparison("base checks one token of a chunk", "check_token_s", "ms", "base writes one token", "base_token_s"),
)
WHOLE = (
    Comparison("whole reply", "reply_s", "s", "sum of its parts", "sum_s", 1.03),
    Comparison("whole reply", "reply_s", "s", "the same, evaluations only", "steps_sum_s"),
    Comparison("whole reply", "reply_s", "s", "base alone", "base_s"),
    Comparison("whole reply with proposals", "speculative_s", "s", "without", "reply_s", 1.03),
    Comparison("first text", "first_text_s", "s", "base alone", "base_first_text_s", 0.4),
    Comparison("40th token", "token_40_s", "s", "base alone", "base_token_40_s"),
    Comparison("longest gap", "longest_gap_s", "s", "base alone", "base_longest_gap_s"),
    Comparison("own Python between calls into llama.cpp", "own_s", "s", "whole reply", "reply_s", 0.01),
)
SESSION = (Comparison(f"first text, turn {TURNS}", f"turn_{TURNS}_s", "s", "turn 2", "turn_2_s", 1.2),)
MEMORY = (
    Comparison("growth of resident memory", "resident_bytes", "bytes", "weights and caches", "needed_bytes", 1.1),
)


def rows(repetitions: Sequence[Figures], comparisons: Iterable[Comparison]) -> list[Row]:
    """Those comparisons whose figures were measured; quotients come from repetitions that have both figures."""
    found = []
    for asked in comparisons:
        both = [
            figures for figures in repetitions if asked.figure in figures and (asked.other or asked.figure) in figures
        ]
        if both:
            measured = statistics.median(figures[asked.figure] for figures in both)
            other = statistics.median(figures[asked.other] for figures in both) if asked.other else None
            quotients = [figures[asked.figure] / figures[asked.other] for figures in both] if asked.other else []
            found.append(Row(asked, measured, other, statistics.median(quotients) if quotients else None))
    return found


def about(bench: Bench) -> dict[str, Any]:
    """What was measured on: models, lengths, how they were loaded, and what the newest reply was."""
    pair, reply = bench.pair, bench.reply
    placements = {} if pair.models.plan is None else pair.models.plan.placements
    modes = {role: load_mode(placements[role]) for role in placements}
    return {
        "models": {role: name_of(pair.models.model(role)) for role in bench.prompts},
        "files": {role: str(pair.models.paths[role]) for role in bench.prompts},
        "load_mode": modes if pair.models.loading.load_mode == "auto" else pair.models.loading.load_mode,
        "gpu_layers": {role: placement.gpu_layers for role, placement in placements.items()},
        "threads": pair.models.loading.threads or default_threads(),
        "check_chunk": bench.chunk,
        "tokens": bench.tokens,
        "prompt_tokens": {role: len(prompt) for role, prompt in bench.prompts.items()},
        "reply": None if reply is None else _described(reply),
    }


def about_proposals(repetitions: Sequence[Figures]) -> list[str]:
    """What proposals did in each repetition that had some, in words."""
    found = [figures for figures in repetitions if "speculative_s" in figures]
    if not found:
        return []

    def each(name: str, form: str, otherwise: str) -> str:
        return ", ".join(format(figures[name], form) if name in figures else otherwise for figures in found)

    taken = ", ".join(f"{f['accepted_tokens']:.0f} of {f['proposed_tokens']:.0f}" for f in found)
    rounds, shares = each("proposal_rounds", ".0f", ""), each("examined_acceptance", ".0%", "none")
    least = each("break_even", ".0%", "none that is known")
    return [
        f"Proposals, by repetition: taken {taken} in {rounds} rounds; of those looked at {shares}; "
        f"the share from which the draft's pay: {least}."
    ]


def _described(reply: Reply) -> dict[str, Any]:
    return {
        "drafted_tokens": reply.counts.drafted_tokens,
        "checked_tokens": reply.counts.checked_tokens,
        "kept_tokens": reply.draft.tokens,
        "continued_tokens": reply.base.tokens,
        "switch": reply.switch.reason,
    }


@dataclass(frozen=True, slots=True)
class Results:
    """Figures of all repetitions, what they were measured on, and what else the processors did."""

    about: dict[str, Any]
    repetitions: tuple[Figures, ...]
    elsewhere: Elsewhere

    @property
    def rows(self) -> list[Row]:
        """The table."""
        return rows(self.repetitions, (*PARTS, *WHOLE, *SESSION, *MEMORY))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "about": self.about,
            "rows": [row.as_dict() for row in self.rows],
            "repetitions": [dict(figures) for figures in self.repetitions],
            "elsewhere": asdict(self.elsewhere),
        }


def measure(
    bench: Bench,
    repeat: int,
    progress: Callable[[str], None],
    resident: Callable[[], int],
    resident_before: int,
) -> Results:
    """Measure everything `repeat` times.

    Args:
        progress: told what comes next, `steps(repeat)` times; may raise to stop.
        resident: bytes of this process that are in memory now.
        resident_before: the same, before the pair was loaded.
    """
    progress("warming up")
    bench.warm()
    watch = Watch()
    repetitions = []
    for number in range(1, repeat + 1):
        figures: Figures = {}
        for name, part in SECTIONS.items():
            progress(f"{name}, {number} of {repeat}")
            figures |= part(bench)
        figures |= memory(bench.pair.models.plan, resident_before, resident())
        repetitions.append(figures | sums(figures, figures))
    return Results(about(bench), tuple(repetitions), watch.told())


SECTIONS: dict[str, Callable[[Bench], Figures]] = {
    "parts": Bench.parts,
    "whole reply": Bench.whole,
    "with proposals": Bench.proposals,
    "base alone": Bench.alone,
    "conversation": Bench.turns,
}


def steps(repeat: int) -> int:
    """How often `measure` tells its progress."""
    return 1 + repeat * len(SECTIONS)
