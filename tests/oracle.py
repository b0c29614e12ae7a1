"""The three passes of Weak-to-Strong Decoding, written down plainly, to test the engine against.

Draft, score, continue: each pass runs to its end before the next begins, with F32 caches and every logits row
kept. Nothing here is shared with the package, and nothing here is fast. Use F32 copies of the models.

What one reply is: the draft model's greedy answer is tokenised after the base's prompt; the first window
of draft tokens whose geometric mean probability under the base reaches the threshold ends the kept part;
the base continues greedily from there.
"""

from __future__ import annotations

import codecs
import ctypes
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NoReturn

import jinja2
import llama_cpp
import numpy as np
import numpy.typing as npt
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, str]
Floats = npt.NDArray[np.float32]
Conversation = tuple[tuple[str, str], ...]

_MARKS = ("[User]", "[System]", "[Assistant]")
BASE_STOPS = tuple(lead + mark for mark in _MARKS for lead in ("", "\n", "\n\n"))
HEADINGS = {"system": "\n\n[System]\n", "user": "\n\n[User]\n", "assistant": "\n\n[Assistant]\n"}


class OracleError(ValueError):
    """The question is outside what the oracle answers, e.g. the context is too small for the prompt."""


@dataclass(frozen=True)
class OracleReply:
    """One reply, and everything that was decided on the way to it."""

    text: str
    """Kept draft and continuation, cut before the stop string that is completed first."""
    kept_tokens: int
    tokens: tuple[int, ...]
    """Kept base tokens, then continuation tokens: the fewest that write the text, so none of what was cut away."""
    index: int | None
    reason: str
    finish_reason: str
    confidence: float | None
    """g at the switch point; None without one."""
    draft_text: str
    """y: stripped, and cut before a stop string."""
    probs: tuple[float, ...]
    """p_j for every draft token."""
    windows: tuple[float, ...]
    """g_i for i = w-1, w, ... over the tokens inside `max_tokens`: windows[0] is g_(w-1)."""
    continuation_gaps: tuple[float, ...]
    """The best logit minus the second best at each continuation step."""
    draft_gaps: tuple[float, ...]
    """The same at each step of the draft model; empty for a scripted draft."""


@dataclass(frozen=True)
class Draft:
    """What drafting gave: `ended` is "eog", "limit" or "stop"."""

    text: str
    ended: str
    gaps: tuple[float, ...] = ()


@dataclass
class Greedy:
    """A greedy run after one token sequence, as far as it has been needed."""

    tokens: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    ended: bool = False


# --- pure rules -----------------------------------------------------------------------------------------


def log_softmax(row: Floats) -> npt.NDArray[np.float64]:
    shifted = row.astype(np.float64) - float(row.max())
    normaliser = float(np.log(np.exp(shifted).sum()))
    return np.subtract(shifted, normaliser)


def window_confidences(log_probs: Sequence[float], window: int) -> tuple[float, ...]:
    """g_i for every i from window - 1 on."""
    ends = range(window, len(log_probs) + 1)
    return tuple(float(np.exp(np.mean(log_probs[end - window : end]))) for end in ends)


def switch_index(windows: Sequence[float], window: int, threshold: float) -> int | None:
    for offset, confidence in enumerate(windows):
        if confidence >= threshold:
            return offset + window - 1
    return None


def calm_index(entropies: Sequence[float], count: int, bound: float) -> int | None:
    """The last of the first `count` tokens in a row before which the base's entropy is at most `bound` nats."""
    for end in range(count, len(entropies) + 1):
        if max(entropies[end - count : end]) <= bound:
            return end - 1
    return None


def mean_index(entropies: Sequence[float], count: int, bound: float) -> int | None:
    """The last of the first `count` tokens in a row before which the base's mean entropy is at most `bound` nats."""
    for end in range(count, len(entropies) + 1):
        if float(np.mean(entropies[end - count : end])) <= bound:
            return end - 1
    return None


