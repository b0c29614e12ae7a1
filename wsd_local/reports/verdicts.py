"""Findings: what was measured about one symptom, whether that is well, and what to do if it is not.

Contract: pure. Shared by everything that examines models and prints one line for each symptom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one symptom: the figures it goes by and, unless it is ok, the cause and what to do."""

    symptom: str
    verdict: Verdict
    figure: str
    cause: str = ""
    remedy: str = ""

    def line(self) -> str:
        """One line of text."""
        rest = "".join(f"; {part}" for part in (self.cause, self.remedy) if part)
        return f"{self.verdict:<7}  {self.symptom}: {self.figure}{rest}"


def worst(findings: Iterable[Finding]) -> Verdict:
    """The gravest verdict among findings; ok if there is none."""
    order: tuple[Verdict, ...] = ("ok", "warning", "fault")
    return max((finding.verdict for finding in findings), key=order.index, default="ok")


def tally(findings: Iterable[Finding]) -> str:
    """How many findings are no good, such as ` (1 fault, 2 warnings)`; empty if all are ok."""
    counts = Counter(finding.verdict for finding in findings)
    found = [f"{counts[kind]} {kind}{'s' * (counts[kind] != 1)}" for kind in ("fault", "warning") if counts[kind]]
    return f" ({', '.join(found)})" if found else ""
