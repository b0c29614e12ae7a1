"""How far a run has come, on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wsd_local.cli import terminal
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.datasets.batch import Batch

_REPORT_EVERY_S = 10.0
"""Between two lines of progress where there is no terminal."""


class Reporter:
    """Standard error: a bar on a terminal, lines elsewhere, only failures if quiet."""

    def __init__(self, quiet: bool) -> None:
        self._console = terminal.console(stderr=True)
        self._shows = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._status = self._console.status("") if self._shows else None

    def note(self, line: str) -> None:
        """A line that stays, unless quiet."""
        if not self._quiet:
            self.report(line)

    def report(self, line: str) -> None:
        """A line that stays."""
        self.close()
        terminal.message(line)

    def wait(self, message: str) -> None:
        """What is being waited for."""
        if self._status is not None:
            self._status.update(message)
            self._status.start()

    def transfer(self, done: int, _total: int, _phase: str) -> None:
        """A data set is being fetched."""
        self.wait(f"fetching the data set: {done >> 10} KiB")

    def close(self) -> None:
        """Remove what is shown about waiting."""
        if self._status is not None:
            self._status.stop()

    @contextmanager
    def working(self, batch: Batch, parallel: int) -> Iterator[Callable[[int], None]]:
        """Show how far a run has come; call what this gives with the number of switches so far."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.close()
        begun = reported = time.monotonic()
        bar = Progress(
            TextColumn("{task.completed}/{task.total} replies"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._shows,
        )
        first = batch.done
        task = bar.add_task("replies", total=batch.total, completed=first, rates="")

        def tick(switched: int) -> None:
            nonlocal reported
            now = time.monotonic()
            text = f"{_rate(batch, now - begun)} · {plural(switched, 'switch')}"
            bar.update(task, completed=batch.done, rates=text)
            if not self._quiet and not self._shows and now - reported >= _REPORT_EVERY_S:
                reported = now
                left = (batch.total - batch.done) * (now - begun) / max(batch.done - first, 1)
                terminal.message(
                    f"{batch.done}/{plural(batch.total, 'reply')} · {text} · {parallel} at once · {left:.0f} s left"
                )

        with bar:
            yield tick
        if not self._quiet:
            seconds = time.monotonic() - begun
            rate = _rate(batch, seconds)
            terminal.message(f"{batch.done}/{plural(batch.total, 'reply')} in {seconds:.1f} s, {rate}")

    @contextmanager
    def counting(self, what: str, total: int, first: int) -> Iterator[Callable[[int], None]]:
        """Show how many of `total` things are done, `first` from the start; call what this gives with the number."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.close()
        begun = reported = time.monotonic()
        bar = Progress(
            TextColumn(f"{{task.completed}}/{{task.total}} {plural(2, what).partition(' ')[2]}"),
            BarColumn(bar_width=12),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._shows,
        )
        task = bar.add_task(what, total=total, completed=first)

        def tick(done: int) -> None:
            nonlocal reported
            now = time.monotonic()
            bar.update(task, completed=done)
            if not self._quiet and not self._shows and now - reported >= _REPORT_EVERY_S:
                reported = now
                left = (total - done) * (now - begun) / max(done - first, 1)
                terminal.message(f"{done}/{plural(total, what)} · {left:.0f} s left")

        with bar:
            yield tick


def _rate(batch: Batch, seconds: float) -> str:
    """The run's throughput so far: tokens of its replies over the seconds since it began."""
    return f"{batch.tokens / max(seconds, 1e-3):.1f} tokens/s"
