"""How a reply looks on the terminal and in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text as Shown

from wsd_local.cli import terminal
from wsd_local.cli.aside import Aside
from wsd_local.core.rule_settings import ENDING
from wsd_local.events import RETURNS, Event, Notice, Reading, Returned, Source, Switched, Text
from wsd_local.files import HashProgress
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.system.visible import CONTEXT, visible
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.placement.plan import Plan


@contextmanager
def hashing_bar() -> Iterator[HashProgress]:
    """A progress bar for hashing files, on standard error if that is a terminal."""
    from rich.progress import Progress

    console = terminal.console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("hashing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


STYLES = {"draft": Style(color="cyan", italic=True), "base": Style()}


class Printer:
    """Prints events as they come: text to standard output, everything else to standard error."""

    def __init__(self, *, as_json: bool, tokens: bool, trace: bool) -> None:
        self._json, self._tokens, self._trace = as_json, tokens, trace
        self._out = Console(highlight=False, markup=False, emoji=False)
        """Its texts are visible already."""
        self._err = terminal.console(stderr=True)
        self._coloured = trace and self._out.is_terminal and not as_json
        self._status = self._err.status("") if self._err.is_terminal else None
        self._begun = False
        self._written = "\n"
        """The end of what was written to standard output."""
        self._late: list[str] = []
        shared = self._err.is_terminal and self._out.is_terminal and not as_json
        self._aside = Aside(self._out.width) if shared else None

    def loading(self, role: Source, fraction: float) -> None:
        """A model is being loaded."""
        self._wait(f"loading the {role} model: {fraction:.0%}")

    def hashing(self, done: int, total: int) -> None:
        """A file is being hashed."""
        self._wait(f"hashing the models, once: {done / max(total, 1):.0%}")

    def planned(self, plan: Plan | None) -> None:
        """Say what was given up to fit into memory: always if it changes replies, else with `--trace`."""
        if plan is not None:
            self._clear()
            for line in (*plan.given_up, *(plan.speed_given_up if self._trace else ())):
                terminal.message(line)

    def preparing(self) -> None:
        """A vocabulary is read for a constraint."""
        self._wait("reading the vocabulary for the constraint")

    def _wait(self, message: str) -> None:
        if self._status is not None and (not self._begun or not self._out.is_terminal):
            self._status.update(message)
            self._status.start()

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Notice):
            self._clear()
            self._late.append(event.message)
            self._print_notices()
        elif isinstance(event, Reading):
            self._reads(event)
        elif isinstance(event, Finished):
            self._clear()
            self._finish(event.reply)
        elif isinstance(event, Text) and not self._json:
            self._clear()
            self._write(event)
        elif isinstance(event, Switched | Returned) and self._coloured:
            self._mark(event)

    def _mark(self, event: Switched | Returned) -> None:
        """Why the writer changes, in the text."""
        confidence = "" if event.confidence is None else f" {event.confidence:.2f}"
        self._out.print(f"▐{event.reason}{confidence}▌", style=Style(reverse=True), end="", soft_wrap=True)

    def _reads(self, event: Reading) -> None:
        """A model reads a long prompt; after the first text this is shown at the end of the line."""
        note = visible(f"{event.model} reads {event.done:,} of {event.total:,} tokens", keep_newlines=False)
        if event.done >= event.total:
            self._clear()
        elif self._aside is None or not self._begun:
            self._wait(note)
        else:
            self._aside.show(note)

    def close(self) -> None:
        """Nothing follows, not even on the answer's line of a terminal."""
        self._clear()
        if self._is_open and self._out.is_terminal:
            self._end_line()
        self._print_notices()

    @property
    def _is_open(self) -> bool:
        """Whether the answer's last line has no end yet."""
        return not self._written.endswith("\n")

    def _print_notices(self) -> None:
        """Print the notices that came, unless they would land in the answer's line."""
        if self._is_open and self._out.is_terminal:
            return
        while self._late:
            terminal.message(self._late.pop(0))

    def _end_line(self) -> None:
        terminal.write("\n")
        sys.stdout.flush()
        self._written = "\n"

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
        if self._aside is not None:
            self._aside.clear()

    def _write(self, event: Text) -> None:
        self._begun = True
        if self._coloured:
            text = Shown(visible(event.text, before=self._written), STYLES[event.source])
            self._out.print(text, end="", soft_wrap=True)
        else:
            terminal.write(event.text, before=self._written)
        self._written = (self._written + event.text)[-CONTEXT:]
        sys.stdout.flush()
        if self._aside is not None:
            self._aside.written(visible(event.text))

    def _finish(self, reply: Reply) -> None:
        if self._json:
            terminal.json_line(reply.as_dict(tokens=self._tokens))
        elif self._is_open:
            self._end_line()
        sys.stdout.flush()
        self._print_notices()
        if self._trace:
            terminal.note(summary(reply))


def summary(reply: Reply) -> str:
    """One line about a reply: who opened, who continued, where and why they changed places, how fast."""
    switch, times = reply.switch, reply.timings
    parts = [_authors(reply)]
    if switch.reason != "none":
        at = "" if switch.index is None else f" at token {switch.index}"
        confidence = "" if switch.confidence is None else f", confidence {switch.confidence:.3f}"
        rule = "" if switch.rule == "window" else f"rule {switch.rule}, "
        window = "" if switch.rule in ENDING else f"window {switch.window}, "
        parts.append(f"switch: {switch.reason}{at}{confidence} ({rule}{window}threshold {switch.threshold:g})")
    if returns := sum(turn.reason in RETURNS for turn in reply.turns):
        parts.append(plural(returns, "return") + " of the draft")
    if reply.speculation.rounds:
        parts.append(
            f"{reply.speculation.accepted_tokens} of {reply.speculation.proposed_tokens} proposed tokens taken"
        )
    if reused := sum(reply.cached.values()):
        read = sum(map(len, reply.prompt_ids.values()))
        parts.append(f"{reused:,} of {read:,} prompt tokens were kept")
    if times.first_text_s is not None:
        parts.append(f"first text {times.first_text_s:.2f} s")
    parts.append(f"total {times.total_s:.2f} s, {reply.finish_reason}")
    return " · ".join(part for part in parts if part)


def _authors(reply: Reply) -> str:
    """Who wrote the text; a model of whose tokens nothing is in it wrote nothing."""
    wrote = [(part.model, part.tokens) for part in (reply.draft, reply.base) if part.model is not None and part.tokens]
    verbs = ("opened", "continued") if len(wrote) == 2 else ("written",)
    return " · ".join(
        f"{verb} by {model} ({plural(tokens, 'token')})" for verb, (model, tokens) in zip(verbs, wrote, strict=False)
    )
