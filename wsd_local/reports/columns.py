"""Ways of answering that are measured side by side, and how their figures are compared.

Contract: pure. A column is named as it is asked for: `base`, `urial` (the base after examples), `draft`, `wsd`,
`fixed:K`, or another rule's name, with `@` and a number where the rule has one (`wsd@0.7`). Columns are compared on the
items that all of them answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, get_args

from wsd_local.core.rule_settings import USES
from wsd_local.errors import UsageError, nearest
from wsd_local.prompts.in_context import IN_CONTEXT
from wsd_local.reports.statistics import Estimate, McNemar, mcnemar, share, share_difference
from wsd_local.settings import ReplySettings, changed, declarations

USUAL = ("base", "wsd", "draft")
_MODES = ("base", "draft", "urial")

Marks = Mapping[str, Mapping[int, bool]]
"""For each column the items that it answered, and whether it did what is counted."""


@dataclass(frozen=True, slots=True)
class Column:
    """A way of answering: its name, and the settings that make it."""

    name: str
    settings: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """The name as a part of a file's name."""
        return re.sub(r"[^\w.]+", "-", self.name)

    @property
    def mode(self) -> str:
        """The mode of its replies."""
        return str(self.settings.get("mode", "wsd"))

    def over(self, usual: ReplySettings, **more: Any) -> ReplySettings:
        """The settings of its replies, where `usual` and `more` say what it does not; without what its rule ignores."""
        own = {"mode": "wsd", "rule": "window", **self.settings}
        plain = ReplySettings()
        ignored = {name: getattr(plain, name) for name, rules in USES.items() if own["rule"] not in rules}
        return changed(usual, {**more, **ignored, **own})


def columns_of(names: str, urial: str | None = None) -> list[Column]:
    """Columns from their names, separated by commas; `urial` is the text of that column's prompt, if it has its own.

    Raises:
        UsageError: a name is not known, stands twice, or its number is not valid.
    """
    found = [_column(name.strip(), urial or IN_CONTEXT) for name in names.split(",") if name.strip()]
    if not found:
        raise UsageError("no column is named: name some, such as base,wsd,draft")
    for first, second in combinations(found, 2):
        if first.settings == second.settings or first.slug == second.slug:
            raise UsageError(f"the columns {first.name} and {second.name} are the same: leave one out")
    return found


def _column(name: str, urial: str) -> Column:
    rule, _, number = name.partition("@")
    rules = get_args(declarations()["rule"].kind)
    settings: dict[str, Any]
    if rule in _MODES or rule.startswith("fixed:"):
        settings = {"mode": rule, **({"urial": urial} if rule == "urial" else {})}
    elif rule == "wsd" or rule in rules:
        settings = {"rule": "window" if rule == "wsd" else rule}
    else:
        known = [*_MODES, "wsd", "fixed:K", *(other for other in rules if other != "window")]
        raise UsageError(f"there is no column {name!r}{nearest(rule, known)}; known are {', '.join(known)}")
    if number:
        if "mode" in settings:
            raise UsageError(f"column {name!r}: {rule} has no threshold; leave @{number} out")
        setting = rule if rule in declarations() else "threshold"
        try:
            settings[setting] = float(number)
        except ValueError:
            raise UsageError(f"column {name!r}: {number!r} is no number") from None
    try:
        ReplySettings(**settings)
    except UsageError as error:
        raise UsageError(f"column {name!r}: {error}") from None
    return Column(name, settings)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two columns on the same items: the share of the second minus that of the first, and McNemar's test."""

    first: str
    second: str
    difference: Estimate
    test: McNemar


def common(marks: Marks) -> list[int]:
    """The items that all columns answered, in order."""
    sets = [set(of_column) for of_column in marks.values()]
    return sorted(set.intersection(*sets)) if sets else []


def shares(marks: Marks) -> dict[str, Estimate]:
    """The share of each column, on the items that all of them answered; none without such items."""
    items = common(marks)
    return {name: share([found[item] for item in items]) for name, found in marks.items()} if items else {}


def comparisons(marks: Marks) -> list[Comparison]:
    """Each column with each that stands after it."""
    items = common(marks)
    values: dict[str, Sequence[bool]] = {name: [found[item] for item in items] for name, found in marks.items()}
    return [
        Comparison(one, two, share_difference(values[one], values[two]), mcnemar(values[one], values[two]))
        for one, two in combinations(values, 2)
        if items
    ]
