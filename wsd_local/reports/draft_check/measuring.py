"""Measures a GGUF file against the checkpoint that it was made of.

Contract: nothing is printed and nothing judged. Transformers works first, in a process of its own, then llama.cpp here,
so that never both have the weights in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsd_local.core.alignment import common_prefix
from wsd_local.errors import RefusedError, printable, short
from wsd_local.library.checkpoint import Checkpoint
from wsd_local.library.gguf import Header, read_model
from wsd_local.llama import Model
from wsd_local.prompts.draft_format import template_values
from wsd_local.prompts.templates import Template
from wsd_local.reports.draft_check import tensors
from wsd_local.reports.draft_check.conversations import CONVERSATIONS
from wsd_local.reports.draft_check.figures import (
    DraftFigures,
    Ends,
    Output,
    Positions,
    Sizes,
    Templates,
    Tokens,
)
from wsd_local.reports.draft_check.loaded import LoadedFile
from wsd_local.reports.draft_check.reference import Reference, reference_of
from wsd_local.settings import LoadSettings
from wsd_local.system.child import UNOBSERVED, Observer

_NEVER_IN_TEXT = "\ufdd0"
_AROUND = 24


def measure(
    checkpoint: Checkpoint,
    file: Path,
    unquantised: Path | None = None,
    *,
    observer: Observer = UNOBSERVED,
    **settings: Any,
) -> DraftFigures:
    """All figures of a file.

    Args:
        checkpoint: what the file was made of.
        file: the file.
        unquantised: the file before it was quantised, whose logits are compared too.
        observer: sees the progress, and can stop the work.
        settings: how the files are loaded, by the names of `LoadSettings`.

    Raises:
        ModelError: the checkpoint or a file cannot be used.
        FitError: the checkpoint does not fit into memory in 32 bits.
        CancelledError: it was stopped.
    """
    headers = read_model(file)
    reference = reference_of(checkpoint, observer, settings.get("threads"))
    return measured(reference, headers, unquantised, observer=observer, **settings)


def measured(
    reference: Reference,
    headers: tuple[Header, ...],
    unquantised: Path | None = None,
    *,
    observer: Observer = UNOBSERVED,
    **settings: Any,
) -> DraftFigures:
    """All figures of a file whose headers these are, against what transformers made of the checkpoint."""
    loading = LoadSettings(**{"n_gpu_layers": -1, **settings})
    file = headers[0].path
    logits = []
    if unquantised is not None:
        with LoadedFile(unquantised, loading, observer) as loaded:
            logits.append(loaded.logits(reference))
    with LoadedFile(file, loading, observer) as loaded:
        logits.append(loaded.logits(reference))
        return DraftFigures(
            checkpoint=reference.name,
            file=file.name,
            templates=_templates(reference, loaded.model),
            tokens=_tokens(reference, loaded.model),
            ends=_ends(reference, loaded.model),
            sizes=_sizes(reference, headers, loaded.model),
            output=_output(reference, headers),
            positions=_positions(reference, headers),
            logits=tuple(logits),
            endings=loaded.endings(),
        )


# -- text ------------------------------------------------------------------------------------------------------


def _templates(reference: Reference, model: Model) -> Templates:
    """How the file's template renders the conversations."""
    answer, source = reference.answer, model.chat_template
    alike = refused = 0
    example = ""
    if not answer["has_template"] or source is None:
        return Templates(answer["has_template"], source is not None, len(CONVERSATIONS), 0, 0)
    template = Template()
    try:
        template.compile(source, f"{model.path}: the chat template")
        for conversation, theirs in zip(CONVERSATIONS, answer["rendered"], strict=True):
            values = {**template_values(model), "add_generation_prompt": conversation.generation}
            try:
                text, _ = template.render([conversation.messages], values, reference.now)
            except RefusedError as error:
                refused += "refused" in theirs
                found = "" if "refused" in theirs else f"the file's template {error.reason}"
            else:
                found = "transformers refuses it" if "refused" in theirs else _difference(theirs["text"], text)
                alike += not found
            if found and not example:
                example = f"{conversation.about}: {found}"
    finally:
        template.close()
    return Templates(True, True, len(CONVERSATIONS), alike, refused, example)


