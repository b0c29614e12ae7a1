"""What the figures of a converted draft mean: a finding for each symptom, and a verdict on the file.

Contract: pure; figures in, findings out, always in the same order. Bounds stand here, and docs/guide/train.md says what
they are and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wsd_local.reports.draft_check.figures import DraftFigures, Logits
from wsd_local.reports.pair_check.judging import UNENDING
from wsd_local.reports.verdicts import Finding, Verdict, tally, worst

TOLERANCES = ((31.0, 1e-4), (15.0, 2e-3), (8.0, 0.02), (6.0, 0.05), (5.0, 0.1), (4.0, 0.3), (3.0, 0.8), (0.0, 2.0))
"""Bits of a weight, at least, and the mean divergence in nats from which on a file of so many is no copy."""
SAME_OUTPUT = 0.1
"""Relative difference up to which an output is the input embeddings once more, perhaps quantised otherwise."""
SAME_POSITIONS = 1e-3
"""Relative difference up to which factors, and bases, of angles are the same."""
HALF = 0.5
"""Share of replies that end by themselves below which a draft is long-winded."""
_AGAIN = "convert the checkpoint again with wsd-local models convert"
_OTHER = "the file was made of another checkpoint, or by another converter"


@dataclass(frozen=True, slots=True)
class Judgement:
    """All findings about a file."""

    figures: DraftFigures
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no fault was found."""
        return worst(self.findings) != "fault"

    @property
    def verdict(self) -> Literal["as trained", "usable with care", "not as trained"]:
        """The verdict on the file."""
        words: dict[Verdict, Literal["as trained", "usable with care", "not as trained"]]
        words = {"ok": "as trained", "warning": "usable with care", "fault": "not as trained"}
        return words[worst(self.findings)]

    def summary(self) -> str:
        """One line about the file."""
        return f"{self.figures.file}: {self.verdict}{tally(self.findings)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
            "figures": self.figures.as_dict(),
        }


def judge(figures: DraftFigures) -> Judgement:
    """The findings about a file; one about the logits for each file that was compared."""
    logits = tuple(_logits(found) for found in figures.logits)
    return Judgement(figures, (*(symptom(figures) for symptom in _BEFORE), *logits, _endings(figures)))


# -- text ------------------------------------------------------------------------------------------------------


def _template(figures: DraftFigures) -> Finding:
    found, name = figures.templates, "chat template"
    if not found.in_checkpoint:
        figure = f"{figures.checkpoint} has none" + (", the file has one" if found.in_file else "")
        cause = "an instruct model is trained with a template"
        return Finding(name, "warning", figure, cause, "name the checkpoint that was trained")
    if not found.in_file:
        return Finding(name, "fault", "the file has none", "the draft reads prompts that it was not trained on", _AGAIN)
    figure = f"{found.alike} of {found.count} conversations rendered alike"
    figure += f", {found.refused} refused by both" if found.refused else ""
    if found.alike + found.refused == found.count:
        return Finding(name, "ok", figure)
    cause = "the draft reads other prompts than in training"
    return Finding(name, "fault", f"{figure}; {found.example}", cause, _AGAIN)


def _tokens(figures: DraftFigures) -> Finding:
    found, name = figures.tokens, "tokens"
    figure = f"{found.alike} of {found.count} rendered conversations cut alike"
    if found.alike == found.count:
        return Finding(name, "ok", figure)
    if found.alike + found.but_bos == found.count:
        return Finding(
            name,
            "warning",
            f"{figure}, {found.but_bos} but for BOS in front",
            "llama.cpp puts BOS before each prompt, and the template does not",
            "let the template begin with bos_token before training, or set add_bos_token to false in "
            "tokenizer_config.json and convert again",
        )
    cause = "the file's tokenizer is not the checkpoint's"
    return Finding(name, "fault", f"{figure}; {found.example}", cause, _AGAIN)


def _end_tokens(figures: DraftFigures) -> Finding:
    found, name = figures.ends, "end tokens"
    trained = ", ".join(found.trained) or "none"
    figure = f"a reply ends with {found.turn or 'no token'} in training; the checkpoint's ends: {trained}"
    figure += f"; EOS of the file: {found.file_end or 'none'}"
    to_do = "set eos_token in tokenizer_config.json and eos_token_id in generation_config.json, and convert again"
    if found.turn is not None and not found.turn_ends:
        cause = f"llama.cpp does not end at {found.turn}: replies run on into another turn"
        return Finding(name, "fault", figure, cause, to_do)
    if not found.known:
        cause = f"{found.file_end or 'no token'} ends a reply of the file, and none of the checkpoint"
        return Finding(name, "fault", figure, cause, to_do)
    if found.turn is None and figures.templates.in_checkpoint:
        cause = "the template puts no end after a reply, so that training teaches none"
        remedy = "let the template write eos_token after each reply, and train again"
        return Finding(name, "warning", figure, cause, remedy)
    if found.missing:
        return Finding(name, "warning", figure, f"llama.cpp does not end at {', '.join(found.missing)}", to_do)
    return Finding(name, "ok", figure)


