"""What the next reply is made with: the settings of the program's start, and what was changed since.

Contract: no Textual. Defaults are those of `ReplySettings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsd_local.core.rule_settings import BOUNDS
from wsd_local.errors import UsageError
from wsd_local.fields import given
from wsd_local.settings import ReplySettings, changed


class NextSettings:
    """`own` are the settings that the pair was loaded with; `overrides` win over them."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.own = own
        self.overrides: dict[str, Any] = {}

    @property
    def rule(self) -> str:
        """The rule of the next reply."""
        return str(self._value("rule"))

    @property
    def bound(self) -> tuple[str, float]:
        """The setting that the rule of the next reply goes by, with its value."""
        name = BOUNDS.get(self.rule, "threshold")
        return name, float(self._value(name))

    @property
    def threshold(self) -> float:
        """The threshold that the next reply begins with."""
        return float(self._value("threshold"))

    def _value(self, name: str) -> Any:
        return {**self.own, **self.overrides}.get(name, getattr(ReplySettings(), name))

    def set_threshold(self, value: float | str) -> float:
        """Change the threshold, given as a number or as text.

        Raises:
            UsageError: it is no number of at least 0, or the rule has none.
        """
        if (bound := self.bound)[0] != "threshold":
            raise UsageError(f"the rule {self.rule} has no threshold: it goes by {bound[0]}, now {bound[1]:g}, see F9")
        try:
            threshold = float(value)
            changed(ReplySettings(), {"threshold": threshold})
        except (ValueError, UsageError):
            raise UsageError(f"the threshold must be a number of at least 0, not {value!r}") from None
        self.overrides["threshold"] = threshold
        return threshold

    def checked(self) -> dict[str, Any]:
        """A copy of the overrides.

        Raises:
            UsageError: they cannot hold together.
        """
        check(self.own, self.overrides)
        return dict(self.overrides)


def check(own: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """Raise `UsageError` if a reply cannot have these settings over those that the pair was loaded with."""
    changed(changed(ReplySettings(), given(ReplySettings, own)), overrides)
