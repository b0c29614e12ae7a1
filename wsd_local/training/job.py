"""One training as values: what is trained on what and how, where it is kept, and what it needs in memory.

Contract: pure but for `Job.save` and `read_job`. A job's folder holds everything that a training makes until its model
is converted, so that a training that was stopped can go on: the same settings, or it is another training.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from wsd_local.errors import UsageError
from wsd_local.files import write_text
from wsd_local.system.inputs import read_json

Method = Literal["dpo", "sft"]
"""What is learned: preferring one reply to another, or writing the preferred one."""
RATES: dict[Method, float] = {"dpo": 5e-6, "sft": 1e-4}
"""Learning rates of LLaMA-Factory's published examples."""
_FILE = "job.json"
_LIBRARIES = 1 << 30
"""Bytes that torch and the other libraries take, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A training.

    Args:
        model: folder of the checkpoint; with `gguf` a file in it that is read instead.
        gguf: name of a GGUF file, None for a checkpoint.
        source: what the model and the pairs are, to recognise the same training.
        method: what is learned.
        full: train all weights, and no adapter.
        epochs: how often each pair is seen.
        max_steps: steps after which the training ends; None: after all epochs.
        learning_rate: the largest one.
        beta: how much departing from the model as it was costs.
        rank: of the adapter.
        cutoff: tokens of a conversation and a reply at most.
        batch: pairs that are evaluated together.
        accumulation: batches of one step.
        save_every: steps between two checkpoints.
        seed: of the order and of the adapter's first weights.
        threads: CPU threads; None: torch decides.
        replaces: whether a draft of the same name may be replaced at the end.
        adapter_only: whether the adapter is what is wanted, and the model is not merged with it.
    """

    model: str
    gguf: str | None
    source: dict[str, str]
    method: Method = "dpo"
    full: bool = False
    epochs: float = 3.0
    max_steps: int | None = None
    learning_rate: float = 5e-6
    beta: float = 0.1
    rank: int = 8
    cutoff: int = 2048
    batch: int = 1
    accumulation: int = 8
    save_every: int = 50
    seed: int = 42
    threads: int | None = None
    replaces: bool = False
    adapter_only: bool = False

    @property
    def summary(self) -> str:
        """One sentence about it."""
        what = "all weights" if self.full else f"a LoRA adapter of rank {self.rank}"
        beta = f", beta {self.beta:g}" if self.method == "dpo" else ""
        return (
            f"{self.method.upper()} of {what}: learning rate {self.learning_rate:g}{beta}, {self.batch} x "
            f"{self.accumulation} pairs to a step, seed {self.seed}."
        )

    def save(self, folder: Path) -> None:
        """Write the job into its folder."""
        write_text(folder / _FILE, f"{json.dumps(asdict(self), indent=2)}\n")

    def check_same(self, other: Job) -> None:
        """Raise `UsageError` unless the other job goes on with the training of this one."""
        may_differ = ("model", "threads", "save_every", "max_steps", "replaces", "adapter_only")
        for field in fields(self):
            before, now = getattr(other, field.name), getattr(self, field.name)
            if field.name not in may_differ and before != now:
                raise UsageError(
                    f"--resume: {field.name.replace('_', '-')} is {now}, and the training began with {before}: give "
                    "what it began with, or begin again with --force"
                )


def read_job(folder: Path) -> Job:
    """The job of a folder.

    Raises:
        UsageError: there is none.
    """
    if not (folder / _FILE).is_file():
        raise UsageError(f"{folder}: no training began here: leave --resume out")
    values: dict[str, Any] = read_json(folder / _FILE)
    try:
        return Job(**values)
    except TypeError as error:
        raise UsageError(f"{folder / _FILE}: is of another version ({error}): begin again with --force") from error


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What decides how much memory a training needs."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int


def memory_needed(job: Job, size: ModelSize, tokens: int, bytes_per_weight: int) -> int:
    """Bytes that a training needs, about.

    Weights; for all of them gradients, two moments and the model as it was; for a batch of two replies the hidden
    states that are kept between layers, one layer's own, and three copies of the logits.

    Args:
        job: the training.
        size: the model's.
        tokens: of the longest conversation and reply.
        bytes_per_weight: 4 on a CPU, 2 on an accelerator.
    """
    weights = size.parameters * bytes_per_weight
    trained = size.parameters * 12 + weights if job.full else size.parameters // 50 * 16
    rows = 2 * job.batch * min(tokens, job.cutoff)
    states = rows * size.hidden * (size.layers + 40) * 4
    logits = rows * size.vocabulary * 3 * 4
    return weights + trained + states + logits + _LIBRARIES