def stop_start(data: bytes, stops: Sequence[str]) -> int | None:
    """Where the stop string that is completed first begins; of those completed together, the longest."""
    encoded = [stop.encode() for stop in stops if stop]
    ends = [data.find(stop) + len(stop) for stop in encoded if stop in data]
    if not ends:
        return None
    end = min(ends)
    return end - max(len(stop) for stop in encoded if data[:end].endswith(stop))


def split_prefix(messages: Conversation) -> tuple[Conversation, str]:
    """The conversation without the assistant text at its end, and that text."""
    if messages and messages[-1][0] == "assistant":
        return messages[:-1], messages[-1][1]
    return messages, ""


def base_prompt(messages: Conversation) -> str:
    """The base's prompt; a supplied assistant prefix stands at its end, as it was given."""
    turns, prefix = split_prefix(messages)
    history = "".join(HEADINGS[role] + content.strip() for role, content in turns)
    return history + HEADINGS["assistant"] + prefix


def tidy_draft(raw: str, prefix: str, ended: str, stops: Sequence[str]) -> tuple[str, str]:
    """y and how it ended: white space off (after a prefix: at the right only), cut before a stop string."""
    text = raw if prefix else raw.lstrip()
    start = stop_start(text.encode(), stops)
    if start is not None:
        text, ended = text.encode()[:start].decode(errors="replace"), "stop"
    return text.rstrip(), ended


# --- one model ------------------------------------------------------------------------------------------


class Model:
    """A loaded model: tokens, bytes, logits and greedy runs."""

    def __init__(self, path: Path, n_ctx: int, threads: int) -> None:
        self.n_ctx = n_ctx
        self.llama = llama_cpp.Llama(
            str(path),
            n_ctx=n_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=True,
            flash_attn=False,
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
            verbose=False,
        )
        vocab = llama_cpp.llama_model_get_vocab(self.llama._model.model)
        if vocab is None:
            raise OracleError(f"{path} has no vocabulary")
        self._vocab = vocab
        self._evaluated: list[int] = []
        self._runs: dict[tuple[tuple[int, ...], bool], Greedy] = {}

    # tokens

    @cached_property
    def bos(self) -> list[int]:
        """The BOS token by id, if the vocabulary wants one in front."""
        token = int(llama_cpp.llama_vocab_bos(self._vocab))
        return [token] if llama_cpp.llama_vocab_get_add_bos(self._vocab) and token >= 0 else []

    @cached_property
    def eog(self) -> list[int]:
        return [t for t in range(self.llama.n_vocab()) if llama_cpp.llama_vocab_is_eog(self._vocab, t)]

    @cached_property
    def control(self) -> dict[str, tuple[int, int]]:
        """Spelling of each control token: its id and attributes."""
        found = {}
        for token in range(self.llama.n_vocab()):
            attributes = int(llama_cpp.llama_vocab_get_attr(self._vocab, token))
            if attributes & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL and self.spelling(token):
                found[self.spelling(token)] = (token, attributes)
        return found

    def spelling(self, token: int) -> str:
        if token < 0:
            return ""
        return str(llama_cpp.llama_vocab_get_text(self._vocab, token), "utf-8", "replace")

    def plain(self, text: str) -> list[int]:
        """Tokens of `text` with nothing in it taken for a control token."""
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=False))

    def bytes_of(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self._piece(token) for token in tokens)

    def _piece(self, token: int) -> bytes:
        size = 512
        buffer = ctypes.create_string_buffer(size)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
        if length < 0:
            raise OracleError(f"token {token} has a piece of more than {size} bytes")
        return buffer.raw[:length]

    # logits

    def rows(self, tokens: Sequence[int]) -> Floats:
        """The logits after each of `tokens`, evaluated afresh."""
        self._evaluate([], tokens)
        return np.asarray(self.llama.scores[: len(tokens)], dtype=np.float32)

    def _evaluate(self, done: Sequence[int], rest: Sequence[int]) -> None:
        self.llama.n_tokens = len(done)
        self.llama.eval(list(rest))
        self._evaluated = [*done, *rest]

    def _last_row(self, tokens: Sequence[int]) -> Floats:
        """The logits after the last of `tokens`; a run that goes on costs one token a step."""
        if self._evaluated == list(tokens[:-1]):
            self._evaluate(self._evaluated, tokens[-1:])
        else:
            self._evaluate([], tokens)
        return np.array(self.llama.scores[len(tokens) - 1])

    def after(self, tokens: Sequence[int]) -> Floats:
        """The logits after the last of `tokens`."""
        return self._last_row(tokens)

    # greedy

    def greedy(self, prompt: Sequence[int], ignore_eos: bool = False) -> Iterator[tuple[int, float]]:
        """Token and gap of each greedy step after `prompt`, up to (without) an EOG token."""
        run = self._runs.setdefault((tuple(prompt), ignore_eos), Greedy())
        for step in range(self.n_ctx - len(prompt)):
            if step == len(run.tokens) and not run.ended:
                self._advance(prompt, run, ignore_eos)
            if step == len(run.tokens):
                return
            yield run.tokens[step], run.gaps[step]

    def _advance(self, prompt: Sequence[int], run: Greedy, ignore_eos: bool) -> None:
        row = self._last_row([*prompt, *run.tokens])
        if ignore_eos:
            row[self.eog] = -np.inf
        best = int(row.argmax())
        if best in self.eog:
            run.ended = True
            return
        second, first = np.partition(row, -2)[-2:]
        run.tokens.append(best)
        run.gaps.append(float(first - second))


