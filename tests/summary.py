"""What the summary of a run shows: figures that tests report, and why some were skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

Tell = Callable[..., None]
"""The fixture `tell`: lines for the summary."""


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why something was skipped."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def write_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print both; each reason once."""
    reasons = Counter(
        skip_reason(report).removeprefix("expected: ") for report in terminalreporter.getreports("skipped")
    )
    if reasons:
        terminalreporter.section("skipped, and why")
        for why, count in reasons.most_common():
            terminalreporter.write_line(f"{count}: {why}")
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    lines = sorted(str(text) for report in reports for name, text in report.user_properties if name == "reported")
    if lines:
        terminalreporter.section("reported by the tests")
        terminalreporter.write_line("\n".join(lines))
