"""Training in a process of its own: started, followed, stopped.

Contract: the process is killed to stop it; what its checkpoints hold stays, and the same job goes on from there. The
log of a training is a file of JSON lines in its folder, without what a continued training has done again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path
from typing import Any

from wsd_local.errors import FitError, WsdError
from wsd_local.files import write_text
from wsd_local.system.child import Stoppable, cause, run
from wsd_local.system.extras import install_command
from wsd_local.training.worker import MARK, last_checkpoint
from wsd_local.units import gib

EXTRA = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
LOG = "log.jsonl"
_COMPLAINT = re.compile(r"(?:[\w.]*(?:Error|Exception|Failure)): (?P<what>.+)")
_NAMES = {
    "loss": "loss",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "eval_loss": "validation_loss",
    "eval_rewards/margins": "validation_margin",
    "eval_rewards/accuracies": "validation_accuracy",
}
"""Values of the trainer's log that are kept, by their names there."""


@dataclass(slots=True)
class Training:
    """What is known of a training while it runs: `on_event` is called with each report of the process."""

    folder: Path
    on_event: Callable[[dict[str, Any]], None]
    memory: dict[str, int] = field(default_factory=dict)
    fault: str | None = None
    trained: bool = False


def require_extra() -> None:
    """Raise `WsdError` unless what training needs is installed."""
    missing = [name for name in EXTRA if util.find_spec(name) is None]
    if missing:
        raise WsdError(f"training needs {', '.join(missing)}; install with: {install_command('train-draft')}")


def train(folder: Path, on_event: Callable[[dict[str, Any]], None], stoppable: Stoppable) -> None:
    """Train the job in a folder, from its last checkpoint.

    Raises:
        FitError: the memory does not suffice.
        CancelledError: it was stopped.
        WsdError: the trainer failed.
    """
    _cut_log(folder)
    training = Training(folder, on_event)
    code, lines = run(["wsd_local.training.worker", str(folder)], lambda line: _follow(training, line), stoppable)
    needed, free = training.memory.get("needed", 0), training.memory.get("free", 0)
    if needed > free:
        raise FitError(
            f"training needs about {gib(needed)} of memory and {gib(free)} are free: lower --cutoff or --batch, train "
            "an adapter (without --full), or choose a smaller model"
        )
    if not training.trained:
        raise WsdError(f"the training failed: {training.fault or cause(code, lines, _COMPLAINT)}")


def steps_done(folder: Path) -> int:
    """Steps of a training that are in its last checkpoint."""
    found = last_checkpoint(folder)
    return 0 if found is None else int(found.name.rpartition("-")[2])


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The log of a training: a value of the kinds `loss`, `margin`, … for some of the steps."""
    path = folder / LOG
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]  # the last line may be torn
    return [json.loads(line) for line in lines]


def _cut_log(folder: Path) -> None:
    """Leave out what a training that goes on will do again."""
    done = steps_done(folder)
    kept = [line for line in read_log(folder) if line["step"] <= done]
    write_text(folder / LOG, "".join(f"{json.dumps(line)}\n" for line in kept))


def _follow(training: Training, line: str) -> None:
    if not line.startswith(MARK):
        return
    event = json.loads(line.removeprefix(MARK))
    kind = event["kind"]
    if kind == "memory":
        training.memory = {"needed": event["needed"], "free": event["free"]}
    elif kind == "fault":
        training.fault = event["text"]
    elif kind == "trained":
        training.trained = True
    elif kind == "log":
        values = {ours: event["values"][name] for name, ours in _NAMES.items() if name in event["values"]}
        event["values"] = values
        if values:
            with (training.folder / LOG).open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps({'step': event['step'], **values})}\n")
    training.on_event(event)
