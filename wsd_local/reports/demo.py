"""The demo pair's held-out questions and the rules that judge a reply to one, by exact text.

A questions file is JSON lines: first one `forms` record with what good answers are put together from, then one
record per question. `well` means that the whole reply, from its first character to its last, is one of the good
forms, whatever value stands in it; `right` means that the value is the true one. A curt reply can be right
without being well given. The file is all that is needed: nothing here knows facts or models.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.system.inputs import json_value, read_text

MEASURED_GROUP = "facts"
"""The group that the demo's table is measured on; the others hold follow-ups, small talk and what lies outside."""


@dataclass(frozen=True)
class Verdict:
    """`well`: friendly, complete and to the point. `right`: it states the truth."""

    well: bool
    right: bool


@dataclass(frozen=True)
class DemoQuestion:
    """One held-out question with everything that judging a reply to it takes."""

    id: str
    group: str
    kind: str
    question: str
    known_to_draft: bool
    truth: str
    pattern: str
    curt: tuple[str, ...]
    context: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation to answer: earlier messages, then the question."""
        turns = [*self.context, ("user", self.question)]
        return [{"role": role, "content": content} for role, content in turns]


def _any_of(texts: Sequence[str]) -> str:
    return "(?:" + "|".join(re.escape(text) for text in texts) + ")"


def _answer_pattern(record: Mapping[str, Any], forms: Mapping[str, Any]) -> str:
    """Opening, statement with a value of the kind, closing."""
    if "replies" in record:
        return _any_of(record["replies"])
    values = "(?P<value>" + "|".join(re.escape(value) for value in forms["values"][record["kind"]]) + ")"
    statements = [
        re.escape(before) + values.replace("value", f"value{number}", 1) + re.escape(after)
        for number, (before, _, after) in enumerate(text.partition("{v}") for text in record["statements"])
    ]
    return f"{_any_of(forms['openings'])} (?:{'|'.join(statements)}) {_any_of(forms['closings'])}"


def _curt_forms(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Replies that are right and no more: the value, or the statement alone."""
    truth = record.get("truth", "")
    if not truth:
        return ()
    end = "" if truth.endswith(".") else "."
    statements = tuple(text.replace("{v}", truth) for text in record["statements"])
    return (truth[:1].upper() + truth[1:] + end, f"It is {truth}{end}", *statements)


def load_questions(path: Path) -> list[DemoQuestion]:
    """Read a questions file. ValueError with the line's number where it is not one."""
    forms: dict[str, Any] | None = None
    questions: list[DemoQuestion] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            record = json_value(line)
            if forms is None:
                forms = record["forms"]
                continue
            questions.append(
                DemoQuestion(
                    id=record["id"],
                    group=record["group"],
                    kind=record["kind"],
                    question=record["question"],
                    known_to_draft=record.get("known_to_draft", True),
                    truth=record.get("truth", ""),
                    pattern=_answer_pattern(record, forms),
                    curt=_curt_forms(record),
                    context=tuple((role, content) for role, content in record.get("context", [])),
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a demo question ({error!r})") from error
    return questions


def judge(question: DemoQuestion, reply_text: str) -> Verdict:
    """Hold a reply against the question's forms, white space around it aside."""
    text = reply_text.strip()
    match = re.fullmatch(question.pattern, text)
    if match is None:
        return Verdict(well=False, right=text in question.curt)
    if not question.truth:
        return Verdict(well=True, right=True)
    return Verdict(well=True, right=question.truth in match.groupdict().values())
