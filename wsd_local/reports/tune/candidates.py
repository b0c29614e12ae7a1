"""Drafts of other types of quantisation, made of the draft that is here.

Contract: files are made in a folder that the caller gives and removes. Making one is stopped when its time is over. A
type of the same name as the draft's own is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from wsd_local.errors import CancelledError, WsdError
from wsd_local.library.description import describe
from wsd_local.library.gguf import read_model
from wsd_local.library.quantize import quantize
from wsd_local.reports.tune.rounds import Deadline
from wsd_local.system.child import Observer, Stoppable

KINDS = ("Q8_0", "Q4_0", "Q4_K_M")
"""Types that llama.cpp has fast kernels for on most processors, the nearest to the source first."""
PLAIN = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft of another type, or why there is none."""

    kind: str
    path: Path | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """The draft's own file: its type, and whether quantising it loses a second time."""

    path: Path
    kind: str
    size: int

    @classmethod
    def of(cls, path: Path) -> Source:
        """Read its header.

        Raises:
            ModelError: it is damaged.
        """
        found = describe(read_model(path))
        return cls(path, found.quantization, found.size)

    @property
    def is_quantised(self) -> bool:
        """Whether its weights have been rounded before."""
        return self.kind not in PLAIN


def made(
    source: Source,
    folder: Path,
    deadline: Deadline,
    progress: Callable[[str, float], None],
    stoppable: Stoppable,
    kinds: Sequence[str] = KINDS,
) -> list[Candidate]:
    """Make a file of each type, as far as the time allows.

    Raises:
        CancelledError: the work was stopped.
    """
    found: list[Candidate] = []
    for kind in kinds:
        if kind == source.kind:
            continue
        if deadline.left <= 0:
            found.append(Candidate(kind, None, "no time was left to make it"))
            continue
        found.append(_made(source, folder / f"{kind}.gguf", kind, deadline, Observer(progress, stoppable)))
    return found


def _made(source: Source, path: Path, kind: str, deadline: Deadline, observer: Observer) -> Candidate:
    late = False
    timers: list[Timer] = []

    def stoppable(stop: Callable[[], None]) -> None:
        def over() -> None:
            nonlocal late
            late = True
            stop()

        observer.stoppable(stop)
        timer = Timer(max(deadline.left, 0.1), over)
        timer.daemon = True
        timers.append(timer)
        timer.start()

    try:
        quantize(source.path, path, kind, allow_requantize=True, observer=Observer(observer.progress, stoppable))
    except CancelledError:
        if not late:
            raise
        return Candidate(kind, None, "no time was left to make it")
    except WsdError as error:
        return Candidate(kind, None, str(error))
    finally:
        for timer in timers:
            timer.cancel()
    return Candidate(kind, path)
