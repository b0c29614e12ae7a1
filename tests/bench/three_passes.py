"""The three passes as one would write them over llama-cpp-python's high-level API, timed, to compare the engine with.

    python tests/bench/three_passes.py [--draft FILE --base FILE] [--threads N] [--questions 5] [--check] [--json]

Contract: `three_passes` drafts, scores, and continues, each in a call of its own, as the paper's code does: nothing is
streamed, nothing is stopped early, and the base reads its prompt twice. Greedy; the switch rule is that of section 1 of
`docs/algorithm.md`, which is not shared with the package here. `--check` asks the package the same questions over the
same files and counts how often text and switch agree; caches and batches differ, so near a tie they may not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import Llama

from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions

Message = Mapping[str, str]

STOPS = [lead + mark for mark in ("[User]", "[System]", "[Assistant]") for lead in ("\n\n", "\n", "")]
"""The longest first: of those that end at one place, the API cuts before the one that is named first."""


@dataclass(frozen=True, slots=True)
class Passes:
    """One reply, and what each pass took: seconds, and tokens evaluated or written."""

    text: str
    draft_text: str
    index: int | None
    kept_tokens: int
    confidence: float | None
    draft_s: float
    score_s: float
    continue_s: float
    draft_tokens: int
    score_tokens: int
    continue_tokens: int

    @property
    def total_s(self) -> float:
        """Until the reply is there, all of it at once."""
        return self.draft_s + self.score_s + self.continue_s


def load(path: Path, *, n_ctx: int, threads: int, logits_all: bool = False, gpu_layers: int = 0) -> Any:
    """A model as the high-level API loads it; `logits_all` keeps every row of logits, which the base needs."""
    return Llama(
        str(path),
        n_ctx=n_ctx,
        n_threads=threads,
        n_threads_batch=threads,
        n_gpu_layers=gpu_layers,
        logits_all=logits_all,
        verbose=False,
    )


def base_prompt(messages: Sequence[Message]) -> str:
    """The conversation as the base reads it."""
    turns = (f"\n\n[{message['role'].capitalize()}]\n{message['content'].strip()}" for message in messages)
    return "".join(turns) + "\n\n[Assistant]\n"


def never(tokens: Sequence[int]) -> dict[int, float]:
    """A bias with which these tokens are not chosen."""
    return dict.fromkeys(tokens, -1e9)


def log_probabilities(base: Any, tokens: Sequence[int], start: int) -> list[float]:
    """Log-probability of each token from `start` on, by one evaluation of them all."""
    base.reset()
    base.eval(tokens)
    found = []
    for at in range(start, len(tokens)):
        row = base.scores[at - 1].astype(np.float64)
        row -= row.max()
        found.append(float(row[tokens[at]] - np.log(np.exp(row).sum())))
    return found


def switch(log_probs: Sequence[float], window: int, threshold: float) -> tuple[int | None, float | None]:
    """The first token that ends a window of enough confidence, and that confidence."""
    for end in range(window, len(log_probs) + 1):
        confidence = float(np.exp(np.mean(log_probs[end - window : end])))
        if confidence >= threshold:
            return end - 1, confidence
    return None, None


def three_passes(
    draft: Any,
    base: Any,
    messages: Sequence[Message],
    *,
    window: int = 6,
    threshold: float = 0.8,
    keep: int | None = None,
    draft_max_tokens: int = 512,
    max_tokens: int = 2048,
    ignore_eos: bool = False,
    draft_bias: Mapping[int, float] | None = None,
    stops: Sequence[str] = STOPS,
    clock: Callable[[], float] = time.perf_counter,
) -> Passes:
    """Answer a conversation.

    Args:
        draft: answers through the chat template in its file.
        base: loaded with `logits_all`.
        messages: with `role` and `content`; the last one is the user's.
        window, threshold: the switch rule.
        keep: base tokens of the draft that are kept, whatever the rule says: a scripted reply.
        draft_max_tokens: draft tokens at most.
        max_tokens: base tokens of the reply at most, kept ones too.
        ignore_eos: the base writes on after what would end its text.
        draft_bias: added to logits of the draft, such as `never(tokens)`.
        clock: seconds.
        stops: texts that end the reply; with none of them and `ignore_eos` it is `max_tokens` long.
    """
    begun = clock()
    draft.reset()
    answer = draft.create_chat_completion(
        list(messages), max_tokens=draft_max_tokens, temperature=0.0, logit_bias=draft_bias
    )
    draft_text = answer["choices"][0]["message"]["content"].strip()
    drafted = clock()

    prompt = base_prompt(messages)
    start = len(base.tokenize(prompt.encode(), special=False))
    tokens = base.tokenize((prompt + draft_text).encode(), special=False)
    log_probs = log_probabilities(base, tokens, start)
    index, confidence = switch(log_probs[:max_tokens], window, threshold)
    if keep is None:
        keep = len(log_probs) if index is None else index + 1
    kept = min(keep, len(log_probs), max_tokens)
    scored = clock()

    opening = tokens[: start + kept]
    base.reset()
    continuation: dict[str, Any] = {"choices": [{"text": ""}], "usage": {"completion_tokens": 0}}
    if kept < max_tokens:
        continuation = base.create_completion(
            opening,
            max_tokens=max_tokens - kept,
            temperature=0.0,
            stop=list(stops),
            logit_bias=never([base.token_eos()]) if ignore_eos else None,
        )
    opened = base.detokenize(opening)[len(base.detokenize(opening[:start])) :].decode(errors="replace")
    return Passes(
        text=opened + str(continuation["choices"][0]["text"]),
        draft_text=draft_text,
        index=index,
        kept_tokens=kept,
        confidence=confidence,
        draft_s=drafted - begun,
        score_s=scored - drafted,
        continue_s=clock() - scored,
        draft_tokens=answer["usage"]["completion_tokens"],
        score_tokens=len(tokens),
        continue_tokens=continuation["usage"]["completion_tokens"],
    )


def check(
    paths: tuple[Path, Path],
    loading: Mapping[str, int],
    asked: Sequence[Sequence[Message]],
    passes: Sequence[Passes],
    **settings: Any,
) -> str:
    """How often the package gives the same replies over the same files, in words."""
    from wsd_local.runtime.pair import Pair
    from wsd_local.settings import LoadSettings

    own = LoadSettings(ctx=loading["n_ctx"], threads=loading["threads"], n_gpu_layers=loading["gpu_layers"])
    texts = switches = 0
    with Pair(draft=paths[0], base=paths[1], loading=own) as pair:
        for messages, theirs in zip(asked, passes, strict=True):
            ours = pair.reply(list(messages), **settings)
            texts += ours.text == theirs.text
            switches += (ours.switch.index, ours.draft.tokens) == (theirs.index, theirs.kept_tokens)
    return f"of {len(asked)} replies, {texts} have the package's text and {switches} its switch and kept tokens"


def main() -> None:
    """Ask held-out questions of the embedded pair, or of any other, and print times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draft", type=Path, default=demo_dir() / "draft-q8_0.gguf")
    parser.add_argument("--base", type=Path, default=demo_dir() / "base-q8_0.gguf")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--gpu-layers", type=int, default=0, help="-1: all")
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--draft-max-tokens", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--ignore-eos", action="store_true")
    parser.add_argument("--check", action="store_true", help="ask the package too, and compare")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("draft_max_tokens", "max_tokens", "ignore_eos")}
    questions = load_questions(demo_dir() / "questions.jsonl")
    asked = [question.messages for question in questions[:: max(1, len(questions) // options.questions)]]
    asked = asked[: options.questions]
    loading = {"n_ctx": options.ctx, "threads": options.threads, "gpu_layers": options.gpu_layers}
    draft, base = load(options.draft, **loading), load(options.base, **loading, logits_all=True)
    passes = [three_passes(draft, base, messages, **settings) for messages in asked]
    draft.close()
    base.close()
    if options.json:
        print(json.dumps([asdict(each) for each in passes]))
    else:
        for name in ("draft_s", "score_s", "continue_s", "total_s"):
            print(f"{name:<11} {statistics.median(getattr(each, name) for each in passes):8.3f} (median)")
    if options.check:
        print(check((options.draft, options.base), loading, asked, passes, **settings))


if __name__ == "__main__":
    main()