# -- weights ---------------------------------------------------------------------------------------------------


def _vocabulary(figures: DraftFigures) -> Finding:
    found, name = figures.sizes, "vocabulary"
    padding = max(0, found.rows - found.tokens)
    figure = (
        f"{found.tokens} tokens and {found.rows} rows in the checkpoint ({padding} of padding), {found.file_tokens} "
        f"tokens and {found.file_rows} rows in the file"
    )
    if found.file_tokens == found.file_rows == found.rows:
        return Finding(name, "ok", figure)
    if found.file_tokens == found.file_rows and found.tokens <= found.file_tokens:
        cause = "only padding differs, which no text uses"
        return Finding(name, "warning", figure, cause, f"where logits are compared with other models, {_AGAIN}")
    cause = "tokens are missing" if found.file_tokens < found.tokens else "tokens and weights do not belong together"
    return Finding(name, "fault", figure, cause, _AGAIN)


def _output(figures: DraftFigures) -> Finding:
    found, name = figures.output, "output layer"
    figure = f"{'tied to' if found.tied else 'apart from'} the input embeddings in the checkpoint, "
    figure += "a tensor of its own in the file" if found.own else "none of its own in the file"
    if found.difference is not None:
        figure += f" that differs from them by {found.difference:.3f}"
    if found.own != found.tied:
        return Finding(name, "ok", figure)
    if not found.own:
        cause = "llama.cpp uses the input embeddings instead of the output that was trained"
        return Finding(name, "fault", figure, cause, f"set tie_word_embeddings to false in config.json, and {_AGAIN}")
    if found.difference is not None and found.difference <= SAME_OUTPUT:
        return Finding(name, "warning", figure, "the same weights are there twice", f"to save memory, {_AGAIN}")
    cause = "transformers uses the input embeddings, and llama.cpp this output"
    return Finding(name, "fault", figure, cause, "save the merged model without lm_head.weight, and convert again")


def _positions(figures: DraftFigures) -> Finding:
    found, name = figures.positions, "positions"
    figure = f"scaling {found.kind}, base {found.base or 10000:g} in the checkpoint; {found.file_kind}, base "
    figure += f"{found.file_base:g} in the file"
    if found.factors or found.file_factors:
        figure += f"; {found.file_factors} of {found.factors} factors (rope_freqs)"
    if found.difference is not None:
        figure += f", which differ by {found.difference:.1g} at most"
    wrong = None
    if found.factors and not found.file_factors:
        wrong = "the factors of Llama 3's scaling are missing: long texts are read at wrong positions"
    elif found.factors != found.file_factors or (found.difference or 0.0) > SAME_POSITIONS:
        wrong = "the file has other factors than the checkpoint's scaling"
    elif found.kind in ("linear", "yarn", "longrope", "default") and found.kind != found.file_kind:
        wrong = "the file scales positions in another way"
    elif found.base is not None and abs(found.file_base / found.base - 1) > SAME_POSITIONS:
        wrong = "the angles of positions have another base"
    return Finding(name, "ok", figure) if wrong is None else Finding(name, "fault", figure, wrong, _AGAIN)


def tolerance(bits: float) -> float:
    """The mean divergence from transformers, in nats, that a file of so many bits a weight may have."""
    return next(most for least, most in TOLERANCES if bits >= least)


def _logits(found: Logits) -> Finding:
    name, most = f"logits of {found.file}", tolerance(found.bits)
    if found.divergence is None or found.agreement is None or found.largest is None:
        return Finding(name, "fault", "not comparable: the file has another vocabulary", _OTHER, _AGAIN)
    figure = (
        f"divergence from transformers {found.divergence:.2g} nats (at most {most:g} with {found.bits:.1f} bits a "
        f"weight), same first choice at {found.agreement:.1%} of {found.positions} positions, log-probabilities differ "
        f"by {found.largest:.2g} at most"
    )
    if found.divergence <= most:
        return Finding(name, "ok", figure)
    remedy = f"{_AGAIN}; where only the quantised file differs, quantise to more bits"
    return Finding(name, "fault", figure, f"the weights are not the checkpoint's: {_OTHER}", remedy)


def _endings(figures: DraftFigures) -> Finding:
    found, name = figures.endings, "endings"
    figure = f"{found.ended} of {found.count} replies ended by themselves within {found.tokens} tokens; probability of "
    figure += f"an end after a whole answer {found.probability:.2f}"
    if found.ended >= HALF * found.count:
        return Finding(name, "ok", figure)
    if found.ended or found.probability >= UNENDING:
        remedy = "--draft-max-tokens bounds it; train on shorter replies, or on more pairs"
        return Finding(name, "warning", figure, "the draft is long-winded", remedy)
    cause = "the draft does not know how a reply ends"
    return Finding(name, "fault", figure, cause, "see end tokens above; else train longer, or from an instruct model")


_BEFORE: Sequence[Callable[[DraftFigures], Finding]] = (
    _template,
    _tokens,
    _end_tokens,
    _vocabulary,
    _output,
    _positions,
)
"""What is judged before the logits, in the order of the lines."""
