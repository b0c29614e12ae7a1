"""What `wsd-local run --input` was called with, and the pair that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsd_local.cli.options import DataSetOptions
from wsd_local.errors import CancelledError

if TYPE_CHECKING:
    from wsd_local.cli.progress import Reporter
    from wsd_local.runtime.pair import Pair
    from wsd_local.runtime.reply import Reply
    from wsd_local.system.interrupt import Stop

SOME_FAILED = 5
"""Exit code where some records could not be answered."""


@dataclass(frozen=True, slots=True)
class DataSetTask:
    """A data set to answer, and with what."""

    data: DataSetOptions
    tokens: bool
    system: str | None
    pair: str | None
    models: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


def load_pair(task: DataSetTask, parallel: int, reporter: Reporter, interrupt: Stop, stack: ExitStack) -> Pair:
    """The pair, loaded and hashed, closed with `stack`.

    Raises:
        CancelledError: a signal came.
        WsdError: it cannot be loaded.
    """
    from wsd_local.events import Source
    from wsd_local.runtime.pair import load

    def loading(role: Source, fraction: float) -> bool:
        reporter.wait(f"loading the {role} model: {fraction:.0%}")
        return not interrupt.requested

    pair = stack.enter_context(
        load(task.pair, progress=loading, **task.models, **{**task.settings, "parallel": parallel})
    )
    interrupt.on_request(pair.cancel)
    for line in () if pair.models.plan is None else pair.models.plan.given_up:
        reporter.report(line)

    def hashing(done: int, total: int) -> None:
        reporter.wait(f"hashing the models, once: {done / max(total, 1):.0%}")
        if interrupt.requested:
            raise CancelledError("interrupted")

    pair.models.hash_files(hashing)
    return pair


def keep_prompts(pair: Pair, reporter: Reporter) -> None:
    """Save what was read for later runs, if that pays."""
    if (trouble := pair.keep_prompts()) is not None:
        reporter.report(trouble)


def is_cut(reply: Reply) -> bool:
    """Whether a reply ends before it followed its constraint to the end."""
    return reply.constraint is not None and not reply.constraint.complete


def report_cut(reporter: Reporter, cut: int) -> None:
    """Report how many replies were cut, if any."""
    if cut:
        replies = "1 reply was" if cut == 1 else f"{cut} replies were"
        reporter.report(
            f'{replies} cut before the constraint was followed to its end: "constraint": {{"complete": false}}'
        )
