"""Which settings belong to which rule, and the rule that they make.

Contract: pure. The names are those of `wsd_local.settings`, which declares the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from wsd_local.core.rules import Rule, Window
from wsd_local.core.rules_entropy import Entropy
from wsd_local.core.rules_nudging import Nudging
from wsd_local.core.rules_return import Return
from wsd_local.core.rules_veto import Veto
from wsd_local.errors import UsageError
from wsd_local.fields import spelled

RuleName = Literal["window", "return", "entropy", "nudging", "veto", "bet"]

_WINDOWS: tuple[RuleName, ...] = ("window", "return", "entropy")

USES: Mapping[str, tuple[RuleName, ...]] = {
    "window": _WINDOWS,
    "threshold": ("window", "return"),
    "return_": ("return",),
    "entropy": ("entropy",),
    "nudging": ("nudging",),
    "veto": ("veto",),
    "bet": ("bet",),
    "draft_max_tokens": _WINDOWS,
    "on_draft_end": _WINDOWS,
    "check_chunk": (*_WINDOWS, "veto", "bet"),
}
"""Settings that not every rule uses, and the rules that do."""

BOUNDS: Mapping[str, str] = {
    **dict.fromkeys(("window", "return"), "threshold"),
    **{name: name for name in ("entropy", "nudging", "veto", "bet")},
}
"""The setting that each rule goes by."""

SINGLE_SWITCH: tuple[RuleName, ...] = ("window", "entropy")
"""Rules by which the draft does not come back."""
LEADING: tuple[RuleName, ...] = ("veto", "bet")
"""Rules under which the draft leads: a reply ends where it does."""
ENDING: tuple[RuleName, ...] = (*LEADING, "nudging")
"""Rules under which a reply ends where the draft does."""


class RuleValues(Protocol):
    """The settings that rules are made of, and those that not every rule goes with."""

    @property
    def mode(self) -> str:
        """What writes the reply; rules hold in `wsd` alone."""
        ...

    @property
    def ignore_eos(self) -> bool:
        """Whether no token ends the reply."""
        ...

    @property
    def speculation(self) -> str:
        """Where proposals come from."""
        ...

    @property
    def rule(self) -> RuleName:
        """The rule's name."""
        ...

    @property
    def window(self) -> int:
        """Length of the window."""
        ...

    @property
    def threshold(self) -> float:
        """Confidence that must be reached."""
        ...

    @property
    def return_(self) -> float:
        """Bound of `Return`."""
        ...

    @property
    def entropy(self) -> float:
        """Bound of `Entropy`."""
        ...

    @property
    def nudging(self) -> float:
        """Bound of `Nudging`."""
        ...

    @property
    def veto(self) -> float:
        """Bound of `Veto`."""
        ...

    @property
    def bet(self) -> float:
        """Bound of `Veto` of the kind `bet`."""
        ...


def make_rule(values: RuleValues) -> Rule:
    """A new rule.

    Raises:
        UsageError: a value is outside its range.
    """
    match values.rule:
        case "window":
            return Window(values.window, values.threshold)
        case "return":
            return Return(values.window, values.threshold, values.return_)
        case "entropy":
            return Entropy(values.window, values.entropy)
        case "nudging":
            return Nudging(values.nudging)
        case "veto":
            return Veto("veto", values.veto)
        case "bet":
            return Veto("bet", values.bet)


def require_rule(values: RuleValues, usual: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a value that the rule does not use; `usual` are the defaults by name."""
    rule = values.rule
    if rule != "window" and values.mode != "wsd":
        both = f"rule {rule} and mode {values.mode} are given"
        raise UsageError(f"{both}: rules hold in the mode wsd alone", about="rule")
    for name, rules in USES.items():
        if rule not in rules and getattr(values, name) != usual[name]:
            uses = f"it is for the rule {' or '.join(rules)}"
            raise UsageError(f"{spelled(name)} is given, and the rule is {rule}: {uses}", about=name)
    if rule in ENDING and values.ignore_eos:
        raise UsageError(
            f"ignore-eos and rule {rule} are given: the draft's end ends the reply; leave one out", about="ignore_eos"
        )
    if rule in LEADING and values.speculation in ("draft", "lookup"):
        why = "the draft proposes all that the base may accept; leave speculation out"
        raise UsageError(f"speculation {values.speculation} and rule {rule} are given: {why}", about="speculation")


def by_itself(name: str, value: Any) -> dict[str, Any]:
    """A setting with what it is valid with, to check it alone."""
    rules = USES.get(name, ("window",))
    return {name: value} if "window" in rules else {name: value, "rule": rules[0]}
