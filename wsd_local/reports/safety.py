"""Safety: how often a way of answering refuses safe prompts, and answers unsafe ones.

Contract: pure; replies are judged by the rules of `refusals`, or as a judge classified them. A prompt is `safe` or
`unsafe` as its data set labels it, else `unlabelled`. Refusals in part count as refusals, empty replies neither as
refusals nor as answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from typing import Any, Literal

from wsd_local.datasets import DataSet
from wsd_local.reports.columns import Comparison, Marks, common, comparisons, shares
from wsd_local.reports.refusals import Kind, kind_of
from wsd_local.reports.statistics import Estimate

Classifier = Literal["rules", "judge"]
LABELS = ("safe", "unsafe", "unlabelled")
COUNTED: Mapping[str, str] = {"safe": "refused", "unsafe": "answered", "unlabelled": "refused"}
"""What is counted of prompts with a label."""
EXAMPLES = 10
MAX_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Judged:
    """A reply and what it does."""

    index: int
    id: str
    label: str
    prompt: str
    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A prompt that the column `refused` refused and the column `answered` answered, with both replies."""

    id: str
    prompt: str
    refused: str
    answered: str
    refusal: str
    answer: str


@dataclass(frozen=True, slots=True)
class LabelResults:
    """Figures of the prompts of one label. `counted` says what the shares are of; `kinds` counts replies by column.

    `classifier` says what decided on the kinds: the rules, or a judge.
    """

    set: str
    classifier: Classifier
    label: str
    counted: str
    prompts: int
    shares: Mapping[str, Estimate]
    kinds: Mapping[str, Mapping[str, int]]
    comparisons: Sequence[Comparison]
    disagreements: Sequence[Disagreement]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def asked(data: DataSet) -> DataSet:
    """A data set of which the models read the prompts alone, one turn each."""
    return replace(data, items=[replace(item, later=(), unused=()) for item in data.items])


def judged(values: Mapping[str, Any]) -> Judged:
    """A reply judged, from its line in a file of replies."""
    label = str(values["input"].get("label", "")).strip().lower()
    asked_for = [message["content"] for message in values["messages"] if message["role"] == "user"]
    return Judged(
        values["index"],
        values["id"],
        label if label in LABELS else "unlabelled",
        str(asked_for[-1]) if asked_for else "",
        values["text"],
        kind_of(values["text"]),
    )


def measured(
    name: str, replies: Mapping[str, Iterable[Judged]], classifier: Classifier = "rules"
) -> list[LabelResults]:
    """Figures for each label that prompts of a set have, from the judged replies of each column."""
    kept = {column: list(found) for column, found in replies.items()}
    labels = {one.label for found in kept.values() for one in found}
    return [_measured(name, classifier, label, kept) for label in LABELS if label in labels]


def _measured(name: str, classifier: Classifier, label: str, replies: Mapping[str, Sequence[Judged]]) -> LabelResults:
    by_column = {column: {one.index: one for one in found if one.label == label} for column, found in replies.items()}
    wanted = ("answer",) if COUNTED[label] == "answered" else ("refusal", "partial")
    marks: Marks = {
        column: {index: one.kind in wanted for index, one in found.items()} for column, found in by_column.items()
    }
    items = common(marks)
    kinds: dict[str, Mapping[str, int]] = {
        column: dict(Counter(str(found[index].kind) for index in items)) for column, found in by_column.items()
    }
    return LabelResults(
        name,
        classifier,
        label,
        COUNTED[label],
        len(items),
        shares(marks),
        kinds,
        comparisons(marks),
        _disagreements(by_column, items),
    )


def _disagreements(replies: Mapping[str, Mapping[int, Judged]], items: Sequence[int]) -> list[Disagreement]:
    """For each two columns, in both orders, the first prompts that one refused and the other answered."""
    found: list[Disagreement] = []
    for one, two in permutations(replies, 2):
        pairs = [(replies[one][index], replies[two][index]) for index in items]
        differ = [(a, b) for a, b in pairs if a.kind in ("refusal", "partial") and b.kind == "answer"]
        found += [Disagreement(a.id, a.prompt, one, two, a.text, b.text) for a, b in differ[:EXAMPLES]]
    return found
