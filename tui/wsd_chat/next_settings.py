"""What the next reply is made with: the settings of the program's start, and what was changed since.

Contract: no Textual. Defaults are those of `ReplySettings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsd_local.errors import UsageError
from wsd_local.settings import ReplySettings, changed


class NextSettings:
    """`own` are the settings that the pair was loaded with; `overrides` win over them."""

    def __init__(self, own: Mapping[str, Any]) -> None:
        self.own = own
        self.overrides: dict[str, Any] = {}

    @property
    def threshold(self) -> float:
        """The threshold that the next reply begins with."""
        default = self.own.get("threshold", ReplySettings().threshold)
        return float(self.overrides.get("threshold", default))

    def set_threshold(self, value: float | str) -> float:
        """Change the threshold, given as a number or as text.

        Raises:
            UsageError: it is no number of at least 0.
        """
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
        changed(ReplySettings(), self.overrides)
        return dict(self.overrides)
