"""A judge as the second classifier of replies, kept in a file beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsd_local.cli.judge import follow_judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from wsd_local.cli.columns import Answering
    from wsd_local.cli.reply_parts import JudgeChoice
    from wsd_local.reports.evidence.safety import Classified
    from wsd_local.reports.judge.questions import JudgeQuestion


@dataclass(slots=True)
class JudgeClassifier:
    """Asks a judge about the replies to a set; `answering` is set before the first question.

    Verdicts go into `SET.judge.jsonl` of the folder; the same command continues it.
    """

    choice: JudgeChoice
    folder: Path
    answering: Answering | None = None

    def __call__(
        self, name: str, questions: Sequence[JudgeQuestion], runs: Mapping[str, Mapping[str, Any]]
    ) -> Classified:
        """The judge's answers to questions about the replies of some runs.

        Raises:
            CancelledError: a signal came; what is kept stays.
            WsdError: the judge cannot be loaded or cannot answer.
        """
        from wsd_local.cli.reply_parts import verdict_file
        from wsd_local.reports.evidence.safety import Classified
        from wsd_local.reports.judge.asking import LETTER_ORDERS

        assert self.answering is not None
        with self.choice.opened(self.answering) as judge:
            about = {"ask": "refusal", "letter_orders": list(LETTER_ORDERS), "judge": judge.identity}
            with verdict_file(self.folder / f"{name}.judge.jsonl", about, runs) as sink:
                work = follow_judge(judge, questions, sink, self.answering.reporter, self.answering.interrupt)
                too_long = {(question.key[0], question.key[2].rpartition(" ")[0]) for question, _ in work.too_long}
                return Classified(judge.identity, dict(sink.done), len(too_long))
