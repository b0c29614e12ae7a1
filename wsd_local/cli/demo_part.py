"""The embedded pair's own evaluation as a part: its held-out questions, which are judged by exact forms.

Contract: replies are kept in `demo.jsonl` of the folder when the part ends, also if a signal ended it; they are used
again by the same pair and the same llama.cpp, and asked for anew by another.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli.columns import Answering
from wsd_local.cli.side_by_side import stepping
from wsd_local.errors import UsageError
from wsd_local.reports.evidence.demo import DEMO, demo_findings

if TYPE_CHECKING:
    from wsd_local.reports.demo import DemoQuestion
    from wsd_local.reports.evaluation import JudgedReply
    from wsd_local.reports.evidence.part import Claim, Findings


class DemoPart:
    """The embedded pair's held-out questions, at most `limit` of them, in a fixed random order."""

    name = "demo"
    claim: Claim = DEMO

    def __init__(self, answering: Answering, folder: Path, limit: int | None) -> None:
        self._answering, self._limit = answering, limit
        self._path = folder / "demo.jsonl"
        self._questions: list[DemoQuestion] = []

    def open(self) -> int:
        """Read the questions; their number."""
        from wsd_local.reports.evaluation import questions

        found = questions()
        random.Random(0).shuffle(found)
        self._questions = found[: self._limit]
        return len(self._questions)

    def measure(self, count: int) -> Findings:
        """Answer the first `count` questions in several ways, and judge the replies."""
        from wsd_local.llama.build import version
        from wsd_local.reports.evaluation import measure
        from wsd_local.settings import ReplySettings

        pair = self._answering.pair()
        pair.settings = ReplySettings()
        made_by = {"wsd_local_demo": 1, "models": dict(pair.models.hashes), "llama_cpp": version()}
        known = dict(self._kept(made_by))
        before = len(known)
        step = stepping(self._answering.reporter, self._answering.interrupt)
        try:
            results = measure(pair, self._questions[:count], lambda way: step(f"demo, {way}: {len(known)}"), known)
        finally:
            if len(known) > before:
                self._keep(made_by, known)
        return demo_findings(results)

    def _kept(self, made_by: dict[str, Any]) -> Iterator[tuple[tuple[str, str], JudgedReply]]:
        from wsd_local.reports.demo import Verdict
        from wsd_local.reports.evaluation import JudgedReply
        from wsd_local.system.inputs import json_value, read_text

        if not self._path.exists():
            return
        head, *lines = read_text(self._path).splitlines() or [""]
        try:
            if json_value(head) != made_by:
                return
            for line in lines:
                way, name, values = json_value(line)
                yield (way, name), JudgedReply(**{**values, "verdict": Verdict(**values["verdict"])})
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"{self._path}: holds something else than replies; choose another --out") from None

    def _keep(self, made_by: dict[str, Any], known: dict[tuple[str, str], JudgedReply]) -> None:
        from wsd_local.files import write_text

        lines = [made_by, *([way, name, asdict(reply)] for (way, name), reply in known.items())]
        write_text(self._path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
