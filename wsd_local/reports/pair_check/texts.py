"""What can be seen in texts alone: words that vocabularies break, loops, markers that leaked, thinking aloud.

Contract: pure. A vocabulary is used to tokenise and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from wsd_local.core.alignment import Aligned, Vocabulary, align
from wsd_local.core.loops import LoopFinder
from wsd_local.core.text import THINKING
from wsd_local.reports.pair_check.figures import Words

_WORD = re.compile(r"\w+")
_HEADING = re.compile(
    r"^[ \t]*(?:#+[ \t]*(?:query|answer|instruction|response|input)\b:?"
    r"|\[(?:user|assistant|system)\]"
    r"|(?:user|assistant|human|system)[ \t]*:)",
    re.IGNORECASE | re.MULTILINE,
)
_TEMPLATE = re.compile(r"<\|[\w ]{1,40}\|>|</?s>|\[/?INST\]|</?(?:start|end)_of_turn>")
_ALOUD = re.compile(
    r"\W*(?:(?:okay|ok|alright|hmm|well|so)\W+)*(?:the user\b|let me think\b|let[\u2019']?s think\b"
    r"|i need to (?:figure|think|answer|respond)|we need to (?:answer|respond|produce))",
    re.IGNORECASE,
)


def words_of(text: str, draft: Vocabulary, base: Vocabulary) -> Words:
    """How both vocabularies cut a text; nothing is counted of a text that one of them rewrites."""
    opened, written, data = _aligned(draft, text), _aligned(base, text), text.encode()
    if not opened.data == written.data == data:
        return Words(0, 0, 0, 0, 0, 0)
    borders = {*written.ends, 0, len(data)}
    ends = opened.ends[1:]
    pieces = written.pieces(len(written.ends) - 1)
    spans = [_bytes_of(text, match.span()) for match in _WORD.finditer(text)]
    return Words(
        words=len(spans),
        broken=sum(end not in borders or not {start, start - 1} & borders for start, end in spans),
        draft_tokens=len(ends),
        moved=sum(end not in borders for end in ends),
        base_tokens=len(pieces),
        fallback=sum(not _is_text(piece) for piece in pieces),
    )


def _aligned(vocabulary: Vocabulary, text: str) -> Aligned:
    return align(vocabulary, "", len(vocabulary.tokenize("")), text)


def _bytes_of(text: str, span: tuple[int, int]) -> tuple[int, int]:
    start, end = span
    before = len(text[:start].encode())
    return before, before + len(text[start:end].encode())


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def loops(text: str) -> bool:
    """Whether a text runs into a loop."""
    finder = LoopFinder()
    finder.feed(text)
    return finder.loop is not None


def leaked(text: str, headings: Collection[str] = (), spellings: Collection[str] = ()) -> str | None:
    """The first marker in a text that belongs to a prompt: a heading or a role at the beginning of a line, a template's
    token; None without one.

    Args:
        text: what the base wrote.
        headings: of the base format.
        spellings: of the draft's template tokens.
    """
    names = sorted({name for heading in headings if (name := heading.strip())})
    own = re.search(rf"^[ \t]*({'|'.join(map(re.escape, names))})", text, re.MULTILINE) if names else None
    spelled = next((spelling for spelling in spellings if spelling in text), None)
    found = own or _TEMPLATE.search(text) or _HEADING.search(text)
    return spelled or (found[0].strip() if found else None)


def beginning(text: str, length: int) -> str:
    """The whole words of the first `length` characters; the characters where there is no whole word."""
    if len(text) <= length:
        return text
    cut = max(text.rfind(space, 0, length + 1) for space in " \n")
    return text[: max(cut, 0)].rstrip() or text[:length]


def thinks(raw: str) -> bool:
    """Whether a draft, with its control tokens spelled, thinks aloud: in a marked block, or in plain words."""
    return any(left in raw for left, _ in THINKING) or _ALOUD.match(raw) is not None


def first_pass(windows: Sequence[float | None], threshold: float) -> int | None:
    """The index of the first window that reaches the threshold, counted from the first window; None without one."""
    defined = [confidence for confidence in windows if confidence is not None]
    return next((i for i, confidence in enumerate(defined) if confidence >= threshold), None)