# --- the draft's prompt ---------------------------------------------------------------------------------


class ChatTemplate:
    """The template stored in the model file, rendered in a sandbox; message text never becomes control."""

    def __init__(self, model: Model, clock: Callable[[], datetime]) -> None:
        source = model.llama.metadata.get("tokenizer.chat_template")
        if source is None:
            raise OracleError("the draft model has no chat template")
        self._model = model
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: clock().strftime(form)
        self._template = environment.from_string(source)

    def tokens(self, messages: Conversation) -> list[int]:
        """The prompt's tokens: control tokens from template text, all between them as plain text."""
        turns, prefix = split_prefix(messages)
        cores: dict[str, str] = {}
        rendered = self._render([_veiled(role, content, cores) for role, content in turns])
        parts = [_unveiled(part, cores) for part in self._split(rendered)]
        parts[-1] += prefix
        return self._joined(parts)

    def _render(self, messages: list[dict[str, str]]) -> str:
        llama, vocab = self._model, self._model._vocab
        text: str = self._template.render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=llama.spelling(int(llama_cpp.llama_vocab_bos(vocab))),
            eos_token=llama.spelling(int(llama_cpp.llama_vocab_eos(vocab))),
        )
        return text

    def _split(self, rendered: str) -> list[str]:
        """Plain text and control-token spellings by turns, plain text first and last."""
        spellings = sorted(self._model.control, key=len, reverse=True)
        if not spellings:
            return [rendered]
        return re.split("(" + "|".join(map(re.escape, spellings)) + ")", rendered)

    def _joined(self, parts: Sequence[str]) -> list[int]:
        tokens: list[int] = []
        eats_right = False
        for place, part in enumerate(parts):
            if place % 2:
                token, attributes = self._model.control[part]
                tokens.append(token)
                eats_right = bool(attributes & llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP)
                continue
            text = part.lstrip() if eats_right else part
            if place + 1 < len(parts) and self._eats_left(parts[place + 1]):
                text = text.rstrip()
            tokens += self._model.plain(text) if text else []
        bos = self._model.bos
        return tokens if tokens[:1] == bos else bos + tokens

    def _eats_left(self, spelling: str) -> bool:
        return bool(self._model.control[spelling][1] & llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _veiled(role: str, content: str, cores: dict[str, str]) -> dict[str, str]:
    """The message with a placeholder for its text; the white space around stays, for the template to trim."""
    core = content.strip()
    if core:
        placeholder = f"\ue0f0{len(cores)}\ue0f1"
        cores[placeholder] = core
        content = content.replace(core, placeholder)
    return {"role": role, "content": content}


def _unveiled(part: str, cores: Mapping[str, str]) -> str:
    return re.sub("\ue0f0\\d+\ue0f1", lambda match: cores.get(match[0], match[0]), part)


# --- three passes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """The second pass: all tokens of prompt and draft, and the log-probability of each draft token."""

    n0: int
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    prompt_bytes: int


class Oracle:
    """Answers conversations by three separate passes; asking again with other settings is cheap."""

    def __init__(
        self,
        draft: Path,
        base: Path,
        *,
        n_ctx: int,
        threads: int = 2,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._paths = (draft, base)
        self._n_ctx = n_ctx
        self._threads = threads
        self._clock = clock
        self._scored: dict[tuple[Conversation, str], Scored] = {}

    @cached_property
    def draft_model(self) -> Model:
        return Model(self._paths[0], self._n_ctx, self._threads)

    @cached_property
    def base_model(self) -> Model:
        return Model(self._paths[1], self._n_ctx, self._threads)

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.draft_model, self._clock)

    def reply(
        self,
        messages: Sequence[Message],
        *,
        window: int = 6,
        threshold: float = 0.8,
        draft_max_tokens: int = 512,
        max_tokens: int = 2048,
        on_draft_end: str = "continue",
        stop: Sequence[str] = BASE_STOPS,
        ignore_eos: bool = False,
        draft_text: str | None = None,
        draft_ended: str = "eog",
        calm: float | None = None,
        entropy: float | None = None,
    ) -> OracleReply:
        """One reply.

        `draft_text` stands in for the draft model; `draft_ended` then says "eog" or "limit". With `calm` the switch
        point is not a matter of confidence: it is the first token at which the base's entropy was at most `calm` nats
        for `window` tokens in a row; with `entropy` the first at which the mean of these entropies was.
        """
        conversation = tuple((message["role"], message["content"]) for message in messages)
        n0 = len(self.prompt_tokens(conversation))
        budget = min(max_tokens, self._n_ctx - n0)
        if budget < min(max_tokens, window + 64):
            raise OracleError(f"a context of {self._n_ctx} tokens is too small for a prompt of {n0}")
        if draft_text is None:
            draft = self.draft(conversation, draft_max_tokens, stop)
        else:
            draft = Draft(*tidy_draft(draft_text, split_prefix(conversation)[1], draft_ended, stop))
        scored = self.score(conversation, draft.text)
        windows = window_confidences(scored.log_probs[:budget], window)
        if calm is not None:
            index = calm_index(self.entropies(conversation, draft.text)[:budget], window, calm)
        elif entropy is not None:
            index = mean_index(self.entropies(conversation, draft.text)[:budget], window, entropy)
        else:
            index = switch_index(windows, window, threshold)
        kept, reason, goes_on = _decide(index, len(scored.log_probs), budget, draft, on_draft_end)
        tokens, gaps, text, finish = self._finish(scored, kept, budget if goes_on else kept, stop, ignore_eos)
        return OracleReply(
            text=text,
            kept_tokens=min(kept, len(tokens)),
            tokens=tokens,
            index=index,
            reason=reason,
            finish_reason=finish if goes_on else "stop",
            confidence=None
            if index is None or calm is not None or entropy is not None
            else windows[index - window + 1],
            draft_text=draft.text,
            probs=tuple(float(np.exp(log_prob)) for log_prob in scored.log_probs),
            windows=windows,
            continuation_gaps=gaps,
            draft_gaps=draft.gaps,
        )

    def close(self) -> None:
        """Free the models that were loaded."""
        for name in ("draft_model", "base_model"):
            if name in self.__dict__:
                self.__dict__.pop(name).llama.close()

    # first pass

    def draft_prompt_tokens(self, conversation: Conversation) -> list[int]:
        return self._template.tokens(conversation)

    def draft(self, conversation: Conversation, limit: int, stops: Sequence[str]) -> Draft:
        """The draft model's greedy answer."""
        model = self.draft_model
        prompt = self.draft_prompt_tokens(conversation)
        limit = min(limit, self._n_ctx - len(prompt))
        steps = list(islice(model.greedy(prompt), limit))
        raw = model.bytes_of([token for token, _ in steps]).decode(errors="replace")
        ended = "limit" if len(steps) == limit else "eog"
        text, ended = tidy_draft(raw, split_prefix(conversation)[1], ended, stops)
        return Draft(text, ended, tuple(gap for _, gap in steps))

    # second pass

    def prompt_tokens(self, conversation: Conversation) -> list[int]:
        return self.base_model.bos + self.base_model.plain(base_prompt(conversation))

    def score(self, conversation: Conversation, draft_text: str) -> Scored:
        """The probability under the base of each token of the draft."""
        key = (conversation, draft_text)
        if key not in self._scored:
            self._scored[key] = self._score(conversation, draft_text)
        return self._scored[key]

    def _score(self, conversation: Conversation, draft_text: str) -> Scored:
        model = self.base_model
        prompt = self.prompt_tokens(conversation)
        whole = model.bos + model.plain(base_prompt(conversation) + draft_text)
        whole, n0 = whole[: self._n_ctx], len(prompt)
        rows = model.rows(whole)
        log_probs = [float(log_softmax(rows[at - 1])[whole[at]]) for at in range(n0, len(whole))]
        return Scored(n0, tuple(whole), tuple(log_probs), len(model.bytes_of(prompt)))

    def entropies(self, conversation: Conversation, draft_text: str) -> list[float]:
        """The entropy of the base's distribution, in nats, before each token of the draft."""
        scored = self.score(conversation, draft_text)
        rows = self.base_model.rows(scored.tokens)
        logs = [log_softmax(rows[at - 1]) for at in range(scored.n0, len(scored.tokens))]
        return [float(-np.sum(np.exp(log) * log)) for log in logs]

    # third pass

    def _finish(
        self, scored: Scored, kept: int, budget: int, stops: Sequence[str], ignore_eos: bool
    ) -> tuple[tuple[int, ...], tuple[float, ...], str, str]:
        """Tokens, gaps, text and finish reason of the reply that begins with the `kept` draft tokens."""
        start = scored.tokens[: scored.n0 + kept]
        data = self.base_model.bytes_of(start)[scored.prompt_bytes :]
        tokens, gaps, finish, cut = list(start[scored.n0 :]), [], "length", None
        steps = self.base_model.greedy(start, ignore_eos)
        while len(tokens) < budget:
            step = next(steps, None)
            if step is None:
                finish = "stop"
                break
            tokens.append(step[0])
            gaps.append(step[1])
            data += self.base_model.bytes_of(step[:1])
            cut = stop_start(data, stops)
            if cut is not None:
                finish = "stop"
                break
        text = data[:cut].decode(errors="replace")
        return tuple(self._written(scored, tokens, text)), tuple(gaps), text, finish

    def _written(self, scored: Scored, tokens: Sequence[int], text: str) -> Sequence[int]:
        """The fewest of the first tokens that write all of `text`, each with whole characters."""
        prompt = list(scored.tokens[: scored.n0])
        for count in range(len(tokens)):
            data = self.base_model.bytes_of([*prompt, *tokens[:count]])[scored.prompt_bytes :]
            if codecs.getincrementaldecoder("utf-8")("replace").decode(data).startswith(text):
                return tokens[:count]
        return tokens


def _decide(
    index: int | None,
    drafted: int,
    budget: int,
    draft: Draft,
    on_draft_end: str,
) -> tuple[int, str, bool]:
    """How many draft tokens are kept, why, and whether the base's turn may come."""
    if index is not None:
        return index + 1, "threshold", True
    if drafted >= budget:
        return budget, "length", True
    if draft.ended == "stop":
        return drafted, "stop", False
    if draft.ended == "limit" and draft.text:
        return drafted, "draft_limit", True
    return drafted, "draft_end", on_draft_end == "continue" or not draft.text
