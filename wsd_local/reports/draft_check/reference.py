"""What transformers makes of a checkpoint, asked of a process of its own.

Contract: the process (`wsd_local.training.reference`) has ended, and its memory is free, when `reference_of` returns.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsd_local.errors import FitError, ModelError, WsdError
from wsd_local.library.checkpoint import Checkpoint, weights
from wsd_local.prompts.thinking import NO_THINKING
from wsd_local.reports.draft_check.conversations import CONVERSATIONS, READ
from wsd_local.system.child import Observer, cause, run
from wsd_local.system.extras import install_command
from wsd_local.training.reference import ANSWER, REQUEST, ROWS
from wsd_local.training.worker import MARK
from wsd_local.units import gib

POSITIONS, LONGEST = 16, 512
"""Positions at the end of each prompt whose log-probabilities are compared, and tokens of a prompt at most."""
_COMPLAINT = re.compile(r"(?:[\w.]*(?:Error|Exception|Failure)): (?P<what>.+)")
_LIBRARIES = 1 << 30
"""Bytes that torch and transformers take beside the weights, about."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens that both models read, and transformers' log-probabilities at its last positions, a row for each."""

    tokens: list[int]
    rows: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reference:
    """A checkpoint as transformers has it: `answer` is what the process wrote, `now` the time that templates insert."""

    name: str
    answer: Mapping[str, Any]
    now: datetime
    prompts: tuple[Prompt, ...]


def require_extra() -> None:
    """Raise `WsdError` unless what reads checkpoints is installed."""
    missing = [name for name in ("torch", "transformers") if util.find_spec(name) is None]
    if missing:
        raise WsdError(f"checking a draft needs {' and '.join(missing)}; install with: {install_command('convert')}")


def reference_of(checkpoint: Checkpoint, observer: Observer, threads: int | None = None) -> Reference:
    """Let transformers render, cut and read what a file is compared by, on so many CPU threads.

    Raises:
        ModelError: the checkpoint is damaged, or transformers cannot read it.
        FitError: its weights do not fit into memory in 32 bits.
        CancelledError: it was stopped.
    """
    import psutil

    needed, free = weights(checkpoint.folder).total() * 4 + _LIBRARIES, psutil.virtual_memory().available
    if needed > free:
        raise FitError(
            f"{checkpoint.folder}: transformers needs about {gib(needed)} of memory to read it in 32 bits, and "
            f"{gib(free)} are free; close other programs, or check it on a larger machine"
        )

    def follow(line: str) -> None:
        if line.startswith(MARK) and (event := json.loads(line.removeprefix(MARK)))["kind"] == "step":
            observer.progress(event["what"], event["done"])

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / REQUEST).write_text(json.dumps(_request(checkpoint.folder, threads)), encoding="utf-8")
        code, lines = run(["wsd_local.training.reference", made], follow, observer.stoppable)
        if code != 0:
            raise ModelError(
                f"{checkpoint.folder}: cannot be read by transformers: {cause(code, lines, _COMPLAINT)}; name a whole "
                "checkpoint with its tokenizer"
            )
        answer = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
        rows = np.load(folder / ROWS)
    ends = np.cumsum([one["rows"] for one in answer["prompts"]]).tolist()
    prompts = tuple(
        Prompt(one["tokens"], rows[end - one["rows"] : end]) for one, end in zip(answer["prompts"], ends, strict=True)
    )
    return Reference(checkpoint.name, answer, datetime.fromisoformat(answer["now"]), prompts)


def _request(folder: Path, threads: int | None) -> dict[str, Any]:
    return {
        "checkpoint": str(folder.absolute()),
        "threads": threads,
        "conversations": [{"messages": one.messages, "generation": one.generation} for one in CONVERSATIONS],
        "prompts": READ,
        "values": NO_THINKING,
        "positions": POSITIONS,
        "longest": LONGEST,
    }