def _difference(theirs: str, ours: str) -> str:
    """Where two texts differ, empty if they do not."""
    if theirs == ours:
        return ""
    start = max(0, common_prefix(*([ord(sign) for sign in text] for text in (theirs, ours))) - _AROUND // 2)
    one, other = (short(printable(text[start : start + _AROUND])) for text in (theirs, ours))
    return f"{one} in transformers, {other} in the file"


def _tokens(reference: Reference, model: Model) -> Tokens:
    """How both cut what transformers rendered."""
    rendered = [one for one in reference.answer["rendered"] if "tokens" in one]
    same = but_bos = 0
    example = ""
    for one in rendered:
        ours, theirs = model.tokenize_template(one["text"], _NEVER_IN_TEXT), one["tokens"]
        if ours == theirs:
            same += 1
        elif model.bos is not None and ours == [model.bos, *theirs]:
            but_bos += 1
        elif not example:
            at = common_prefix(theirs, ours)
            example = f"{_pieces(model, theirs[at:])} in transformers, {_pieces(model, ours[at:])} in the file"
    return Tokens(len(rendered), same, but_bos, example)


def _pieces(model: Model, tokens: Sequence[int]) -> str:
    """The first of some tokens, as they are written."""
    return " ".join(short(printable(model.spelled_out([t]))) if t < model.n_vocab else f"token {t}" for t in tokens[:3])


def _ends(reference: Reference, model: Model) -> Ends:
    found = reference.answer["ends"]

    def spelled(token: int) -> str:
        return printable(found["spelled"][str(token)])

    turn, own = found["turn"], {*found["tokenizer"], *found["listed"]}
    text = model.special_spelling("eos")
    file_end = next((token for token in model.eog_tokens if model.spelling(token) == text), None)
    return Ends(
        turn=None if turn is None else spelled(turn),
        turn_ends=turn is not None and turn < model.n_vocab and model.is_eog(turn),
        trained=tuple(spelled(token) for token in sorted(own)),
        missing=tuple(spelled(t) for t in sorted(own) if t != turn and not (t < model.n_vocab and model.is_eog(t))),
        file_end=printable(text),
        known=file_end is not None and file_end in {*own, turn},
    )


# -- weights ---------------------------------------------------------------------------------------------------


def _sizes(reference: Reference, headers: tuple[Header, ...], model: Model) -> Sizes:
    sizes, embedding = reference.answer["vocabulary"], tensors.found(headers, tensors.EMBEDDING)
    rows = 0 if embedding is None else embedding[1].shape[-1]
    return Sizes(sizes["tokens"], sizes["rows"], model.n_vocab, rows)


def _output(reference: Reference, headers: tuple[Header, ...]) -> Output:
    own = tensors.found(headers, tensors.OUTPUT) is not None
    return Output(reference.answer["tied"], own, tensors.output_difference(headers))


def _positions(reference: Reference, headers: tuple[Header, ...]) -> Positions:
    asked, first = reference.answer["positions"], headers[0]
    wanted, factors = np.array(asked["factors"]), tensors.factors(headers)
    difference = None
    if len(wanted) and len(wanted) == len(factors):
        difference = float(np.max(np.abs(factors / wanted - 1)))
    base = first.metadata.get(f"{first.architecture}.rope.freq_base", 10000.0)
    scaling = first.text(f"{first.architecture}.rope.scaling.type")
    return Positions(
        kind=asked["kind"],
        base=asked["theta"],
        file_kind="default" if scaling in (None, "none") else printable(str(scaling)),
        file_base=float(base) if isinstance(base, int | float) else float("nan"),
        factors=len(wanted),
        file_factors=len(factors),
        difference=difference,
    )
