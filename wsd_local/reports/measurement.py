"""Everything that `wsd-local bench` measures, several times, and the report of it.

Contract: nothing is printed. Within a repetition each section is measured once, in the same order, so that quotients of
its figures see the same load of the machine. Memory is measured before the sections that have contexts of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from wsd_local.library.naming import name_of
from wsd_local.llama.options import default_threads
from wsd_local.placement.plan import HOST, Plan, load_mode
from wsd_local.reports.bench import TURNS, Bench
from wsd_local.reports.bench_more import MORE, many_at_once, second_question
from wsd_local.reports.contention import Elsewhere, Watch
from wsd_local.reports.figures import MEMORY, PARTS, WHOLE, Comparison, Figures, Row, rows, sums
from wsd_local.runtime.reply import Reply

SESSION = (Comparison(f"first text, turn {TURNS}", f"turn_{TURNS}_s", "s", "turn 2", "turn_2_s", 1.2),)


def memory(plan: Plan | None, resident_before: int, resident_now: int) -> Figures:
    """Growth of resident memory since before a pair was loaded, and the bytes of weights and KV caches in it.

    Nothing without a plan, as when `n_gpu_layers` is given: then what the machine's own memory holds is unknown.
    """
    if plan is None:
        return {}
    use = [placement.use[HOST] for placement in plan.placements.values()]
    needed = sum(one["weights"] + one["cache"] for one in use)
    return {"resident_bytes": resident_now - resident_before, "needed_bytes": needed}


def about(bench: Bench) -> dict[str, Any]:
    """What was measured on: models, lengths, how they were loaded, and what the newest reply was."""
    pair, reply = bench.pair, bench.reply
    placements = {} if pair.models.plan is None else pair.models.plan.placements
    modes = {role: load_mode(placements[role]) for role in placements}
    return {
        "models": {role: name_of(pair.models.model(role)) for role in bench.prompts},
        "files": {role: str(pair.models.paths[role]) for role in bench.prompts},
        "load_mode": modes if pair.models.loading.load_mode == "auto" else pair.models.loading.load_mode,
        "gpu_layers": {role: placement.gpu_layers for role, placement in placements.items()},
        "threads": pair.models.loading.threads or default_threads(),
        "check_chunk": bench.chunk,
        "tokens": bench.tokens,
        "prompt_tokens": {role: len(prompt) for role, prompt in bench.prompts.items()},
        "reply": None if reply is None else _described(reply),
    }


def _described(reply: Reply) -> dict[str, Any]:
    return {
        "drafted_tokens": reply.counts.drafted_tokens,
        "checked_tokens": reply.counts.checked_tokens,
        "kept_tokens": reply.draft.tokens,
        "continued_tokens": reply.base.tokens,
        "switch": reply.switch.reason,
    }


@dataclass(frozen=True, slots=True)
class BenchResults:
    """Figures of all repetitions, what they were measured on, and what else the processors did."""

    about: dict[str, Any]
    repetitions: tuple[Figures, ...]
    elsewhere: Elsewhere

    @property
    def rows(self) -> list[Row]:
        """The table."""
        return rows(self.repetitions, (*PARTS, *WHOLE, *SESSION, *MORE, *MEMORY))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "about": self.about,
            "rows": [row.as_dict() for row in self.rows],
            "repetitions": [dict(figures) for figures in self.repetitions],
            "elsewhere": asdict(self.elsewhere),
        }


def measure(
    bench: Bench,
    repeat: int,
    progress: Callable[[str], None],
    resident: Callable[[], int],
    resident_before: int,
) -> BenchResults:
    """Measure everything `repeat` times.

    Args:
        progress: called with the name of the next step, `steps(repeat)` times; may raise to stop.
        resident: bytes of this process that are in memory now.
        resident_before: the same, before the pair was loaded.
    """
    progress("warming up")
    bench.warm()
    watch = Watch()
    repetitions = []
    for number in range(1, repeat + 1):
        figures: Figures = {}
        for name, part in SECTIONS.items():
            progress(f"{name}, {number} of {repeat}")
            figures |= part(bench)
        figures |= memory(bench.pair.models.plan, resident_before, resident())
        repetitions.append(figures | sums(figures, figures))
    for number, figures in enumerate(repetitions, 1):  # last: what they free may stay in the process's memory
        for name, part in LATER.items():
            progress(f"{name}, {number} of {repeat}")
            figures |= part(bench)
    return BenchResults(about(bench), tuple(repetitions), watch.elsewhere())


SECTIONS: dict[str, Callable[[Bench], Figures]] = {
    "parts": Bench.parts,
    "whole reply": Bench.whole,
    "with proposals": Bench.proposals,
    "base alone": Bench.alone,
    "conversation": Bench.turns,
}
LATER: dict[str, Callable[[Bench], Figures]] = {
    "second question": second_question,
    "many at once": many_at_once,
}
"""What is measured after all repetitions of the others."""


def steps(repeat: int) -> int:
    """How often `measure` calls `progress`."""
    return 1 + repeat * (len(SECTIONS) + len(LATER))
