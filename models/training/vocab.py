"""Byte-level BPE vocabularies that llama.cpp reads and splits in the very same way.

`pre` names llama.cpp's pre-tokeniser. The patterns are its own: `llama-bpe` (digits in threes, punctuation
together with the line breaks after it; a piece that is a token is not merged up) and `gpt-2`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

PATTERNS = {
    "llama-bpe": r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}


@dataclass(frozen=True)
class Vocab:
    """A trained vocabulary with its control tokens at the end."""

    tokenizer: Tokenizer
    pre: str
    tokens: list[str]
    merges: list[str]
    controls: tuple[str, ...]

    def control(self, text: str) -> int:
        return self.tokens.index(text)

    def encode(self, text: str) -> tuple[list[int], list[int]]:
        """Ids and the place in `text` where each token begins. Nothing is parsed as a control token."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, [start for start, _ in encoding.offsets]


def train_vocab(texts: Iterable[str], size: int, pre: str, controls: tuple[str, ...]) -> Vocab:
    """Learn `size` tokens, control tokens included; all 256 bytes are among them."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(controls),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = tokenizer_merges(tokenizer)
    return Vocab(tokenizer, pre, [text for text, _ in by_id] + list(controls), merges, controls)


def tokenizer_merges(tokenizer: Tokenizer) -> list[str]:
    """The merges in order, in the form that GGUF stores."""
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
