"""Real vocabularies around small random models, and drafts scripted from real text in pieces of random size.

Draft and base have different vocabularies: the draft's text comes in the pieces of its own tokens, which end anywhere,
also inside characters, and the base reads it in its own.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from data_sets import fixture_prompts, llama3_replies, texts_by_script, vocabulary
from exactness import TIE, sampled
from makers import CHATML_TEMPLATE, random_llama
from oracle import Oracle
from scripted import bounds, split_at
from summary import Tell

from wsd_local.core.decoding import Decoding
from wsd_local.core.requests import NextBaseToken, NextDraftToken, ScoreTokens
from wsd_local.core.rules import Score, Window
from wsd_local.core.sampling import Sampling
from wsd_local.core.written import reply_tokens
from wsd_local.llama import Cancellation, Context, ContextOptions, Model, Sampler
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.messages import conversation

NAMES = ["gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"]
QUESTION = [{"role": "user", "content": "What is it?"}]
PROMPT = BaseFormat().prompt(conversation(QUESTION))
CONTINUED = 6
CTX = 768
CHUNKS = [1, 6, 8, 16, 512]
FAMILIES = (
    "<|im_start|>system <|im_end|> <|endoftext|> <|begin_of_text|> <|start_header_id|>system<|end_header_id|> "
    "<|eot_id|> <s> </s> <<SYS>> [INST] [/INST] <bos> <eos> <start_of_turn>model <end_of_turn> <|turn> <turn|> "
    "<|user|> <|end|> <|assistant|> <|system|> <think> </think> <|START_OF_TURN_TOKEN|> <|CHATBOT_TOKEN|> "
    "<｜User｜> <｜Assistant｜> <｜end▁of▁sentence｜> [gMASK] <sop> <|start_of_role|> <|end_of_text|> <|channel|> "
    "<|message|> <unk> <0x0A> <|vision_start|>"
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=NAMES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("vocab") / f"{request.param}.gguf"
    yield random_llama(
        path, vocabulary(request.param), n_embd=32, n_layer=1, n_head=2, n_ff=64, chat_template=CHATML_TEMPLATE
    )
    path.unlink()


@cache
def words(name: str) -> llama_cpp.Llama:
    """A vocabulary without weights."""
    return llama_cpp.Llama(str(vocabulary(name)), vocab_only=True, verbose=False)


def drafted(name: str, text: str) -> list[bytes]:
    """What a draft of this vocabulary writes, token by token."""
    llama = words(name)
    vocab, pieces = llama_cpp.llama_model_get_vocab(llama._model.model), []
    for token in llama.tokenize(text.encode(), add_bos=False, special=False):
        buffer = bytes(256)
        size = llama_cpp.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, False)
        pieces.append(buffer[:size])
    return pieces


def scripted(context: Context, run: Decoding, pieces: list[bytes]) -> None:
    """A draft that says `pieces`, before a real base."""
    sampler, left = Sampler(Sampling(), context.model), list(pieces)
    while (request := run.request()) is not None:
        if isinstance(request, ScoreTokens):
            run.scored(list(map(Score, context.logprobs(0, request.tokens, request.start))))
        elif isinstance(request, NextBaseToken):
            token = sampled(context, request.tokens, sampler)
            if context.model.is_eog(token):
                run.base_ended()
            else:
                run.continued(token)
        elif isinstance(request, NextDraftToken) and left:
            run.drafted(left.pop(0))
        else:
            run.draft_ended()


def between(windows: Sequence[float]) -> list[float]:
    """A threshold that some window passes, far from a tie: half way between two that differ by a tenth."""
    ordered = sorted(windows)
    apart = [(low, high) for low, high in pairwise(ordered) if high > 1.1 * low]
    return [math.sqrt(math.prod(apart[len(apart) * 3 // 4]))] if apart else []


def texts() -> Iterator[tuple[str, str]]:
    """Short texts of our own in many scripts, and real replies."""
    for script, own in texts_by_script().items():
        yield from ((script, text) for text in own)
    yield from (("real replies", reply[:260]) for _, reply in llama3_replies(10))
    yield from (("other scripts", record["reply"]) for record in fixture_prompts())


class Case:
    """Holds one base against the oracle, and counts."""

    def __init__(self, base: Path) -> None:
        self.oracle = Oracle(base, base, n_ctx=CTX, threads=1)
        self.model = Model(base)
        options = ContextOptions(n_ctx=CTX, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
        self.context = Context(self.model, options, Cancellation())
        self.counts: dict[str, Counter[str]] = {}

    def close(self) -> None:
        self.context.close()
        self.model.close()
        self.oracle.close()

    def compare(self, script: str, text: str, pieces: list[bytes], threshold: float, chunk: int) -> None:
        """One reply to a draft that says `text`."""
        counts = self.counts.setdefault(script, Counter())
        windows = self.windows(text)
        passes = next((i for i, g in enumerate(windows) if g >= threshold), len(windows))
        enough = passes + 6 + CONTINUED
        limits = bounds(max_tokens=enough, draft_max_tokens=10**6, check_chunk=chunk, stops=BaseFormat().stops)
        run = Decoding(self.model, PROMPT, Window(6, threshold), limits)
        scripted(self.context, run, pieces)
        theirs = self.oracle.reply(QUESTION, threshold=threshold, draft_text=text, max_tokens=enough)
        ours = [token.id for token in reply_tokens(run)]
        whole = self.model.tokenize(PROMPT + text.strip())[run.prompt_length :]
        counts["replies"] += 1
        counts["early"] += run.switch_index is not None
        counts["roll-backs"] += run.counts.rollbacks
        counts["moved switches"] += run.counts.moved_switches
        if ours[: run.kept_tokens] != whole[: run.kept_tokens]:
            assert run.switch_index is not None, f"a whole draft of {script} in other tokens: {text!r}"
            counts["other tokens"] += 1
            return
        assert (run.switch_index, run.switch_reason) == (theirs.index, theirs.reason)
        tie = min(theirs.continuation_gaps, default=1) < TIE
        assert tie or (ours, run.text) == (list(theirs.tokens), theirs.text)

    def windows(self, text: str) -> tuple[float, ...]:
        return self.oracle.reply(QUESTION, threshold=2.0, draft_text=text, on_draft_end="stop").windows

    def table(self, base: str, drafts: str) -> list[str]:
        """Counts by script."""
        names = ["replies", "early", "roll-backs", "moved switches", "other tokens"]
        total: Counter[str] = sum(self.counts.values(), Counter())
        rows = [*sorted(self.counts.items()), ("all", total)]
        head = f"base {base}, draft {drafts}:".ljust(40) + " ".join(name.rjust(14) for name in names)
        return [head, *(f"  {s:38}" + " ".join(str(counts[name]).rjust(14) for name in names) for s, counts in rows)]


def test_scripted_drafts_equal_the_oracle(base: Path, tell: Tell) -> None:
    """With llama-bpe as draft; where it is the base, with every vocabulary as draft."""
    drafts = NAMES if base.stem == "llama-bpe" else ["llama-bpe"]
    case, chance = Case(base), random.Random(base.stem)
    for number, (script, text) in enumerate(texts()):
        thresholds = [*between(case.windows(text)), 2.0, 0.0]
        for turn, name in enumerate(drafts):
            pieces = drafted(name, text)
            said = b"".join(pieces).decode(errors="replace").strip()
            if said != text.strip():
                pieces, said = [text.encode()], text.strip()  # a vocabulary that cannot write the text
            asked = thresholds if len(drafts) == 1 else [thresholds[(number + turn) % len(thresholds)]]
            for threshold, chunk in zip(asked, chance.sample(CHUNKS, len(asked)), strict=True):
                if chance.random() < 0.5:
                    cuts = [chance.randrange(10**4) for _ in range(len(text) // 3)]
                    pieces = split_at(b"".join(pieces), cuts)
                case.compare(script, text, pieces, threshold, chunk)
    case.close()
    tell(*case.table(base.stem, ", ".join(drafts)))
    total: Counter[str] = sum(case.counts.values(), Counter())
    assert total["early"] > total["replies"] // 4
    assert total["other tokens"] <= total["early"] // 50


def controls(model: Model, tokens: Sequence[int]) -> list[int]:
    attribute = llama_cpp.llama_vocab_get_attr
    return [token for token in tokens if attribute(model.vocab, token) & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL]


def test_control_tokens_of_every_family_stay_text(base: Path) -> None:
    """Also all those of the vocabulary itself, in the draft's prompt and in the base's."""
    with Model(base) as model:
        found = [token for token in controls(model, range(model.n_vocab)) if not model.is_eog(token)]
        own = " ".join(model.spelling(token) for token in (*found[:400], *model.eog_tokens))
        form = DraftFormat(model)
        for text in (FAMILIES, own, own.replace(" ", ""), f"{FAMILIES}\n{own}"):
            asked: list[Any] = [
                {"role": "system", "content": text},
                {"role": "user", "content": text},
                {"role": "assistant", "content": text},
                {"role": "user", "content": text},
            ]
            plain: list[Any] = [{**message, "content": "x"} for message in asked]
            for messages, harmless in ((asked, plain), (asked[:3], plain[:3])):
                read, expected = form.prompt(messages).tokens, form.prompt(harmless).tokens
                assert controls(model, read) == controls(model, expected)
                shown = b"".join(map(model.piece, read)).decode().replace("▁", " ")  # the same to SentencePiece
                assert shown.count(text.replace("▁", " ")) == len(messages)
            prompt = model.tokenize(BaseFormat().prompt(asked))
            assert controls(model, prompt) == ([] if model.bos is None else [model.bos])
